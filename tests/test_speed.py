"""Bounds in seconds follow the speed of the machine."""

from __future__ import annotations

import time

import pytest

from tests.fuzz import bounded_run
from tests.fuzz.bounded_run import CommandEnd
from tests.speed import REFERENCE_S, slowness


@pytest.mark.parametrize(("took", "found"), [(0.1, 1), (1.0, 1), (1.1, 2), (7.5, 8), (1e6, 30)])
def test_slowness_is_a_multiple_of_the_reference(took: float, found: int) -> None:
    times = iter((5.0, 5.0 + took * REFERENCE_S))
    assert slowness(lambda: next(times)) == found


def test_work_takes_time() -> None:
    begin = time.process_time()
    assert 1 <= slowness(time.process_time) <= 30
    assert time.process_time() - begin > REFERENCE_S / 20


@pytest.mark.parametrize(("factor", "problems"), [(1, ["5.0 s"]), (2, ["5.0 s"]), (3, [])])
def test_the_bar_of_a_malformed_document(factor: int, problems: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_run, "slowness", lambda _: factor)
    assert CommandEnd(2, "x.yaml: HX105 wrong\n", 5.0, 1).problems == problems
