"""What ranks of an outer launcher tell each other: their hosts at the start, and where each is once one has failed.

Nothing is sent in between. In every rank a thread sleeps inside the store until the first failure is told; then it says
where its rank is, also while that rank waits in a collective. Who does not answer is stopped, dead, or cut off.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import torch

from helixctl.errors import Diagnostic
from helixctl_runtime.ranks.failure.report import Report
from helixctl_runtime.ranks.failure.standing import Peer, Standing
from helixctl_runtime.ranks.outer.store import TCPStore, address, meet
from helixctl_runtime.ranks.progress import Phase, Position, Progress

# Seconds. How long to wait for the store, which may be on a host that is gone; and for all ranks to answer.
_STORE: Final = 1.0
_ANSWERS: Final = 0.8
# How long a rank that waits in a collective may go on once another has failed; it cannot end well.
_GRACE: Final = 0.6
_FAREWELL: Final = 0.7
_POLL: Final = 0.05
_FOR_EVER: Final = timedelta(days=7)  # what fits into the milliseconds of the store

_ERROR_FILE: Final = "TORCHELASTIC_ERROR_FILE"  # set by torchrun
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
    """This rank and the others of a run that something else started.

    Attributes:
        stuck: called in the thread when another rank has failed and this one does not come to an end.
    """

    rank: int
    world_size: int
    device: torch.device
    rendezvous: str
    timeout: float
    progress: Progress
    stuck: Callable[[], None]
    host: str = field(default_factory=socket.gethostname)
    known: dict[int, Peer] = field(default_factory=dict)
    _store: TCPStore | None = None
    _ends: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)
    _saying: threading.Lock = field(default_factory=threading.Lock)
    _answered: bool = False
    _prefix: str = ""

    def meet(self) -> TCPStore:
        """Connect, and say where this rank is."""
        self._prefix = f"helixctl/{next(_meetings)}"
        store = meet(self.rendezvous, self.rank, self.timeout)
        self._store = store
        store.set(f"{self._prefix}/is/{self.rank}", json.dumps([self.host, str(self.device)]))
        threading.Thread(target=self._listen, args=(store,), daemon=True, name="helixctl peers").start()
        return store

    def learn(self) -> None:
        """Get to know all ranks; each has met before anyone's process group is complete."""
        if self._store:
            told = self._store.multi_get([f"{self._prefix}/is/{rank}" for rank in range(self.world_size)])
            self.known = {rank: Peer(rank, *json.loads(text)) for rank, text in enumerate(told)}

    @property
    def shown_host(self) -> str:
        """This host's name for messages; empty where there is only one."""
        return self.shown(Peer(self.rank, self.host)).host

    def end(self) -> None:
        """This rank comes to an end by itself, well or not; wait for ever where the thread already ends it."""
        if not self._ends.acquire(blocking=False):
            threading.Event().wait()
        self._ended.set()

    def hear(self, report: Report | None) -> Heard:
        """Tell all ranks that this one has failed (None: only that it is stuck), and hear where they are."""
        position = self.progress.position()
        mine = Standing(
            self.rank, self.device, position, report, None, 0.0, stopped=False, log=None, host=self.shown_host
        )
        if self._store is None:
            return Heard([mine], [], [], store=False)
        store, found = self._store, {self.rank: mine}
        reached = _within(_STORE, lambda: self._tell(store, report, position))
        if not reached:
            self._store = None
        else:
            # Who failed by itself knows why; who was left by another wants to know by whom. Who is stuck asks late:
            # whoever can answer has.
            waits = report is not None and report.kind in ("late", "gone")
            _within(_ANSWERS + _STORE, lambda: self._gather(store, found, _ANSWERS if waits else 0.0))
        ended = (reached and _within(_STORE, lambda: self._terminated(store, found))) or set()
        silent = [self.shown(self.known.get(rank, Peer(rank))) for rank in range(self.world_size) if rank not in found]
        return Heard(
            [found[rank] for rank in sorted(found)],
            [peer for peer in silent if peer.rank not in ended],
            [peer for peer in silent if peer.rank in ended],
            store=bool(reached),
        )

    def speaks(self) -> bool:
        """Whether this rank is to say what happened: the first that asks on each host."""
        first = _first_on_this_host(self.rendezvous)
        store = self._store
        if not first or store is None or _ERROR_FILE in os.environ:
            return first

        def asked() -> bool:
            try:
                return store.add(f"{self._prefix}/said/{self.host}", 1) == 1
            except RuntimeError:
                # Gone since it was told of the failure: rank 0 has left, and on its host it is said by now.
                return 0 not in self.known or self.known[0].host != self.host

        # The first mark goes with its process, so who said it may have left already.
        return _within(_STORE, asked) is not False

    def leave(self) -> None:
        """Say that this rank goes; rank 0, which may keep the store, goes when those who were there have gone."""
        store = self._store
        if store is None:
            return
        key = f"{self._prefix}/gone"

        def go() -> None:
            deadline = time.monotonic() + _FAREWELL
            gone = store.add(key, 1)
            while self.rank == 0 and gone < store.add(f"{self._prefix}/answers", 0) and time.monotonic() < deadline:
                time.sleep(_POLL)
                gone = store.add(key, 0)

        _within(_STORE + _FAREWELL, go)

    def ends_within(self, seconds: float) -> bool:
        """Whether this rank comes to an end by itself so soon; if not, it is not to any more, and goes now."""
        if self._ended.wait(seconds) or not self._ends.acquire(blocking=False):
            return True
        if self._store:
            _within(_STORE, lambda: self._say_terminated(self._store))
        return False

    def shown(self, peer: Peer) -> Peer:
        """A rank for messages, which name hosts only where there are several."""
        several = len({peer.host for peer in self.known.values()}) > 1
        return peer if several else replace(peer, host="")

    def _listen(self, store: TCPStore) -> None:
        with suppress(RuntimeError):  # the store went with its process: there is nobody left to tell
            # A call on a connection waits for the call before it, and this one takes as long as the run. Made here,
            # because torch asks the name service for every new connection.
            ear = _another(store)
            ear.wait([f"{self._prefix}/failed"], _FOR_EVER)
            with self._saying:
                if self._ended.is_set():
                    return
                self._answer(ear, None, self.progress.position())
            if not self._ended.wait(_GRACE) and self._ends.acquire(blocking=False):
                self._store = ear  # the rank may be stuck in a call on the other
                self.stuck()

    def _tell(self, store: TCPStore, report: Report | None, position: Position) -> bool:
        with self._saying:
            self._answer(store, report, position)
        store.set(f"{self._prefix}/failed", "1")
        return True

    def _answer(self, store: TCPStore, report: Report | None, position: Position) -> None:
        told: dict[str, Any] = {"position": position}
        if report is not None:
            value = [asdict(d) for d in report.value] if report.kind == "helix" else report.value  # type: ignore[attr-defined]
            # Clocks of hosts differ; the store counts for all.
            told |= {"kind": report.kind, "value": value, "when": store.add(f"{self._prefix}/reports", 1)}
        store.set(f"{self._prefix}/at/{self.rank}", json.dumps(told))
        if not self._answered:
            store.add(f"{self._prefix}/answers", 1)
            self._answered = True

    def _say_terminated(self, store: TCPStore | None) -> None:
        if store:
            store.set(f"{self._prefix}/terminated/{self.rank}", "1")
            if self._answered:
                store.add(f"{self._prefix}/gone", 1)

    def _terminated(self, store: TCPStore, found: dict[int, Standing]) -> set[int]:
        silent = set(range(self.world_size)) - found.keys()
        return {rank for rank in silent if store.check([f"{self._prefix}/terminated/{rank}"])}

    def _gather(self, store: TCPStore, found: dict[int, Standing], seconds: float) -> bool:
        """Fill in what the other ranks say, until all have, or for so long, or half of it without an answer."""
        deadline, before = time.monotonic() + seconds, 0
        quiet = time.monotonic() + seconds / 2
        while True:
            # One question as long as nothing is new: all ranks ask at the same time.
            answers = store.add(f"{self._prefix}/answers", 0)
            if answers != before:
                quiet = time.monotonic() + seconds / 2
            over = time.monotonic() > min(deadline, quiet)
            if answers != before or over:
                before = answers
                for rank in set(range(self.world_size)) - found.keys():
                    self._ask(store, rank, found)
            if over or len(found) == self.world_size:
                for rank, standing in list(found.items()):
                    if standing.report is None:  # it may have failed itself since it said where it is
                        self._ask(store, rank, found)
                return True
            time.sleep(_POLL)

    def _ask(self, store: TCPStore, rank: int, found: dict[int, Standing]) -> None:
        if rank in found and (rank == self.rank or found[rank].report is not None):
            return
        name, at = f"{self._prefix}/is/{rank}", f"{self._prefix}/at/{rank}"
        if rank not in self.known and store.check([name]):
            self.known[rank] = Peer(rank, *json.loads(store.get(name)))
        if rank in self.known and store.check([at]):
            told, peer = json.loads(store.get(at)), self.known[rank]
            phase, step, begun = told["position"]
            found[rank] = Standing(
                rank,
                torch.device(peer.device),
                Position(Phase(phase), step, begun),
                _report(told),
                None,
                0.0,
                stopped=False,
                log=None,
                host=self.shown(peer).host,
            )


def _another(store: TCPStore) -> TCPStore:
    """Another connection to the same store."""
    made: TCPStore = store.clone()  # type: ignore[attr-defined]  # torch has it, its stubs do not
    return made


def _report(told: dict[str, Any]) -> Report | None:
    if "kind" not in told:
        return None
    value = tuple(Diagnostic(**d) for d in told["value"]) if told["kind"] == "helix" else told["value"]
    return Report(told["kind"], value, told["when"])


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


def _first_on_this_host(rendezvous: str) -> bool:
    """Whether no other process of this run on this host was here before; neither Linux nor torchrun: always so."""
    try:
        if error_file := os.environ.get(_ERROR_FILE):
            # torchrun has a folder for each rank, in one for this host, run and attempt.
            (Path(error_file).parent.parent / "helixctl.said").touch(exist_ok=False)
        else:
            # A name that goes with the process.
            _marks.append(socket.socket(socket.AF_UNIX))
            _marks[-1].bind(f"\0helixctl {address(rendezvous)}" if sys.platform == "linux" else "")
    except FileExistsError:
        return False
    except OSError as error:
        return error.errno != errno.EADDRINUSE
    return True


_marks: list[socket.socket] = []
