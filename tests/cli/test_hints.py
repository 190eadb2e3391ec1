"""Texts that users of other programs type: the hint names the right correction."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from helixctl.cli.foreign import _COMMANDS, _OPTIONS, option_hint
from helixctl.cli.main import COMMANDS
from helixctl.cli.plan import command as plan
from tests.cli.command import helixctl
from tests.documents import ROOT, SMALL


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--tp", "--layout tp=N"),
        ("--tensor-parallel-size", "--layout tp=N"),
        ("--tensor_parallel_size", "--layout tp=N"),
        ("--pp", "--layout pp=N"),
        ("--dp", "--layout dp=N"),
        ("--ep", "--layout ep=N"),
        ("--prompt-len", "--input-len L"),
        ("--max-tokens", "--output-len N"),
        ("--dcp-size", "--layout slices=N,slicing=key"),
        ("--hosts", "--set hosts=N"),
        ("--gpus", "--set devices_per_host=N"),
        ("--batch-size", "--batch N"),
        ("--model", "helixctl plan MODEL CLUSTER"),
    ],
)
@pytest.mark.parametrize("form", ["{} 8", "{}=8"])
def test_an_option_of_another_program(option: str, hint: str, form: str) -> None:
    done = helixctl("plan", *SMALL, *form.format(option).split())
    assert done.status == 2
    assert f"Error: no such option {option}\n  hint: " in done.err
    assert hint in done.err.splitlines()[-1]
    assert "Did you mean" not in done.err


def test_no_hint_hides_an_option_of_ours() -> None:
    ours = {opt.lstrip("-") for option in plan.params for opt in option.opts if opt.startswith("-")}
    assert not ours & {name for names in _OPTIONS.values() for name in names.split()}
    assert all(hint.startswith(("--", "give it")) for hint in _OPTIONS)
    assert option_hint("--tp", "run") == "the plan says that: make another with helixctl plan"
    assert option_hint("--foo", "plan") is None


@pytest.mark.parametrize(
    ("name", "said"),
    [("plna", "did you mean 'plan'?"), ("validte", "did you mean 'validate'?"), ("verify", "did you mean 'validate'?"),
     ("predict", "did you mean 'simulate'?"), ("xyzzy", "plan, validate, diff")],
)  # fmt: skip
def test_a_command_that_is_none(name: str, said: str) -> None:
    done = helixctl(name, "x")
    assert done.status == 2
    assert f"no such command {name!r}" in done.err
    assert said in done.err
    assert set(_COMMANDS) == set(COMMANDS)


@pytest.mark.parametrize("name", ["meta-llama/Llama-3.1-8B", "https://huggingface.co/meta-llama/Llama-3.1-8B"])
@pytest.mark.parametrize("command", ["plan", "validate"])
def test_an_id_of_the_hub(name: str, command: str, tmp_path: Path) -> None:
    done = helixctl(command, name, *SMALL[1 : 2 if command == "plan" else 1], cwd=tmp_path)
    assert done.status == 2
    assert (
        "hf download meta-llama/Llama-3.1-8B config.json --local-dir Llama-3.1-8B, then give ./Llama-3.1-8B"
        in done.err + done.said
    )


@pytest.mark.parametrize("name", ["plans/no.yaml", "plans/nothing", "nothing", "./a/b"])
def test_another_missing_file_is_no_id_of_the_hub(name: str) -> None:
    done = helixctl("plan", name, SMALL[1])
    assert done.status == 2
    assert "hf download" not in done.err


def test_a_folder_as_cluster_and_a_folder_without_a_config(tmp_path: Path) -> None:
    shutil.copy(SMALL[1], tmp_path / "c.yaml")
    done = helixctl("plan", SMALL[0], tmp_path)
    assert f"{tmp_path}: HX101 cannot be read: is a directory\n  hint: a file is needed" in done.err
    assert "c.yaml" in done.err
    done = helixctl("plan", tmp_path, SMALL[1])
    assert "hint: the folder has no config.json" in done.err


def test_how_a_layout_was_read_is_said_once() -> None:
    done = helixctl("plan", *SMALL, "--layout", "tp=4, pp=2, dp=2")
    assert done.status == 0
    note = "note: --layout 'tp=4, pp=2, dp=2' is read as groups x slices=4, pipeline=2, data=2\n"
    assert done.err.count("is read as") == 1
    assert note in done.err
    for text in ("", ","):
        done = helixctl("plan", *SMALL, "--layout", text)
        assert (done.status, "HX105" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("value", "said", "never"),
    [
        ("within_host.bandwidth=16 GT/s", "transfers are no bytes: write GB/s", "Tb/s"),
        ("within_host.bandwidth=16 TFLOP/s", "write for example '450 GB/s'", "did you mean"),
        ("dtype=float8", "HX105", "did you mean"),
        ("dtype=fp8", "HX105", "did you mean"),
        ("dtype=int8", "HX105", "did you mean"),
        ("dtype=tf32", "HX105", "did you mean"),
        ("dtype=fp16", "did you mean 'float16'?", "mean 'float64"),
        ("dtype=half", "did you mean 'float16'?", "mean 'float64"),
        ("dtype=bf16", "did you mean 'bfloat16'?", "mean 'float64"),
        ("dtype=fp32", "did you mean 'float32'?", "mean 'float64"),
        ("dtype=flaot32", "did you mean 'float32'?", "mean 'float64"),
        ("device.peak.tf32=1 TFLOP/s", "HX108", "did you mean"),
    ],
)
def test_a_hint_never_names_another_thing(value: str, said: str, never: str) -> None:
    done = helixctl("plan", *SMALL, "--set", value)
    assert done.status == 2
    assert said in done.err
    assert never not in done.err


def test_an_unknown_dtype_of_a_cluster_names_no_other(tmp_path: Path) -> None:
    text = Path(SMALL[1]).read_text().replace("    float64: ", "    tf32: ")
    (tmp_path / "c.yaml").write_text(text)
    done = helixctl("validate", tmp_path / "c.yaml")
    keys = "float16, bfloat16, float32, float64, int8, float8, float4"
    assert f"HX103 unknown key 'tf32' in device.peak\n  hint: known keys: {keys}\n" in done.said


@pytest.mark.parametrize("sign", ["\u00b5", "\u03bc"])
def test_microseconds_with_either_sign(sign: str) -> None:
    one = ("plan", *SMALL, "--plain", "--groups", "4", "--slices", "4", "-q", "-o", "-")
    a, b = (helixctl(*one, "--set", f"within_host.latency=500 {u}s") for u in ("u", sign))
    made = [json.loads(done.out) for done in (a, b)]
    assert (a.status, made[0].pop("asked") != made[1].pop("asked")) == (0, sign != "u")
    assert made[0] == made[1]


CONFIG = (ROOT / "plans/models/Qwen2.5-7B/config.json").read_text()


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("{\n", "{\n  // our copy\n", 2, "a comment (//): JSON has none"),
        ("{\n", "{\n  /* our\n copy */\n", 2, "a comment (/*): JSON has none"),
        ('"hidden_act": "silu",', '"hidden_act": "silu", // gated', 8, "a comment (//)"),
        ('"hidden_act": "silu",', '"hidden_act": "silu"', 8, "a comma is missing after this"),
    ],
)
def test_slips_in_json_are_said_at_their_place(old: str, new: str, line: int, said: str, tmp_path: Path) -> None:
    text = CONFIG.replace(old, new, 1)
    assert text != CONFIG
    for mark in ("", "\ufeff"):
        (tmp_path / "config.json").write_text(mark + text)
        done = helixctl("validate", tmp_path / "config.json")
        assert done.status == 2
        assert f"config.json:{line}:" in done.said
        assert said in done.said
        assert "flow" not in done.said


def test_utf_16_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(CONFIG.encode("utf-16"))
    done = helixctl("validate", tmp_path / "config.json")
    assert "HX101 is UTF-16, not UTF-8\n  hint: save the file as UTF-8" in done.said
    (tmp_path / "config.json").write_bytes(CONFIG.encode("utf-8-sig"))
    assert helixctl("validate", tmp_path / "config.json").status == 0


def test_what_yaml_reads_is_read(tmp_path: Path) -> None:
    """A trailing comma, a # comment, single quotes: YAML's flow style, which a text that begins with a brace may be."""
    same = json.dumps(json.loads(CONFIG))
    for text in (CONFIG.replace("\n}", ",\n}"), "{ # ours\n" + CONFIG.lstrip()[1:], same.replace('"', "'")):
        (tmp_path / "config.json").write_text(text)
        assert helixctl("validate", tmp_path / "config.json").status == 0
