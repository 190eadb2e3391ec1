"""The notes of `plan` beside its table, and what it refuses to price; each with a case in which it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import helixctl
from tests.documents import PAPER, SMALL

LLAMA = "plans/models/Llama-3.1-8B"
GENERATES = (*(part for field in ("attention.softmax_slices=1", "attention.causal=true", "vocabulary.size=97")
               for part in ("--set", field)), "--layout", "groups=4,slices=4")  # fmt: skip
ONE = ("--set", "hosts=1", "--set", "devices_per_host=1")


@pytest.mark.parametrize(
    ("with_it", "without_it", "text"),
    [
        (PAPER, (*PAPER, "--seq-len", "2"), "it is no decode step"),
        (
            (*SMALL, *GENERATES, "--seq-len", "1"),
            (*SMALL, *GENERATES, "--seq-len", "1", "--output-len", "2"),
            "it is no decode step",
        ),
        (
            (LLAMA, PAPER[1], *ONE, "--batch", "1", "--seq-len", "131073"),
            (LLAMA, PAPER[1], *ONE, "--batch", "1", "--seq-len", "131072"),
            "131,073 tokens a sequence are beyond the 131,072 positions of the model",
        ),
        (
            (LLAMA, PAPER[1], *ONE, "--set", "device.memory=18 GB", "--set", "device.reserve=0"),
            (LLAMA, PAPER[1], *ONE, "--set", "device.memory=30 GB", "--set", "device.reserve=0"),
            "of 18 GB a device are left (device.reserve 0 %)",
        ),
        ((LLAMA, PAPER[1]), (LLAMA, PAPER[1], "--logits", "all"), "logits of the last token"),
        ((LLAMA, PAPER[1]), ("plans/small/dense.model.yaml", "plans/small/cpu16.cluster.yaml"), "logits of the last"),
    ],
)
def test_notes(with_it: tuple[str, ...], without_it: tuple[str, ...], text: str) -> None:
    said, silent = helixctl("plan", *with_it), helixctl("plan", *without_it)
    assert (said.status, silent.status) == (0, 0), said.err + silent.err
    assert text in said.said
    assert text not in silent.said
    passes = [done for args, done in ((with_it, said), (without_it, silent)) if "--output-len" not in args]
    assert all("in one pass, no KV cache" in done.said.splitlines()[1] for done in passes)


def test_the_reserve_is_counted_and_said(tmp_path: Path) -> None:
    """Weights are 16.1 GB: 17 GB hold them, but not beside a reserve."""
    args = ("plan", LLAMA, PAPER[1], *ONE, "--batch", "1", "--seq-len", "16", "--set", "device.memory=17 GB")
    refused = helixctl(*args)
    assert refused.status == 1
    assert "has 17 GB, 15.3 GB without its reserve of 10 %" in refused.err
    assert helixctl(*args, "--set", "device.reserve=0", "-q", "-o", tmp_path / "x.plan.json").status == 0
    plan = json.loads((tmp_path / "x.plan.json").read_text())
    del plan["cluster"]["device"]["reserve"]
    (tmp_path / "x.plan.json").write_text(json.dumps(plan))
    assert "HX302" in helixctl("validate", tmp_path / "x.plan.json").said  # the digest has it


def test_logits_of_all_or_of_the_last_token(tmp_path: Path) -> None:
    path, found = tmp_path / "x.plan.json", {}
    for option in ((), ("--logits", "last"), ("--logits", "all"), ("--set", "workload.logits=all")):
        done = helixctl("plan", LLAMA, PAPER[1], *ONE, *option, "-o", path)
        assert done.status == 0
        found[option] = json.loads(path.read_text())["workload"]
    last, also, every, too = found.values()
    assert last == also == {"batch": 8, "seq_len": 2048, "logits": "last"}
    assert every == too == {"batch": 8, "seq_len": 2048}  # as documents had it before there was a choice
    assert "HX109 logits: last, but the model has no vocabulary" in helixctl("plan", *SMALL, "--logits", "last").err
    assert "HX109" in helixctl("plan", *SMALL, "--set", "workload.logits=last").err


def test_a_plan_without_a_vocabulary_has_no_logits(tmp_path: Path) -> None:
    plan = json.loads(Path("plans/small/dense.4x4.plan.json").read_text())
    plan["workload"]["logits"] = "last"
    (tmp_path / "x.plan.json").write_text(json.dumps(plan))
    assert "HX109 logits: last" in helixctl("validate", tmp_path / "x.plan.json").said


def test_a_long_prefill_fits_where_its_logits_would_not() -> None:
    """Llama-3.1-8B, 131,072 tokens on one GPU of 48 GB: logits of all tokens alone take 33.6 GB."""
    args = ("plan", LLAMA, PAPER[1], *ONE, "--set", "device.memory=48 GB", "--batch", "1", "--seq-len", "131072")
    assert helixctl(*args).status == 0
    every = helixctl(*args, "--logits", "all")
    assert every.status == 1
    assert "HX203" in every.err
    assert "--logits last" in every.err


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_dtype_without_a_rate_is_refused(dtype: str, tmp_path: Path) -> None:
    """The rate of another dtype would be a number without a source."""
    done = helixctl("plan", *PAPER, "--set", f"dtype={dtype}")
    if dtype == "float32":
        assert done.status == 0
        return
    assert done.status == 2
    assert f"{PAPER[1]}:11:3: HX114 NVIDIA H100 80GB HBM3 has no peak rate for float64" in done.err
    plan = json.loads(Path("plans/small/dense.4x4.plan.json").read_text())
    plan["cluster"]["device"]["peak"] = {"float16": "1 TFLOP/s"}
    plan["model"]["dtype"] = "float32"
    (tmp_path / "x.plan.json").write_text(json.dumps(plan))
    assert helixctl("simulate", tmp_path / "x.plan.json").status in {1, 2}
