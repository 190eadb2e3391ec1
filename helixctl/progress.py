"""What long work is doing: the stages say it, and whoever listens shows it. Nobody listens unless a command does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

# What is done, how many parts of it are done, and of how many; 0: it has no parts.
Listener = Callable[[str, int, int], None]
_listener: Listener | None = None


def at(what: str, done: int = 0, of: int = 0) -> None:
    """Say what is done now.

    Args:
        what: in words, such as ``simulating layouts``.
        done: parts that are done.
        of: how many parts there are at most; 0 where they are not counted.
    """
    if _listener is not None:
        _listener(what, done, of)


@contextmanager
def listened(listener: Listener) -> Iterator[None]:
    """Tell a listener what is done in here."""
    global _listener  # noqa: PLW0603  one process has one terminal
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before
