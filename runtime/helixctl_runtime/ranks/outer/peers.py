"""What the ranks of an outer launcher exchange: their hosts at the start, and their positions when one has failed.

Nothing is sent in between. In every rank a thread blocks in the store until the first failure is published; then it
publishes the position of its rank, also while that rank waits in a collective. A rank that publishes none is
suspended, dead, or cut off.
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

from helixctl_runtime.ranks.failure.rank_report import RankReport
from helixctl_runtime.ranks.failure.rank_state import Peer, RankState
from helixctl_runtime.ranks.outer.ending import Ending
from helixctl_runtime.ranks.outer.run_store import RunStore
from helixctl_runtime.ranks.outer.store import TCPStore, connect
from helixctl_runtime.ranks.progress import Position, Progress

# Seconds. How long to wait for the store, which may be on a lost host; and for all ranks to publish their states.
_STORE: Final = 1.0
_STATES: Final = 0.8
# How long a rank that waits in a collective may go on once another has failed; the collective cannot complete.
_GRACE: Final = 0.6
_FAREWELL: Final = 0.7
_POLL: Final = 0.05

_T = TypeVar("_T")
_runs = itertools.count()  # a process may make several runs through one store


@dataclass(frozen=True, slots=True)
class CollectedReports:
    """What is known of all ranks after a failure.

    Attributes:
        states: the ranks that published their state, at least this one.
        missing: the ranks that did not.
        terminated: the ranks that SIGTERM ended before.
        store: whether the store answered.
    """

    states: list[RankState]
    missing: list[Peer]
    terminated: list[Peer]
    store: bool


@dataclass
class Peers:
    """This rank and the others of a run that an outer launcher started; implements ``PeerDirectory``.

    Attributes:
        rank, world_size, device: which rank this is, of how many, and where it computes.
        rendezvous: where the store is.
        timeout: seconds to wait for the store at the start.
        progress: the position of this rank.
        ending: who ends this rank.
        end_stuck_rank: called in a thread when another rank has failed and this one does not end by itself.
        host: the name of this host.
        known: the ranks that have published their host, by rank.
    """

    rank: int
    world_size: int
    device: torch.device
    rendezvous: str
    timeout: float
    progress: Progress
    ending: Ending
    end_stuck_rank: Callable[[], None]
    host: str = field(default_factory=socket.gethostname)
    known: dict[int, Peer] = field(default_factory=dict)
    _store: RunStore | None = None
    _publishing: threading.Lock = field(default_factory=threading.Lock)

    def connect(self) -> TCPStore:
        """Connect to the store and publish the host and the device of this rank."""
        prefix = f"helixctl/{next(_runs)}"
        connection = connect(self.rendezvous, self.rank, self.timeout)
        self._store = store = RunStore(connection, prefix, self.rank)
        store.publish_peer(self.host, str(self.device))
        threading.Thread(target=self._listen, args=(store,), daemon=True, name="helixctl peers").start()
        return connection

    def load_peers(self) -> None:
        """Read host and device of all ranks; all have connected before any process group is complete."""
        if self._store:
            self.known = self._store.wait_for_peers(self.world_size)

    @property
    def shown_host(self) -> str:
        """The name of this host for messages; empty if the run has one host."""
        return self.without_lone_host(Peer(self.rank, self.host)).host

    def without_lone_host(self, peer: Peer) -> Peer:
        """A rank as messages name it: without its host if the run has one host."""
        several = len({peer.host for peer in self.known.values()}) > 1
        return peer if several else replace(peer, host="")

    def collect_reports(self, report: RankReport | None) -> CollectedReports:
        """Publish that this rank has failed, and read the states of the others.

        Args:
            report: how this rank has failed; None if it is stuck.
        """
        position = self.progress.position()
        mine = self._state(Peer(self.rank, self.host, str(self.device)), position, report)
        if self._store is None:
            return CollectedReports([mine], [], [], store=False)
        store, found = self._store, {self.rank: mine}
        reached = _within(_STORE, lambda: self._publish(store, report, position))
        if not reached:
            self._store = None
        else:
            # A rank that failed by itself knows the cause and does not wait for the others; one that lost a peer must
            # learn which. A stuck rank asks so late that all ranks that can publish a state have done so.
            waits = report is not None and report.kind in ("late", "gone")
            _within(_STATES + _STORE, lambda: self._collect_states(store, found, _STATES if waits else 0.0))
        ended = (reached and _within(_STORE, lambda: store.terminated(self._all - found.keys()))) or set()
        absent = [self.known.get(rank, Peer(rank)) for rank in range(self.world_size) if rank not in found]
        absent = [self.without_lone_host(peer) for peer in absent]
        return CollectedReports(
            [found[rank] for rank in sorted(found)],
            [peer for peer in absent if peer.rank not in ended],
            [peer for peer in absent if peer.rank in ended],
            store=bool(reached),
        )

    def claim_reporter(self) -> bool:
        """Whether this rank is the first of its host to ask; also True if the store does not answer."""
        store = self._store
        if store is None:
            return True

        def claim() -> bool:
            try:
                return store.claim_reporter(self.host)
            except RuntimeError:
                # The store went after the failure was published: rank 0 has exited, and has reported on its host.
                return 0 not in self.known or self.known[0].host != self.host

        return _within(_STORE, claim) is not False

    def announce_exit(self) -> None:
        """Publish that this rank exits; rank 0 first waits for the others to exit."""
        store = self._store
        if store is None:
            return

        def announce() -> None:
            store.publish_exit()
            self._outlive_others(lambda: store.count_exits() >= store.count_states())

        _within(_STORE + _FAREWELL, announce)

    def ends_within(self, seconds: float) -> bool:
        """Whether this rank ends by itself within some seconds; if not, the caller must end it now."""
        if self.ending.begins_within(seconds) or not self.ending.claim():
            return True
        if store := self._store:

            def announce() -> None:
                store.publish_termination()
                # Without the store, a rank that SIGTERM reaches a moment later would report rank 0 as lost.
                self._outlive_others(lambda: store.count_terminations() >= self.world_size)

            _within(_STORE + _FAREWELL, announce)
        return False

    def _outlive_others(self, have_ended: Callable[[], bool]) -> None:
        """On rank 0, which may have the store, wait for the others to end; not for long, as some may never do."""
        deadline = time.monotonic() + _FAREWELL
        while self.rank == 0 and not have_ended() and time.monotonic() < deadline:
            time.sleep(_POLL)

    @property
    def _all(self) -> set[int]:
        return set(range(self.world_size))

    def _listen(self, store: RunStore) -> None:
        with suppress(RuntimeError):  # the store went with its process: no rank is left to publish to
            # wait_for_failure blocks as long as the run, so it has its own connection. The connection is made in this
            # thread, because torch asks the name service for every new one.
            listener = store.with_new_connection()
            listener.wait_for_failure()
            with self._publishing:
                if self.ending.begun:
                    return
                listener.publish_state(None, self.progress.position())
            if not self.ending.begins_within(_GRACE) and self.ending.claim():
                self._store = listener  # the rank may be stuck in a call on the other
                self.end_stuck_rank()

    def _publish(self, store: RunStore, report: RankReport | None, position: Position) -> bool:
        with self._publishing:
            store.publish_state(report, position)
        store.publish_failure()
        return True

    def _collect_states(self, store: RunStore, found: dict[int, RankState], seconds: float) -> bool:
        """Read the states of the other ranks into ``found``.

        It ends when all ranks are there, after ``seconds``, or when no state has arrived for half of them.
        """
        deadline, before = time.monotonic() + seconds, 0
        quiet = time.monotonic() + seconds / 2
        while True:
            # All ranks ask at the same time, so each asks for the count alone until it changes.
            count = store.count_states()
            if count != before:
                quiet = time.monotonic() + seconds / 2
            over = time.monotonic() > min(deadline, quiet)
            if count != before or over:
                before = count
                for rank in self._all - found.keys():
                    self._read_state(store, rank, found)
            if over or len(found) == self.world_size:
                for rank, state in list(found.items()):
                    if state.report is None:  # the rank may have failed after it published its position
                        self._read_state(store, rank, found)
                return True
            time.sleep(_POLL)

    def _read_state(self, store: RunStore, rank: int, found: dict[int, RankState]) -> None:
        if rank in found and (rank == self.rank or found[rank].report is not None):
            return
        if rank not in self.known and (peer := store.peer(rank)):
            self.known[rank] = peer
        if rank in self.known and (published := store.read_state(rank)):
            found[rank] = self._state(self.known[rank], *published)

    def _state(self, peer: Peer, position: Position, report: RankReport | None) -> RankState:
        device, host = torch.device(peer.device), self.without_lone_host(peer).host
        return RankState(peer.rank, device, position, report, None, 0.0, stopped=False, log=None, host=host)


def _within(seconds: float, call: Callable[[], _T]) -> _T | None:
    """The result of a call; None if it fails or takes longer, in which case its thread goes on."""
    found: list[_T] = []

    def run() -> None:
        with suppress(RuntimeError):
            found.append(call())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None
