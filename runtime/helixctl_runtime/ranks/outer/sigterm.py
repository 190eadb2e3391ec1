"""SIGTERM from an outer launcher, which ends all ranks of a host when one has failed: a rank first reports."""

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

# Seconds in which a rank notices that a peer has died; if it notices no failure, it ends after them.
_NOTICE: Final = 0.7
# Seconds between two looks at the clock. If more than _SUSPENDED pass between two, the process was suspended: a busy
# machine delays a thread by less.
_BEAT: Final = 0.5
_SUSPENDED: Final = 2.0


class Sigterm:
    """Handles SIGTERM in a thread of its own.

    Python runs signal handlers between bytecodes, and a rank may be inside a collective for long. So a thread reads
    the signal from a socket and ends the process.

    Attributes:
        received: SIGTERM has arrived.
    """

    def __init__(self) -> None:
        """No signal has arrived yet."""
        self.received = False

    @contextmanager
    def handled(self, fails_within: Callable[[float], bool]) -> Iterator[None]:
        """Handle SIGTERM inside the block: it ends the process with status 143.

        Args:
            fails_within: ``fails_within(seconds)`` says whether the rank fails by itself within some seconds; then
                the signal does not end it.
        """
        if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM):
            yield
            return
        ours, theirs = socket.socketpair()
        ours.settimeout(_BEAT)
        theirs.settimeout(0)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, _nothing)
        threading.Thread(target=self._wait, args=(ours, fails_within), daemon=True, name="helixctl sigterm").start()
        after = signal.SIG_IGN  # a rank that fails is about to report that, and then exits by itself
        try:
            yield
            after = signal.SIG_DFL
        finally:
            signal.set_wakeup_fd(before)
            signal.signal(signal.SIGTERM, after)
            theirs.close()

    def _wait(self, link: socket.socket, fails_within: Callable[[float], bool]) -> None:
        beat = time.monotonic()
        with link:
            while told := _byte(link):
                before, beat = beat, time.monotonic()
                # The socket stays open for a second SIGTERM: Python complains on stderr if it cannot write to it.
                if told[0] == signal.SIGTERM and not self.received:
                    self.received = True
                    # The others have reported a rank that was suspended; it has nothing to add when it is woken to end.
                    if beat - before > _SUSPENDED or not fails_within(_NOTICE):
                        os._exit(128 + signal.SIGTERM)


def _byte(link: socket.socket) -> bytes:
    """The number of the next signal; 0 if none arrives within a beat, empty if the socket is closed."""
    try:
        return link.recv(1)
    except TimeoutError:
        return b"\0"


def _nothing(number: int, frame: FrameType | None) -> None:
    """Do nothing: the thread reads the signal from the socket."""
