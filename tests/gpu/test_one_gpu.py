"""The GPU check, tried on CPU with the small twin, so that it is ready where a GPU is at hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.documents import ROOT, SMALL, plan_of

# Two test processes share two cores. A GPU compiles what tests/conftest.py has interpreted.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"OMP_NUM_THREADS": "1"}
SCRIPT, STEPS = ROOT / "tests/gpu/one_gpu.py", ROOT / "tests/gpu/steps.py"


def run(report: Path, *args: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--report", report, *args], env=ENVIRONMENT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    found: dict[str, object] = json.loads(report.read_text())
    return found


@pytest.mark.sweep
def test_the_script_on_cpu(tmp_path: Path) -> None:
    plan = tmp_path / "x.plan.json"
    plan.write_text(plan_of(SMALL, 2, 2, "workload.batch=4").to_json())
    found = run(tmp_path / "r.json", "--device", "cpu", "--plan", str(plan))
    assert found["passed"]
    dense = {"linear", "norm", "activation", "add"}
    assert {row["kind"] for row in found["kernels"]} == dense
    generations: Any = found["generations"]
    assert [row["check"]["passed"] for row in generations] == [True, True]
    assert {row["kind"] for row in found["real_kernels"]} == dense | {
        "embed",
        "bias",
        "rotate",
        "multiply",
        "gated product",
    }


@pytest.mark.sweep
def test_steps_on_cpu(tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    arguments = ("--device", "cpu", "--small", "--seconds", "0.1", "--report", str(report))
    done = subprocess.run([sys.executable, STEPS, *arguments], env=ENVIRONMENT, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    dense, moe = json.loads(report.read_text())["steps"]
    assert {t["kind"] for t in dense["tasks"]} == {"linear", "norm", "activation", "add", "attention"}
    assert {t["kind"] for t in moe["tasks"]} >= {"route", "experts"}
    assert all(row["step_ms"] > 0 and row["predicted_ms"]["datasheet"] > 0 for row in (dense, moe))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_paper_s_shapes_on_a_gpu(tmp_path: Path) -> None:
    assert run(tmp_path / "r.json")["passed"]
