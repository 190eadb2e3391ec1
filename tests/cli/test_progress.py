"""What long work shows of itself: a live line on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import pytest

from helixctl import progress
from helixctl.cli import watching
from helixctl.cli.watching import StepsWatched, duration, watched
from helixctl.verify import CHECKS, verify
from tests.documents import SMALL, specs, tiny


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds are hundredths, and plain lines are wanted."""
    monkeypatch.delenv("HELIXCTL_PROGRESS")
    for name in ("SILENT_S", "_BETWEEN_S", "_REFRESH_S"):
        monkeypatch.setattr(watching, name, getattr(watching, name) / 100)


def soon(text: Callable[[], str], part: str) -> None:
    """Wait until a text has a part."""
    end = time.monotonic() + 20
    while part not in text():
        assert time.monotonic() < end, f"no {part!r}"
        time.sleep(0.01)


class Terminal(io.StringIO):
    """What is written, by a terminal or not."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.usefixtures("quick")
def test_elsewhere_a_plain_line_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal(terminal=False)
    monkeypatch.setattr("sys.stderr", stream)
    begin = time.monotonic()
    with watched("listing layouts"):
        soon(stream.getvalue, "listing layouts, ")
        progress.at("simulating layouts", 3, 1470)
        soon(stream.getvalue, "simulating layouts: 3 of at most 1,470, ")
    lines = stream.getvalue().splitlines()
    assert 2 <= len(lines) <= 1 + (time.monotonic() - begin) / 0.1
    assert "\x1b" not in stream.getvalue()


def test_nothing_of_what_is_soon_done(capsys: pytest.CaptureFixture[str]) -> None:
    with watched("listing layouts"):
        progress.at("simulating layouts", 3, 1470)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("quick")
def test_plain_lines_can_be_turned_off(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIXCTL_PROGRESS", "off")
    with watched("listing layouts"):
        time.sleep(0.15)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("quick")
def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with watched("listing layouts", quiet=True):
        time.sleep(0.15)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("quick")
def test_a_terminal_has_one_line_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(terminal=True)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with watched("listing layouts"):
        progress.at("simulating layouts", 3, 1470)
        soon(terminal.getvalue, "simulating layouts: 3 of at most 1,470")
    text = terminal.getvalue()
    assert text.rpartition("1,470")[2].count("\x1b[2K")  # the line is cleared


def test_a_search_and_a_proof_say_how_far_they_are() -> None:
    from helixctl.solve import decide, proof

    said: list[tuple[str, int, int]] = []
    with progress.listened(lambda *its: said.append(its)):
        model, cluster, workload = specs(SMALL, "devices_per_host=4")
        proof(decide(model, cluster, workload).plan)
        verify(tiny(2, 1))
    tries = [(done, of) for what, done, of in said if what == "simulating layouts"]
    assert [done for done, _ in tries] == list(range(len(tries)))
    assert len(tries) > 1
    assert tries[0][1] >= len(tries)
    assert ("proving the dag, checks", len(CHECKS) - 1, len(CHECKS)) in said
    progress.at("nobody listens")


def test_durations() -> None:
    assert [duration(s) for s in (0.2, 59.4, 125, 4335)] == ["0 s", "59 s", "2 min 5 s", "1 h 12 min"]


def test_steps_of_a_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    monkeypatch.delenv("HELIXCTL_PROGRESS")
    monkeypatch.setattr(watching.time, "monotonic", lambda: now[0])
    watch = StepsWatched("2 CPU ranks")
    for second in range(41):
        now[0] = 100.0 + second
        watch("running" if second > 5 else "preparing", 10 * (second - 6), 1105)
    watch.end()
    assert capsys.readouterr().err.splitlines() == [
        "2 CPU ranks: running, 40 of 1,105 steps done, 1,065 left, about 1 min 46 s",
        "2 CPU ranks: running, 140 of 1,105 steps done, 965 left, about 1 min 36 s",
        "2 CPU ranks: running, 240 of 1,105 steps done, 865 left, about 1 min 26 s",
        "2 CPU ranks: running, 340 of 1,105 steps done, 765 left, about 1 min 16 s",
    ]
