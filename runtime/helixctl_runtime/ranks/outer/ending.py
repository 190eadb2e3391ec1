"""Who ends one rank: its main thread, with or without an error, or a watchdog thread if the main thread is stuck."""

from __future__ import annotations

import threading


class Ending:
    """The right to end this rank: the first thread that claims it has it."""

    def __init__(self) -> None:
        """No thread has claimed it yet."""
        self._claimed = threading.Lock()
        self._main_thread_ends = threading.Event()

    def begin(self) -> None:
        """The main thread begins to end the rank; it blocks for ever if another thread is already ending it."""
        if not self.claim():
            threading.Event().wait()
        self._main_thread_ends.set()

    def claim(self) -> bool:
        """Claim the right to end the rank; False if another thread has it."""
        return self._claimed.acquire(blocking=False)

    def begins_within(self, seconds: float) -> bool:
        """Whether the main thread begins to end the rank within some seconds."""
        return self._main_thread_ends.wait(seconds)

    @property
    def begun(self) -> bool:
        """Whether the main thread has begun to end the rank."""
        return self._main_thread_ends.is_set()
