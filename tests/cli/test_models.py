"""Models by name: which texts are names, what has precedence over a name, and the error for an unknown one."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import helixctl as api
from helixctl.spec import ModelDocument
from helixctl.spec.load import load_model
from helixctl.spec.named_models import model_names
from tests.cli.command import ENVIRONMENT, helixctl
from tests.documents import ROOT
from tests.wheel import built

FOLDERS = sorted((path.parent for path in ROOT.glob("plans/models/*/config.json")), key=lambda path: path.name.lower())
SIZES = ("--batch", "8", "--seq-len", "16")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_name_is_the_model_of_its_folder(folder: Path) -> None:
    found = api.load(folder.name.lower())
    assert isinstance(found, ModelDocument)
    assert found == load_model(str(folder))
    assert found.name == folder.name
    assert [path.name for path in FOLDERS] == list(model_names())


def test_a_name_plans_from_anywhere_to_the_digest_of_its_folder(tmp_path: Path) -> None:
    by_name = helixctl("plan", "llama-3.1-8b", "h100:1x8", *SIZES, "-q", "-o", "-", cwd=tmp_path)
    by_path = helixctl("plan", ROOT / "plans/models/Llama-3.1-8B", "8xH100", *SIZES, "-q", "-o", "-", cwd=tmp_path)
    assert by_name.status == 0, by_name.err
    assert by_name.out == by_path.out
    assert "valid model Llama-3.1-8B" in helixctl("validate", "Llama-3.1-8B", cwd=tmp_path).said


def test_what_is_in_the_folder_comes_first(tmp_path: Path) -> None:
    config = json.loads((ROOT / "plans/models/Llama-3.1-8B/config.json").read_text()) | {"num_hidden_layers": 3}
    (tmp_path / "Llama-3.1-8B").mkdir()
    (tmp_path / "Llama-3.1-8B/config.json").write_text(json.dumps(config))
    done = helixctl("plan", "Llama-3.1-8B", "h100:1", *SIZES, "-q", "-o", "-", cwd=tmp_path)
    assert json.loads(done.out)["model"]["layers"] == 3
    (tmp_path / "Llama-3.1-8B/config.json").unlink()
    done = helixctl("plan", "Llama-3.1-8B", "h100:1", cwd=tmp_path)
    assert "the folder has no config.json" in done.err


@pytest.mark.parametrize("wrong", ["id", "url"])
def test_an_id_of_the_hub_names_the_model_that_is_inside(wrong: str, tmp_path: Path) -> None:
    prefix = "https://huggingface.co/" if wrong == "url" else ""
    for name, inside in (("Qwen/Qwen2.5-7B", True), ("qwen/qwen2.5-7b", True), ("Qwen/Qwen2.5-14B", False)):
        err = helixctl("plan", f"{prefix}{name}", "h100:1", cwd=tmp_path).err
        last = name.rpartition("/")[2]
        assert f"hf download {name} config.json --local-dir {last}, then give ./{last}" in err
        assert ("give Qwen2.5-7B, whose config comes with helixctl" in err) == inside


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Llama3.1-8B", "Llama-3.1-8B"),
        ("LLama-3.1-8b-instruct", "Llama-3.1-8B"),
        ("Mixtral-8x7B", "Mixtral-8x7B-v0.1"),
        ("Qwen-2.5-7B", "Qwen2.5-7B"),
        ("Llama-3.1-75B", None),
        ("Llama-3-8B", None),
        ("Qwen2.5-72B", None),
        ("nothing", None),
    ],
)
def test_an_unknown_name_lists_what_there_is_and_never_means_another_size(text: str, meant: str | None) -> None:
    err = helixctl("plan", text, "h100:1").err
    assert f"{text}: HX101 cannot be read" in err
    assert f"models by name: {', '.join(model_names())}" in err
    assert (f"did you mean '{meant}'?" in err) if meant else ("did you mean" not in err)
    assert ("models by name" in helixctl("validate", text).said) == bool(meant)


@pytest.mark.parametrize("text", ["no.yaml", "./Llama-3.1-8B", "plans/Llama-3.1-8B"])
def test_a_path_is_no_name(text: str) -> None:
    done = helixctl("plan", text, "h100:1")
    assert "HX101 cannot be read: no such file" in done.err
    assert "models by name" not in done.err


def test_the_list_has_the_published_sizes() -> None:
    done = helixctl("models")
    rows = {line.split()[0]: line for line in done.said.splitlines() if line and not line.startswith("helixctl")}
    assert max(len(line.rstrip()) for line in done.said.splitlines()) <= 80
    published = {"Llama-3.1-405B": "405.85", "Llama-3.1-8B": "8.03", "Mixtral-8x7B-v0.1": "46.70", "Qwen2.5-7B": "7.62",
                 "Qwen3-30B-A3B": "30.53", "Qwen3-235B-A22B": "235.09", "DeepSeek-V3": "671.03",
                 "Kimi-K2-Instruct": "1026.41", "gpt-oss-120b": "116.83"}  # fmt: skip
    for name, billions in published.items():
        assert f" {billions} B  " in rows[name]
    assert "48    2048      32/4  8 of 128" in rows["Qwen3-30B-A3B"]
    stored = {"DeepSeek-V3": "float8", "gpt-oss-120b": "float4", "Llama-3.1-8B": "bfloat16"}
    assert {name: rows[name].split()[-1] for name in stored} == stored


@pytest.mark.sweep
def test_a_wheel_has_the_names(tmp_path: Path) -> None:
    """Built offline, installed beside nothing of the checkout, used from another folder."""
    pytest.importorskip("hatchling")
    wheel = built(tmp_path / "dist")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    # The dependencies are those of the tests' environment; helixctl itself must come from the wheel.
    venv.create(tmp_path / "env", system_site_packages=False, with_pip=False)
    python = tmp_path / "env/bin/python"
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", site, wheel], check=True, env=ENVIRONMENT)
    import click

    (site / "others.pth").write_text(str(Path(click.__file__).parents[1]) + "\n")
    env = {name: value for name, value in ENVIRONMENT.items() if name != "PYTHONPATH"}
    (tmp_path / "here").mkdir()

    def run(*args: str) -> str:
        command = [python, "-m", "helixctl", *args]
        done = subprocess.run(command, cwd=tmp_path / "here", env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = [python, "-c", "import helixctl; print(helixctl.__file__)"]
    found = subprocess.run(where, cwd=tmp_path / "here", env=env, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(site))
    plan = ("Llama-3.1-8B", "h100:1x8", "--batch", "8", "--seq-len", "2048", "-q", "-o", "-")
    assert run("plan", *plan) == helixctl("plan", *plan).out.decode()
    assert run("models") == helixctl("models").said
    assert run("clusters") == helixctl("clusters").said
    shown = run("clusters", "show", "h100:2x8")
    assert shown == helixctl("clusters", "show", "h100:2x8").said.partition("\n")[2]  # no schema to point to
