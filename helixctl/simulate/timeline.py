"""When every task of a step runs on every rank: what a simulation finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from helixctl.dag import Dag
from helixctl.dag.span import Span


@dataclass(frozen=True)
class Timeline:
    """A predicted step, in seconds since it began. It may be of a partial dag, in which only some ranks have tasks.

    Attributes:
        dag: what was simulated.
        begin_s, end_s: of every task; a collective begins when its data begins to move, and ends for all its ranks at
            once.
        issued_s: per rank, when it issued each of its collectives, in the order of issue.
        waited_s: per rank, for how long it stood still for each collective that it had to wait for.
        rank_end_s: when each rank was done; 0 for a rank without tasks.
    """

    dag: Dag
    begin_s: Mapping[str, float]
    end_s: Mapping[str, float]
    issued_s: Sequence[Mapping[str, float]]
    waited_s: Sequence[Mapping[str, float]]
    rank_end_s: Sequence[float]

    @property
    def step_s(self) -> float:
        """Seconds until the last rank is done."""
        return max(self.rank_end_s)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that have tasks."""
        return tuple(rank for rank, order in enumerate(self.dag.order) if order)

    @cached_property
    def seconds(self) -> dict[str, float]:
        """How long every task runs; of a collective the time in which its data moves."""
        return {name: self.end_s[name] - begin for name, begin in self.begin_s.items()}

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """Every task on every rank that issues it, rank by rank in the order of issue."""
        return tuple(self._spans())

    def _spans(self) -> Iterator[Span]:
        for rank, order in enumerate(self.dag.order):
            for name in order:
                lane = self.dag.task[name].lane
                yield Span(name, rank, lane, self.begin_s[name], self.end_s[name])


@dataclass(slots=True)
class Record:
    """A timeline in the making."""

    dag: Dag
    begin_s: dict[str, float] = field(default_factory=dict)
    end_s: dict[str, float] = field(default_factory=dict)
    issued_s: list[dict[str, float]] = field(init=False)
    waited_s: list[dict[str, float]] = field(init=False)
    clock_s: list[float] = field(init=False)

    def __post_init__(self) -> None:
        """Every rank starts at zero."""
        self.issued_s = [{} for _ in self.dag.order]
        self.waited_s = [{} for _ in self.dag.order]
        self.clock_s = [0.0] * len(self.dag.order)

    def wait(self, rank: int, collective: str, end_s: float) -> None:
        """A rank waits until a collective has ended, if it has not."""
        if end_s > self.clock_s[rank]:
            self.waited_s[rank][collective] = end_s - self.clock_s[rank]
            self.clock_s[rank] = end_s

    def timeline(self) -> Timeline:
        """The record, closed."""
        return Timeline(self.dag, self.begin_s, self.end_s, self.issued_s, self.waited_s, self.clock_s)
