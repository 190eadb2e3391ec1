"""Signals that end the launcher: raised as exceptions, and deferred while processes start or end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def as_exceptions() -> Iterator[None]:
    """SIGTERM and SIGHUP raise SystemExit (143, 129), so that ``finally`` clauses run. SIGINT already raises."""
    unhandled = [s for s in ENDING if signal.getsignal(s) is signal.SIG_DFL] if _is_main_thread() else []
    for number in unhandled:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number in unhandled:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Defer signals until the end of the block, and hide Ctrl-C from processes that the block starts.

    Handlers defer them, because a mask covers one thread, and torch and numpy have threads of their own. A mask hides
    Ctrl-C, because new processes inherit it; otherwise each would print a KeyboardInterrupt while it imports torch.
    """
    seen: list[int] = []
    handled = [s for s in ENDING if callable(signal.getsignal(s))] if _is_main_thread() else []
    before = {s: signal.signal(s, lambda number, _: seen.append(number)) for s in handled}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
        if seen:
            signal.raise_signal(signal.Signals(seen[0]))


def _exit(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  a handler's signature
    raise SystemExit(128 + number)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
