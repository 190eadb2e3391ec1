"""How far a generation is: chunks and decode steps in the order of its schedule, with the time that each kind takes."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from helixctl.cli import watching
from helixctl.cli.generation_progress import GenerationWatched, one_stream
from helixctl_runtime.generate.schedule import Part, schedule

PARTS = schedule([4], 512, warm=True, traced=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The moment, which a test sets."""
    now = [100.0]
    monkeypatch.delenv("HELIXCTL_PROGRESS")
    monkeypatch.setattr(watching.time, "monotonic", lambda: now[0])
    return now


def test_the_schedule_is_the_order_of_the_steps() -> None:
    assert (
        Part("warm-up", "prefill", 4), Part("warm-up", "decode", 2), Part("measured", "prefill", 4),
        Part("measured", "decode", 511),
    ) == PARTS  # fmt: skip
    assert schedule([2, 3], 8, warm=False, traced=True) == (
        Part("measured", "prefill", 5), Part("measured", "decode", 14), Part("traced", "prefill", 2),
        Part("traced", "decode", 5), Part("traced", "prefill", 3), Part("traced", "decode", 5),
    )  # fmt: skip
    assert schedule([1], 1, warm=True, traced=False) == (Part("warm-up", "prefill", 1), Part("measured", "prefill", 1))


def test_chunks_and_decode_steps_have_their_own_times(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """A chunk takes 20 s, a decode step one: what is left is the sum of both."""
    watch = GenerationWatched("2 CPU ranks", PARTS)
    # Seconds after the begin, and how many steps are done.
    for second in range(200):
        clock[0] = 100.0 + second
        chunks = min(second // 20, 4)
        warm = min(max(second - 80, 0), 2)
        measured = min(max(second - 82, 0) // 20, 4) if warm == 2 else 0
        watch("running", chunks + warm + measured + max(second - 162, 0))
    watch.end()
    said = [line.removeprefix("2 CPU ranks: ") for line in capsys.readouterr().err.splitlines()]
    assert said[1] == (
        "warm-up, prefill, 1 of 4 chunks done, 3 left, then 4 prefill chunks, then 513 decode steps, "
        "about 2 min 20 s of prefill"
    )
    assert said[8] == "prefill, 0 of 4 chunks done, 4 left, then 511 decode steps, about 9 min 59 s"
    assert said[-1] == "decode, 28 of 511 steps done, 483 left, about 8 min 3 s"


def test_sequences_may_end(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    watch = GenerationWatched("2 CPU ranks", schedule([1], 64, warm=False, traced=False), may_end=True)
    for second in range(40):
        clock[0] = 100.0 + second
        watch("running" if second else "preparing", second)
    assert capsys.readouterr().err.splitlines()[-1] == (
        "2 CPU ranks: decode, 29 of at most 63 steps done, 34 left, about 34 s at most"
    )


def test_nothing_is_said_beside_the_text(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """Until the first token a line every ten seconds; then none, also when the output is checked."""
    watch = GenerationWatched("2 CPU ranks", PARTS, beside_text=True)
    for step in range(40):
        clock[0] += 20.0
        watch("running", step)
    clock[0] += 20.0
    watch("checking", 40)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 10
    assert "prefill, 3 of 4 chunks done" in said[-1]


def test_one_stream(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as a, (tmp_path / "b").open("w") as b, os.fdopen(os.dup(a.fileno()), "w") as again:
        assert one_stream(a, again)
        assert not one_stream(a, b)
        assert not one_stream(a, io.StringIO())
