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
        ("validate", "no/such.yaml"),
        ("plan", *SMALL, "--plain", "--groups", "4", "--slices", "4", "-o", "-"),
        ("run", PLAN, "--dry-run"),
        ("--help",),
        ("plans",),
        *(
            pytest.param(args, marks=pytest.mark.sweep)
            for args in (
                ("validate", "plans/small", "-f", "json"),
                ("plan", *reversed(PAPER)),
                ("diff", PLAN, "plans/small/dense.tp8-pp2.plan.json"),
                ("simulate", PLAN, "--json", "-"),
                ("visualize", PLAN, "-o", "-", "-f", "dot"),
                ("run", "tests/invalid/HX406-region-moved.dag.json"),
            )
        ),
    ],
    ids=lambda args: " ".join(Path(arg).name for arg in args),
)
def test_a_fork_is_a_process(args: tuple[str, ...]) -> None:
    done = helixctl(*args)
    assert done == helixctl(*args, fresh=True)
    assert done.out or done.err


def test_networkx_is_imported_for_graphs_alone() -> None:
    """It takes as long as the rest of a command."""
    without = (
        ("--help",),
        ("plan", *SMALL, "--plain", "--groups", "4", "--slices", "4", "-q"),
        ("validate", "plans/small", "-q"),
        ("diff", PLAN, PLAN, "-q"),
        ("visualize", PLAN, "-o", "-", "-f", "html"),
        ("simulate", PLAN, "-v"),
    )
    assert "networkx" not in modules(_running(*without))
    for args in (("visualize", PLAN, "-o", "-", "-f", "graphml"), ("simulate", PLAN, "--critical-path")):
        assert "networkx" in modules(_running(args))


def _running(*commands: tuple[str, ...]) -> str:
    """Python source that runs commands one after another."""
    lines = [f"assert _status({list(arguments)!r}) == 0" for arguments in commands]
    return "\n".join(["from helixctl.cli.main import _status", *lines, "print()"])
