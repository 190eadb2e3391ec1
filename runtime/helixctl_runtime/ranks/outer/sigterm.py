"""SIGTERM from an outer launcher, which ends all ranks of a host as soon as one has failed: first the last words."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

# Seconds in which a rank whose peer has died notices so; without a failure it ends when they are over.
_LAST_WORDS: Final = 0.7
# Seconds from one look at the clock to the next, and those that no busy machine puts between two.
_BEAT: Final = 0.5
_SLEEP: Final = 2.0


class Sigterm:
    """Whether SIGTERM has come.

    Python runs handlers between bytecodes, and a rank may wait in a collective for long. So a thread is told of the
    signal, and ends the process.
    """

    def __init__(self) -> None:
        """No signal yet."""
        self.came = False

    @contextmanager
    def watched(self, fails: Callable[[float], bool]) -> Iterator[None]:
        """Inside, SIGTERM ends the process with 143 unless ``fails(seconds)``: it fails by itself within so many."""
        if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM):
            yield
            return
        ours, theirs = socket.socketpair()
        ours.settimeout(_BEAT)
        theirs.settimeout(0)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, _nothing)
        threading.Thread(target=self._wait, args=(ours, fails), daemon=True, name="helixctl sigterm").start()
        after = signal.SIG_IGN  # who fails is about to say so, and then leaves by itself
        try:
            yield
            after = signal.SIG_DFL
        finally:
            signal.set_wakeup_fd(before)
            signal.signal(signal.SIGTERM, after)
            theirs.close()

    def _wait(self, link: socket.socket, fails: Callable[[float], bool]) -> None:
        beat = time.monotonic()
        with link:
            while told := _byte(link):
                before, beat = beat, time.monotonic()
                if told[0] == signal.SIGTERM:
                    self.came = True
                    # Who was suspended and is woken to be ended has nothing to say that was not said while it slept.
                    if beat - before > _SLEEP or not fails(_LAST_WORDS):
                        os._exit(128 + signal.SIGTERM)
                    return


def _byte(link: socket.socket) -> bytes:
    """The next signal's number; 0 where none has come for a beat, empty where none will."""
    try:
        return link.recv(1)
    except TimeoutError:
        return b"\0"


def _nothing(number: int, frame: FrameType | None) -> None:
    """The thread does it."""
