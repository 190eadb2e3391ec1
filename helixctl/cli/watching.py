"""How far long work is: a live line on a terminal after a second, elsewhere a plain line every ten seconds.

HELIXCTL_PROGRESS=off leaves out the plain lines.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from helixctl.cli.console import tell, width_of
from helixctl.progress import listened

if TYPE_CHECKING:
    from rich.live import Live

SILENT_S: Final = 1.0  # what is done by then needs no line
_BETWEEN_S: Final = 10.0  # between two plain lines
_REFRESH_S: Final = 0.2


def duration(seconds: float) -> str:
    """A time that a person waits: ``45 s``, ``2 min 5 s``, ``1 h 12 min``."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004  seconds of a minute
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004  minutes of an hour
        return f"{minutes} min {left} s"
    return f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def watched(what: str, *, quiet: bool = False) -> Iterator[None]:
    """Show what is done in here, and how far; nothing of what takes less than a second.

    Args:
        what: what is done before the work says more.
        quiet: show nothing.
    """
    if quiet:
        yield
        return
    shown = _Shown(what)
    thread = threading.Thread(target=shown.show, daemon=True)
    with listened(shown.note):
        thread.start()
        try:
            yield
        finally:
            shown.done.set()
            thread.join()


class LiveLine:
    """One line of standard error that is written over and over; it leaves nothing behind."""

    def __init__(self) -> None:
        """Nothing is shown before the first text."""
        self._live: Live | None = None

    def show(self, text: str) -> None:
        """Show a text where the one before it stood, cut to the width of the terminal."""
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            # Refreshed by hand: a thread of its own would be there when ranks are forked.
            self._live = Live(
                console=Console(stderr=True, highlight=False),
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(Text(text[: (width_of(stderr=True) or len(text)) - 1]), refresh=True)

    def end(self) -> None:
        """Take the line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


class _Shown:
    def __init__(self, what: str) -> None:
        self.done = threading.Event()
        self._now: tuple[str, int, int] = (what, 0, 0)
        self._begin = time.monotonic()

    def note(self, what: str, done: int, of: int) -> None:
        self._now = (what, done, of)

    def show(self) -> None:
        """In a thread, until the work is done."""
        live = is_terminal()
        if not live and not _says_lines():
            return
        if self.done.wait(SILENT_S if live else _BETWEEN_S):
            return
        line = LiveLine()
        while True:
            if live:
                line.show(self._text())
            else:
                tell(self._text())
            if self.done.wait(_REFRESH_S if live else _BETWEEN_S):
                line.end()
                return

    def _text(self) -> str:
        what, done, of = self._now
        parts = f": {done:,} of at most {of:,}" if of else f": {done:,}" if done else ""
        return f"{what}{parts}, {duration(time.monotonic() - self._begin)}"


def _says_lines() -> bool:
    """Whether plain lines are wanted: a log may be compared with another."""
    return os.environ.get("HELIXCTL_PROGRESS") != "off"


def is_terminal() -> bool:
    """Whether standard error is a terminal on which a line can be written over."""
    stream: Any = sys.stderr
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


class ShownLine:
    """A text about work that is under way: one line that changes on a terminal, elsewhere a line every ten seconds."""

    def __init__(self, *, live: bool = True) -> None:
        """Show nothing yet.

        Args:
            live: whether a line of a terminal may be written over; False: lines every ten seconds there too.
        """
        self._line = LiveLine() if live and is_terminal() else None
        self._said = time.monotonic()

    def show(self, text: str) -> None:
        """Show it, or say it where ten seconds have gone by since the last one."""
        if self._line:
            self._line.show(text)
        elif _says_lines() and time.monotonic() - self._said >= _BETWEEN_S:
            self._said = time.monotonic()
            tell(text)

    def end(self) -> None:
        """Take it away."""
        if self._line:
            self._line.end()


class Watch(Protocol):
    """What is told how far a run is."""

    def __call__(self, phase: str, step: int, steps: int, /) -> None:
        """A few times a second.

        Args:
            phase: of the run.
            step: how many steps are done.
            steps: how many there are, where the ranks know; else 0.
        """

    def end(self) -> None:
        """The run is over."""


class StepsWatched:
    """How far a run is: steps done and left, and the time that they will take."""

    def __init__(self, what: str, steps: int = 0) -> None:
        """Of a run in words, and how many steps it has; 0 where the ranks tell."""
        self._what, self._steps = what, steps
        self._line = ShownLine()
        self._first: tuple[int, float] | None = None  # a step, and when it began

    def __call__(self, phase: str, step: int, steps: int = 0) -> None:
        """As of ``Watch``."""
        how_far = self._how_far(phase, step, steps or self._steps, time.monotonic())
        self._line.show(f"{self._what}: {phase}{how_far}")

    def end(self) -> None:
        """The run is over."""
        self._line.end()

    def _how_far(self, phase: str, step: int, steps: int, now: float) -> str:
        if phase != "running":
            return ""
        if self._first is None or step < self._first[0]:
            self._first = (step, now)
        if not steps:
            return f", step {step + 1:,}"
        step = min(step, steps)
        text = f", {step:,} of {steps:,} steps done, {steps - step:,} left"
        done, spent = step - self._first[0], now - self._first[1]
        return f"{text}, about {duration(spent / done * (steps - step))}" if done and spent else text


@contextmanager
def progress(what: str, watch: Callable[[], Watch], *, live: bool) -> Iterator[Watch | None]:
    """Say what runs, and how far it is while it does.

    Args:
        what: the run, in words.
        watch: makes what shows how far it is.
        live: whether this process starts the ranks, and so sees how far they are.
    """
    if not (live and is_terminal()):
        tell(f"running: {what}")
    if not live:
        yield None
        return
    made = watch()
    try:
        yield made
    finally:
        made.end()
