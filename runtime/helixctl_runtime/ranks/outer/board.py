"""What ranks write into the store, each under a name of its own: who they are, where they are, and that they go.

A call waits for the store, and raises RuntimeError where that is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from threading import Event
from typing import Any, Final

from helixctl.errors import Diagnostic
from helixctl_runtime.ranks.failure.report import Report
from helixctl_runtime.ranks.failure.standing import Peer
from helixctl_runtime.ranks.outer.store import TCPStore
from helixctl_runtime.ranks.progress import Phase, Position

_FOR_EVER: Final = timedelta(days=7)  # what fits into the milliseconds of the store


@dataclass(frozen=True, slots=True)
class Board:
    """What one run has in the store.

    Attributes:
        store: a connection to it.
        prefix: of all names of this run.
        rank: which this is.
    """

    store: TCPStore
    prefix: str
    rank: int
    _answered: Event = field(default_factory=Event)

    def over_another_connection(self) -> Board:
        """The same board: a call on a connection waits for the call before it."""
        made: TCPStore = self.store.clone()  # type: ignore[attr-defined]  # torch has it, its stubs do not
        return replace(self, store=made)

    def say_here(self, host: str, device: str) -> None:
        """This rank is there."""
        self.store.set(f"{self.prefix}/is/{self.rank}", json.dumps([host, device]))

    def everyone(self, world_size: int) -> dict[int, Peer]:
        """All ranks, once all have said that they are there."""
        told = self.store.multi_get([f"{self.prefix}/is/{rank}" for rank in range(world_size)])
        return {rank: Peer(rank, *json.loads(text)) for rank, text in enumerate(told)}

    def peer(self, rank: int) -> Peer | None:
        """Another rank, where it has said that it is there."""
        name = f"{self.prefix}/is/{rank}"
        return Peer(rank, *json.loads(self.store.get(name))) if self.store.check([name]) else None

    def say_failed(self) -> None:
        """Some rank has failed: all are to say where they are."""
        self.store.set(f"{self.prefix}/failed", "1")

    def await_failure(self) -> None:
        """Sleep until some rank has failed."""
        self.store.wait([f"{self.prefix}/failed"], _FOR_EVER)

    def answer(self, report: Report | None, position: Position) -> None:
        """This rank is there and, if it has failed, says this."""
        told: dict[str, Any] = {"position": position}
        if report is not None:
            value = [asdict(d) for d in report.value] if report.kind == "helix" else report.value  # type: ignore[attr-defined]
            # Clocks of hosts differ; the store counts for all.
            told |= {"kind": report.kind, "value": value, "when": self.store.add(f"{self.prefix}/reports", 1)}
        self.store.set(f"{self.prefix}/at/{self.rank}", json.dumps(told))
        if not self._answered.is_set():
            self.store.add(f"{self.prefix}/answers", 1)
            self._answered.set()

    def answers(self) -> int:
        """How many ranks have answered."""
        return self.store.add(f"{self.prefix}/answers", 0)

    def answer_of(self, rank: int) -> tuple[Position, Report | None] | None:
        """What a rank has answered; None where it has not."""
        at = f"{self.prefix}/at/{rank}"
        if not self.store.check([at]):
            return None
        told = json.loads(self.store.get(at))
        phase, step, begun = told["position"]
        return Position(Phase(phase), step, begun), _report(told)

    def asks_first(self, host: str) -> bool:
        """Whether no rank of this host has asked before."""
        return self.store.add(f"{self.prefix}/said/{host}", 1) == 1

    def say_gone(self) -> int:
        """This rank goes; how many have gone with it."""
        return self.store.add(f"{self.prefix}/gone", 1)

    def gone(self) -> int:
        """How many ranks have gone."""
        return self.store.add(f"{self.prefix}/gone", 0)

    def say_terminated(self) -> None:
        """SIGTERM ends this rank, and it goes."""
        self.store.set(f"{self.prefix}/terminated/{self.rank}", "1")
        if self._answered.is_set():
            self.say_gone()

    def terminated(self, ranks: Iterable[int]) -> set[int]:
        """Those of some ranks that SIGTERM has ended."""
        return {rank for rank in ranks if self.store.check([f"{self.prefix}/terminated/{rank}"])}


def _report(told: dict[str, Any]) -> Report | None:
    if "kind" not in told:
        return None
    value = tuple(Diagnostic(**d) for d in told["value"]) if told["kind"] == "helix" else told["value"]
    return Report(told["kind"], value, told["when"])
