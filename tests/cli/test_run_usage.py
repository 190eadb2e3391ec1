"""What `helixctl run` refuses before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from helixctl.cli.console import answers
from helixctl.cli.measurements import print_verdicts
from helixctl.errors import HelixError
from tests.cli.command import helixctl
from tests.documents import SMALL

DENSE = "plans/small/dense.4x4.plan.json"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((DENSE, DENSE), "2 documents: give one, or --compare to run them side by side"),
        (("--compare", DENSE), f"--compare needs two or more documents, and got only {DENSE}"),
        (("--compare", DENSE, DENSE, "--output", "y.safetensors"), "--output is for the run of one document"),
        ((), "Missing argument 'PLAN|DAG...'"),
    ],
)
def test_a_wrong_use_is_said(arguments: tuple[str, ...], message: str) -> None:
    done = helixctl("run", *arguments)
    assert done.status == 2
    assert message in done.err


def test_one_rank_is_no_ranks(tmp_path: Path) -> None:
    plan = tmp_path / "x.plan.json"
    one = ("--plain", "--groups", "1", "--slices", "1", "--set", "devices_per_host=1", "-q", "-o", plan)
    assert helixctl("plan", *SMALL, *one).status == 0
    what, _, tasks, *_ = helixctl("run", plan, "--dry-run").said.splitlines()
    assert what.endswith("float32: 1 rank on cpu")
    assert ", 0 process groups; proved" in tasks
    done = helixctl("run", plan, "--warmup", "0", "--iters", "1")
    assert "running: 1 CPU rank, 0 + 1 steps" in done.err
    assert ": 1 CPU rank sharing " in done.said


@pytest.mark.parametrize(
    ("kind", "dtype", "hint"),
    [
        ("linear", "float16", "please report this"),
        ("route", "float32", "please report this"),
        ("route", "bfloat16", "see if --dtype float32 passes"),
    ],
)
def test_a_failed_check_has_a_way_out(kind: str, dtype: str, hint: str) -> None:
    check = {"passed": False, "error": 0.1, "unpartitioned_error": 0.01, "tolerance": 0.02}
    report = {"check": check, "dtype": dtype, "kinds": [{"kind": kind}]}
    with pytest.raises(HelixError, match=r"HX506 relative error 0\.1 against float64") as caught:
        print_verdicts(answers(), [report])
    assert hint in str(caught.value)
