"""How one rank comes to its end: by itself, well or not, or by a thread where it is stuck. Only one of them ends it."""

from __future__ import annotations

import threading


class Ending:
    """Who ends this rank: whoever claims it first."""

    def __init__(self) -> None:
        """Nobody yet."""
        self._claimed = threading.Lock()
        self._by_itself = threading.Event()

    def begin(self) -> None:
        """The rank comes to an end by itself; wait for ever where a thread already ends it."""
        if not self.claim():
            threading.Event().wait()
        self._by_itself.set()

    def claim(self) -> bool:
        """Whether the caller is to end the rank, as nobody else does."""
        return self._claimed.acquire(blocking=False)

    def begins_within(self, seconds: float) -> bool:
        """Whether the rank comes to an end by itself so soon."""
        return self._by_itself.wait(seconds)

    @property
    def begun(self) -> bool:
        """Whether the rank comes to an end by itself."""
        return self._by_itself.is_set()
