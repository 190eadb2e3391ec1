"""How far a sweep is: a line on a terminal, elsewhere one every ten seconds, and nothing for --quiet."""

from __future__ import annotations

import time

import pytest

from helixctl.cli.sweep_progress import watched
from helixctl.sweep.points import Place


def test_a_line_every_ten_seconds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter(range(0, 100, 4))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    with watched(4, quiet=False) as watch:
        assert watch
        for done in range(4):
            watch(done, Place(16, 8, 2**done))
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "sweep: 2 of 4 points, about 20 s left; batch 4 x 16 tokens on 8 devices",
    ]


def test_quiet() -> None:
    with watched(4, quiet=True) as watch:
        assert watch is None
