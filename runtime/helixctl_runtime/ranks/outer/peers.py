"""What ranks of an outer launcher tell each other: their hosts at the start, and where each is once one has failed.

Nothing is sent in between. In every rank a thread sleeps inside the store until the first failure is told; then it says
where its rank is, also while that rank waits in a collective. Who does not answer is stopped, dead, or cut off.
"""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

import torch

from helixctl_runtime.ranks.failure.report import Report
from helixctl_runtime.ranks.failure.standing import Peer, Standing
from helixctl_runtime.ranks.outer.board import Board
from helixctl_runtime.ranks.outer.ending import Ending
from helixctl_runtime.ranks.outer.store import TCPStore, meet
from helixctl_runtime.ranks.progress import Position, Progress

# Seconds. How long to wait for the store, which may be on a host that is gone; and for all ranks to answer.
_STORE: Final = 1.0
_ANSWERS: Final = 0.8
# How long a rank that waits in a collective may go on once another has failed; it cannot end well.
_GRACE: Final = 0.6
_FAREWELL: Final = 0.7
_POLL: Final = 0.05

_T = TypeVar("_T")
_meetings = itertools.count()  # a process may run several times through one store


@dataclass(frozen=True, slots=True)
class Heard:
    """What is known of all ranks after a failure.

    Attributes:
        standings: of the ranks that answered, at least this one.
        missing: the ranks that did not.
        terminated: ranks that SIGTERM has ended before.
        store: whether the store answered.
    """

    standings: list[Standing]
    missing: list[Peer]
    terminated: list[Peer]
    store: bool


