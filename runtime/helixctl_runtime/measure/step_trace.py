"""Traced steps: when every rank ran every task, and how much communication was hidden behind computation."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from helixctl.dag import Dag, SendReceive
from helixctl.dag.span import Span


@dataclass(frozen=True, slots=True)
class RankTrace:
    """One traced step of one rank, in seconds on its clock.

    Attributes:
        clock: the name of the clock; ranks with the same name share a clock.
        begin_s, end_s: begin and end of the step.
        tasks: begin and end of each task of the rank's order. A computation lasts from the begin of its first action
            to the end of its last; a collective from its issue to its completion.
        exposed: place in the order, begin and end of each time in which the rank was in communication, or waited for
            it, and computed nothing.
    """

    clock: str
    begin_s: float
    end_s: float
    tasks: tuple[tuple[float, float], ...]
    exposed: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True, slots=True)
class StepTrace:
    """One traced step of all ranks.

    Ranks that share a clock share the zero of time: the begin of the step on the first of them. Clocks of different
    hosts or GPUs cannot be compared, so each has its zero at its own begin of the step; the ranks begin together up to
    the error of one synchronisation.

    Attributes:
        spans: every task on each of its ranks, rank by rank in the order of issue.
        exposed: the times in which a rank was in a task's communication and computed nothing, in the same order.
        duration_s: seconds of the step on its slowest rank.
        ranks: the number of ranks.
    """

    spans: tuple[Span, ...]
    exposed: tuple[Span, ...]
    duration_s: float
    ranks: int

    @property
    def hidden_s(self) -> float:
        """Seconds in which a collective is in flight on a rank and not exposed there; mean over ranks."""
        exposed, all_communication = defaultdict[int, list[Span]](list), defaultdict[int, list[Span]](list)
        for span in self.exposed:
            exposed[span.rank].append(span)
            all_communication[span.rank].append(span)
        for span in self.spans:
            if span.lane == "communication":
                all_communication[span.rank].append(span)
        covered = sum(map(_covered, all_communication.values())) - sum(map(_covered, exposed.values()))
        return max(0.0, covered) / self.ranks

    @property
    def busy_share(self) -> float:
        """Share of the step in which a rank computes; mean over ranks."""
        computing = sum(s.end_s - s.begin_s for s in self.spans if s.lane == "compute")
        return computing / self.ranks / self.duration_s


def merge_traces(dag: Dag, ranks: Sequence[RankTrace]) -> StepTrace:
    """Merge what each rank recorded of one step.

    Args:
        dag: the dag that was run.
        ranks: the trace of every rank, by rank.
    """
    zero: dict[str, float] = {}
    for step in ranks:
        zero[step.clock] = min(step.begin_s, zero.get(step.clock, step.begin_s))
    spans: dict[tuple[str, int], Span] = {}
    exposed: list[Span] = []
    for rank, (step, order) in enumerate(zip(ranks, dag.order, strict=True)):
        origin = zero[step.clock]
        for name, (begin, end) in zip(order, step.tasks, strict=True):
            spans[name, rank] = Span(name, rank, dag.task[name].lane, begin - origin, end - origin)
        exposed += [Span(order[at], rank, "communication", b - origin, e - origin) for at, b, e in step.exposed]
    for task in dag.tasks:
        if isinstance(task.op, SendReceive):
            _end_send(task.id, *task.ranks, spans=spans, ranks=ranks)
    duration = max(step.end_s - step.begin_s for step in ranks)
    return StepTrace(tuple(spans.values()), tuple(exposed), duration, len(ranks))


def typical_step(traced: Sequence[StepTrace]) -> StepTrace:
    """The traced step of median duration."""
    durations = [each.duration_s for each in traced]
    return traced[durations.index(statistics.median_low(durations))]


def typical_steps(dags: Sequence[Dag], ranks: Sequence[Sequence[Sequence[RankTrace]]]) -> list[tuple[Span, ...]]:
    """The spans of a typical step of each dag that was traced.

    Args:
        dags: the steps of a plan.
        ranks: of every rank, by rank, its traces of each dag: as many on all ranks.
    """
    each = zip(dags, zip(*ranks, strict=True), strict=True)
    merged = [[merge_traces(dag, step) for step in zip(*its, strict=True)] for dag, its in each]
    return [typical_step(traced).spans for traced in merged if traced]


def times_by_kind(dag: Dag, traces: Sequence[StepTrace]) -> list[dict[str, Any]]:
    """Milliseconds by level and kind of task: mean over ranks, median over the steps, in the order of the dag.

    Args:
        dag: the dag that was run.
        traces: its traced steps.
    """
    tasks: dict[tuple[str, str], int] = defaultdict(int)
    lane: dict[tuple[str, str], str] = {}
    for task in dag.tasks:
        tasks[task.level, task.kind] += 1
        lane[task.level, task.kind] = task.lane
    busy = [_by_kind(dag, each.spans, each.ranks) for each in traces]
    exposed = [_by_kind(dag, each.exposed, each.ranks) for each in traces]
    return [
        {
            "level": key[0],
            "kind": key[1],
            "lane": lane[key],
            "tasks": count,
            "busy_ms": statistics.median(step.get(key, 0.0) for step in busy) * 1e3,
            "exposed_ms": statistics.median(step.get(key, 0.0) for step in exposed) * 1e3,
        }
        for key, count in tasks.items()
    ]


def _end_send(name: str, sender: int, receiver: int, *, spans: dict[tuple[str, int], Span], ranks: Any) -> None:
    """End a send when it has been received, because the sender may notice that much later."""
    if ranks[sender].clock == ranks[receiver].clock:
        sent, received = spans[name, sender], spans[name, receiver]
        spans[name, sender] = replace(sent, end_s=max(sent.begin_s, min(sent.end_s, received.end_s)))


def _by_kind(dag: Dag, spans: Iterable[Span], ranks: int) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = defaultdict(float)
    for span in spans:
        task = dag.task[span.task]
        found[task.level, task.kind] += (span.end_s - span.begin_s) / ranks
    return found


def _covered(spans: Sequence[Span]) -> float:
    """Seconds that are covered by at least one of the spans."""
    total, reached = 0.0, float("-inf")
    for span in sorted(spans, key=lambda s: s.begin_s):
        total += max(0.0, span.end_s - max(span.begin_s, reached))
        reached = max(reached, span.end_s)
    return total
