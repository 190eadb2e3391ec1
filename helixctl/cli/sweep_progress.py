"""How far a sweep is: one line that changes on a terminal, elsewhere a line every ten seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from helixctl.cli.console import messages, tell
from helixctl.sweep.points import Place
from helixctl.units import counted

_EVERY_S: Final = 10.0


@contextmanager
def watched(points: int, *, quiet: bool) -> Iterator[Callable[[int, Place], None] | None]:
    """What a sweep calls before each point.

    Args:
        points: of the sweep.
        quiet: say nothing.
    """
    if quiet:
        yield None
        return
    begin = last = time.monotonic()

    def text(done: int, place: Place) -> str:
        left = ""
        if done:
            seconds = (time.monotonic() - begin) / done * (points - done)
            left = f", about {seconds:.0f} s left"
        at = f"batch {place.batch:,} x {counted(place.input_len, 'token')} on {counted(place.devices, 'device')}"
        return f"sweep: {done} of {counted(points, 'point')}{left}; {at}"

    def plainly(done: int, place: Place) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY_S:
            last = time.monotonic()
            tell(text(done, place))

    if not sys.stderr.isatty():
        yield plainly
        return
    from rich.live import Live

    with Live("", console=messages(), auto_refresh=False, transient=True) as line:
        yield lambda done, place: line.update(text(done, place), refresh=True)
