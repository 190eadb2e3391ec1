"""Two hosts with two ranks each: runs pass and continue prompts; when the link is cut, each says which host is gone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.hosts.network import missing
from tests.hosts.two_hosts import CASES, Case, kill_last, run, wrong
from tests.speed import slowness

UNABLE = missing() if sys.platform == "linux" else "network namespaces are Linux's"
TIMEOUT, BUSY = 3, 8


@pytest.mark.skipif(UNABLE is not None, reason=str(UNABLE))
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[pytest.mark.sweep] if number else [])
        for number, case in enumerate(case for case in CASES if case.act is not kill_last)
    ],
)
def test_two_hosts(case: Case, tmp_path: Path) -> None:
    slow = slowness()
    ends = run(case, tmp_path, 2, TIMEOUT * slow if case.act else 30)
    assert wrong(case, ends, 2, tmp_path) == [], "\n----\n".join(end.text for end in ends)
    if case.act:
        assert max(end.seconds for end in ends) < TIMEOUT * slow + 2 + BUSY * max(slow, slowness())
