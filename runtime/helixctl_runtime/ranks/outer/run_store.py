"""What the ranks of one run write into the shared store: host and device, position after a failure, and exit.

Every method blocks until the store answers, and raises RuntimeError if the store is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from threading import Event
from typing import Any, Final

from helixctl.errors import Diagnostic
from helixctl_runtime.ranks.failure.rank_report import RankReport
from helixctl_runtime.ranks.failure.rank_state import Peer
from helixctl_runtime.ranks.outer.store import TCPStore
from helixctl_runtime.ranks.progress import Phase, Position

_UNLIMITED: Final = timedelta(days=7)  # the store counts milliseconds in a type that holds no much longer time


@dataclass(frozen=True, slots=True)
class RunStore:
    """The keys of one run in the store.

    Attributes:
        store: a connection to the store.
        prefix: every key of this run begins with it.
        rank: the rank that this process is.
    """

    store: TCPStore
    prefix: str
    rank: int
    _state_counted: Event = field(default_factory=Event)

    def with_new_connection(self) -> RunStore:
        """The same keys over a second connection, because a call on a connection waits for the call before it."""
        made: TCPStore = self.store.clone()  # type: ignore[attr-defined]  # torch has it, its stubs do not
        return replace(self, store=made)

    def publish_peer(self, host: str, device: str) -> None:
        """Publish that this rank exists.

        Args:
            host: the name of its host.
            device: its torch device as text.
        """
        self.store.set(f"{self.prefix}/is/{self.rank}", json.dumps([host, device]))

    def wait_for_peers(self, world_size: int) -> dict[int, Peer]:
        """Wait until every rank has published its host and device, and return all of them by rank."""
        told = self.store.multi_get([f"{self.prefix}/is/{rank}" for rank in range(world_size)])
        return {rank: Peer(rank, *json.loads(text)) for rank, text in enumerate(told)}

    def peer(self, rank: int) -> Peer | None:
        """The host and device of a rank; None if the rank has not published them."""
        name = f"{self.prefix}/is/{rank}"
        return Peer(rank, *json.loads(self.store.get(name))) if self.store.check([name]) else None

    def publish_failure(self) -> None:
        """Publish that some rank has failed, which makes every rank publish its state."""
        self.store.set(f"{self.prefix}/failed", "1")

    def wait_for_failure(self) -> None:
        """Block until some rank has failed."""
        self.store.wait([f"{self.prefix}/failed"], _UNLIMITED)

    def publish_state(self, report: RankReport | None, position: Position) -> None:
        """Publish where this rank is.

        Args:
            report: how this rank has failed; None if it has not.
            position: how far it is.
        """
        told: dict[str, Any] = {"position": position}
        if report is not None:
            value = [asdict(d) for d in report.value] if report.kind == "helix" else report.value  # type: ignore[attr-defined]
            # Clocks of hosts differ; the store counts for all.
            told |= {"kind": report.kind, "value": value, "when": self.store.add(f"{self.prefix}/reports", 1)}
        self.store.set(f"{self.prefix}/at/{self.rank}", json.dumps(told))
        if not self._state_counted.is_set():
            self.store.add(f"{self.prefix}/answers", 1)
            self._state_counted.set()

    def count_states(self) -> int:
        """The number of ranks that have published a state."""
        return self.store.add(f"{self.prefix}/answers", 0)

    def read_state(self, rank: int) -> tuple[Position, RankReport | None] | None:
        """The position and the report of a rank; None if it has not published them."""
        at = f"{self.prefix}/at/{rank}"
        if not self.store.check([at]):
            return None
        told = json.loads(self.store.get(at))
        phase, *counts = told["position"]
        return Position(Phase(phase), *counts), _report(told)

    def claim_reporter(self, host: str) -> bool:
        """Whether this call is the first one on this host; the first caller reports the failure to the user."""
        return self.store.add(f"{self.prefix}/said/{host}", 1) == 1

    def publish_exit(self) -> int:
        """Publish that this rank exits.

        Returns:
            The number of ranks that have exited, this one included.
        """
        return self.store.add(f"{self.prefix}/gone", 1)

    def count_exits(self) -> int:
        """The number of ranks that have exited."""
        return self.store.add(f"{self.prefix}/gone", 0)

    def publish_termination(self) -> None:
        """Publish that SIGTERM ends this rank."""
        self.store.set(f"{self.prefix}/terminated/{self.rank}", "1")
        self.store.add(f"{self.prefix}/terminations", 1)
        if self._state_counted.is_set():
            self.publish_exit()

    def count_terminations(self) -> int:
        """The number of ranks that SIGTERM has ended."""
        return self.store.add(f"{self.prefix}/terminations", 0)

    def terminated(self, ranks: Iterable[int]) -> set[int]:
        """The ranks among ``ranks`` that SIGTERM has ended."""
        return {rank for rank in ranks if self.store.check([f"{self.prefix}/terminated/{rank}"])}


def _report(told: dict[str, Any]) -> RankReport | None:
    if "kind" not in told:
        return None
    value = tuple(Diagnostic(**d) for d in told["value"]) if told["kind"] == "helix" else told["value"]
    return RankReport(told["kind"], value, told["when"])
