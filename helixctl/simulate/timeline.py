"""The timeline of a simulated step: when every task runs on every rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from helixctl.cost.copies import CopyCosts, copy_costs
from helixctl.dag import Dag
from helixctl.dag.span import Span
from helixctl.program import Programs


@dataclass(frozen=True)
class Timeline:
    """A predicted step, in seconds since its begin. In a partial dag only some ranks have tasks.

    Attributes:
        dag: the dag that was simulated.
        begin_s, end_s: begin and end of every task; a collective begins when its data begins to move, and ends at the
            same time for all its ranks.
        issued_s: per rank, the time at which it issued each of its collectives, in the order of issue.
        waited_s: per rank, the seconds that it waited for each collective that it had to wait for.
        copied_s: per rank, the seconds of copies before each collective that it issues and, under the empty name, after
            all its tasks; the copies of a computation are part of it.
        rank_end_s: the time at which each rank was done; 0 for a rank without tasks.
        programs: the programs of the ranks.
    """

    dag: Dag
    begin_s: Mapping[str, float]
    end_s: Mapping[str, float]
    issued_s: Sequence[Mapping[str, float]]
    waited_s: Sequence[Mapping[str, float]]
    copied_s: Sequence[Mapping[str, float]]
    rank_end_s: Sequence[float]
    programs: Programs

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
        """The duration of every task; for a collective the time in which its data moves."""
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
    """A timeline that is being simulated."""

    dag: Dag
    begin_s: dict[str, float] = field(default_factory=dict)
    end_s: dict[str, float] = field(default_factory=dict)
    issued_s: list[dict[str, float]] = field(init=False)
    waited_s: list[dict[str, float]] = field(init=False)
    copied_s: list[dict[str, float]] = field(init=False)
    clock_s: list[float] = field(init=False)
    programs: Programs = field(init=False)
    copies: CopyCosts = field(init=False)

    def __post_init__(self) -> None:
        """Every rank starts at zero."""
        self.programs = Programs(self.dag)
        self.copies = copy_costs(self.dag, self.programs)
        self.copied_s = [{} for _ in self.dag.order]
        self.issued_s = [{} for _ in self.dag.order]
        self.waited_s = [{} for _ in self.dag.order]
        self.clock_s = [0.0] * len(self.dag.order)

    def wait(self, rank: int, collective: str, end_s: float) -> None:
        """Let a rank wait until a collective has ended.

        Args:
            rank: the rank.
            collective: the id of the collective.
            end_s: when it ends.
        """
        if end_s > self.clock_s[rank]:
            self.waited_s[rank][collective] = end_s - self.clock_s[rank]
            self.clock_s[rank] = end_s

    def copy(self, rank: int, name: str, seconds: float) -> None:
        """Let a rank copy before it issues a collective.

        Args:
            rank: the rank.
            name: the id of the collective; empty for the copies after all tasks.
            seconds: the duration of the copies.
        """
        if seconds:
            self.copied_s[rank][name] = seconds
            self.clock_s[rank] += seconds

    def timeline(self) -> Timeline:
        """The finished timeline."""
        return Timeline(
            dag=self.dag,
            begin_s=self.begin_s,
            end_s=self.end_s,
            issued_s=self.issued_s,
            waited_s=self.waited_s,
            copied_s=self.copied_s,
            rank_end_s=self.clock_s,
            programs=self.programs,
        )
