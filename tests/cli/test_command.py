"""Tests run commands in forks; a new interpreter does the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import helixctl, modules
from tests.documents import PAPER, SMALL

PLAN = "plans/small/dense.4x4.plan.json"


@pytest.mark.parametrize(
    "args",
    [
        ("validate", "plans/small", "-f", "json"),
        ("validate", "no/such.yaml"),
        ("plan", *SMALL, "--plain", "--groups", "4", "--slices", "4", "-o", "-"),
        ("plan", *reversed(PAPER)),
        ("diff", PLAN, "plans/small/dense.tp8-pp2.plan.json"),
        ("simulate", PLAN, "--json", "-"),
        ("visualize", PLAN, "-o", "-", "-f", "dot"),
        ("run", PLAN, "--dry-run"),
        ("run", "tests/invalid/HX406-region-moved.dag.json"),
        ("--help",),
        ("plans",),
    ],
    ids=lambda args: " ".join(Path(arg).name for arg in args),
)
def test_a_fork_is_a_process(args: tuple[str, ...]) -> None:
    done = helixctl(*args)
    assert done == helixctl(*args, fresh=True)
    assert done.out or done.err


@pytest.mark.parametrize(
    ("args", "needed"),
    [
        (("--help",), False),
        (("plan", *SMALL, "--plain", "--groups", "4", "--slices", "4", "-q"), False),
        (("validate", "plans/small", "-q"), False),
        (("diff", PLAN, PLAN, "-q"), False),
        (("visualize", PLAN, "-o", "-", "-f", "html"), False),
        (("simulate", PLAN, "-v"), False),
        (("visualize", PLAN, "-o", "-", "-f", "graphml"), True),
        (("simulate", PLAN, "--critical-path"), True),
    ],
    ids=lambda args: " ".join(Path(arg).name for arg in args) if isinstance(args, tuple) else "",
)
def test_networkx_is_imported_for_graphs_alone(args: tuple[str, ...], needed: bool) -> None:
    """It takes as long as the rest of a command."""
    code = f"from helixctl.cli.main import _status\nassert _status({list(args)!r}) == 0\nprint()"
    assert ("networkx" in modules(code)) == needed
