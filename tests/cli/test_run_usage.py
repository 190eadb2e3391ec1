"""What `helixctl run` refuses before it starts anything."""

from __future__ import annotations

import pytest

from tests.cli.command import helixctl

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
