"""Tests run commands in forks; a new interpreter does the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import helixctl
from tests.documents import PAPER, SMALL

PLAN = "plans/small/dense.4x4.plan.json"


@pytest.mark.parametrize(
    "args",
    [
        ("validate", "plans/small", "-f", "json"),
        ("validate", "no/such.yaml"),
        ("plan", *SMALL, "--groups", "4", "--slices", "4", "-o", "-"),
        ("plan", *reversed(PAPER)),
        ("diff", PLAN, "plans/small/dense.tp8-pp2.plan.json"),
        ("simulate", PLAN, "--json", "-"),
        ("visualize", PLAN, "-o", "-", "-f", "dot"),
        ("--help",),
        ("plans",),
    ],
    ids=lambda args: " ".join(Path(arg).name for arg in args),
)
def test_a_fork_is_a_process(args: tuple[str, ...]) -> None:
    done = helixctl(*args)
    assert done == helixctl(*args, fresh=True)
    assert done.out or done.err