@dataclass
class Peers:
    """This rank and the others of a run that something else started; a ``MeetingPlace`` for the rank.

    Attributes:
        ending: of this rank.
        stuck: called in the thread when another rank has failed and this one does not come to an end.
    """

    rank: int
    world_size: int
    device: torch.device
    rendezvous: str
    timeout: float
    progress: Progress
    ending: Ending
    stuck: Callable[[], None]
    host: str = field(default_factory=socket.gethostname)
    known: dict[int, Peer] = field(default_factory=dict)
    _board: Board | None = None
    _saying: threading.Lock = field(default_factory=threading.Lock)

    def meet(self) -> TCPStore:
        """Connect, and say where this rank is."""
        prefix = f"helixctl/{next(_meetings)}"
        store = meet(self.rendezvous, self.rank, self.timeout)
        self._board = board = Board(store, prefix, self.rank)
        board.say_here(self.host, str(self.device))
        threading.Thread(target=self._listen, args=(board,), daemon=True, name="helixctl peers").start()
        return store

    def learn(self) -> None:
        """Get to know all ranks; each has met before anyone's process group is complete."""
        if self._board:
            self.known = self._board.everyone(self.world_size)

    @property
    def shown_host(self) -> str:
        """This host's name for messages; empty where there is only one."""
        return self.shown(Peer(self.rank, self.host)).host

    def shown(self, peer: Peer) -> Peer:
        """A rank for messages, which name hosts only where there are several."""
        several = len({peer.host for peer in self.known.values()}) > 1
        return peer if several else replace(peer, host="")

    def hear(self, report: Report | None) -> Heard:
        """Tell all ranks that this one has failed (None: only that it is stuck), and hear where they are."""
        position = self.progress.position()
        mine = self._standing(Peer(self.rank, self.host, str(self.device)), position, report)
        if self._board is None:
            return Heard([mine], [], [], store=False)
        board, found = self._board, {self.rank: mine}
        reached = _within(_STORE, lambda: self._tell(board, report, position))
        if not reached:
            self._board = None
        else:
            # Who failed by itself knows why; who was left by another wants to know by whom. Who is stuck asks late:
            # whoever can answer has.
            waits = report is not None and report.kind in ("late", "gone")
            _within(_ANSWERS + _STORE, lambda: self._gather(board, found, _ANSWERS if waits else 0.0))
        ended = (reached and _within(_STORE, lambda: board.terminated(self._all - found.keys()))) or set()
        silent = [self.shown(self.known.get(rank, Peer(rank))) for rank in range(self.world_size) if rank not in found]
        return Heard(
            [found[rank] for rank in sorted(found)],
            [peer for peer in silent if peer.rank not in ended],
            [peer for peer in silent if peer.rank in ended],
            store=bool(reached),
        )

    def asks_first(self) -> bool:
        """Whether no rank of this host has asked so before; also where nobody can say."""
        board = self._board
        if board is None:
            return True

        def asked() -> bool:
            try:
                return board.asks_first(self.host)
            except RuntimeError:
                # Gone since it was told of the failure: rank 0 has left, and on its host it is said by now.
                return 0 not in self.known or self.known[0].host != self.host

        return _within(_STORE, asked) is not False

    def leave(self) -> None:
        """Say that this rank goes; rank 0, which may keep the store, goes when those who were there have gone."""
        board = self._board
        if board is None:
            return

        def go() -> None:
            deadline = time.monotonic() + _FAREWELL
            gone = board.say_gone()
            while self.rank == 0 and gone < board.answers() and time.monotonic() < deadline:
                time.sleep(_POLL)
                gone = board.gone()

        _within(_STORE + _FAREWELL, go)

    def ends_within(self, seconds: float) -> bool:
        """Whether this rank comes to an end by itself so soon; if not, it is not to any more, and goes now."""
        if self.ending.begins_within(seconds) or not self.ending.claim():
            return True
        if board := self._board:
            _within(_STORE, board.say_terminated)
        return False

    @property
    def _all(self) -> set[int]:
        return set(range(self.world_size))

    def _listen(self, board: Board) -> None:
        with suppress(RuntimeError):  # the store went with its process: there is nobody left to tell
            # This call takes as long as the run. The connection is made here, because torch asks the name service for
            # every new one.
            ear = board.over_another_connection()
            ear.await_failure()
            with self._saying:
                if self.ending.begun:
                    return
                ear.answer(None, self.progress.position())
            if not self.ending.begins_within(_GRACE) and self.ending.claim():
                self._board = ear  # the rank may be stuck in a call on the other
                self.stuck()

    def _tell(self, board: Board, report: Report | None, position: Position) -> bool:
        with self._saying:
            board.answer(report, position)
        board.say_failed()
        return True

    def _gather(self, board: Board, found: dict[int, Standing], seconds: float) -> bool:
        """Fill in what the other ranks say, until all have, or for so long, or half of it without an answer."""
        deadline, before = time.monotonic() + seconds, 0
        quiet = time.monotonic() + seconds / 2
        while True:
            # One question as long as nothing is new: all ranks ask at the same time.
            answers = board.answers()
            if answers != before:
                quiet = time.monotonic() + seconds / 2
            over = time.monotonic() > min(deadline, quiet)
            if answers != before or over:
                before = answers
                for rank in self._all - found.keys():
                    self._ask(board, rank, found)
            if over or len(found) == self.world_size:
                for rank, standing in list(found.items()):
                    if standing.report is None:  # it may have failed itself since it said where it is
                        self._ask(board, rank, found)
                return True
            time.sleep(_POLL)

    def _ask(self, board: Board, rank: int, found: dict[int, Standing]) -> None:
        if rank in found and (rank == self.rank or found[rank].report is not None):
            return
        if rank not in self.known and (peer := board.peer(rank)):
            self.known[rank] = peer
        if rank in self.known and (answer := board.answer_of(rank)):
            found[rank] = self._standing(self.known[rank], *answer)

    def _standing(self, peer: Peer, position: Position, report: Report | None) -> Standing:
        device, host = torch.device(peer.device), self.shown(peer).host
        return Standing(peer.rank, device, position, report, None, 0.0, stopped=False, log=None, host=host)


def _within(seconds: float, call: Callable[[], _T]) -> _T | None:
    """What a call gives, or None where it fails or takes longer: it then stays behind in its thread."""
    found: list[_T] = []

    def run() -> None:
        with suppress(RuntimeError):
            found.append(call())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None
