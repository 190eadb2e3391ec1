"""Merging traced steps: clocks, hidden communication, and the end of a send."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helixctl.dag import Dag
from helixctl.dag.span import Span
from helixctl_runtime.measure.step_trace import RankTrace, StepTrace, merge_traces, times_by_kind
from tests.documents import SMALL, dag_of
from tests.runtime.unusual import MODEL

COMPUTE, COMMUNICATION = "compute", "communication"


def step(dag: Dag, rank: int, begin: float, clock: str = "host") -> RankTrace:
    """Every task takes a second, one after the other."""
    tasks = tuple((begin + i, begin + i + 1) for i in range(len(dag.order[rank])))
    return RankTrace(clock, begin, begin + len(tasks), tasks, exposed=())


@pytest.fixture(scope="module")
def stages() -> Dag:
    return dag_of(SMALL, 1, 1, *MODEL, pipeline=2)


def at(span: Span) -> tuple[float, float]:
    return (span.begin_s, span.end_s)


def test_zero_is_the_first_begin_on_a_clock(stages: Dag) -> None:
    first, second = step(stages, 0, 100.0), step(stages, 1, 100.25)
    spans = merge_traces(stages, [first, second]).spans
    assert min(s.begin_s for s in spans if s.rank == 0) == 0
    assert min(s.begin_s for s in spans if s.rank == 1) == 0.25
    spans = merge_traces(stages, [first, replace(second, clock="other")]).spans
    assert min(s.begin_s for s in spans if s.rank == 1) == 0


def test_a_send_has_ended_when_it_has_been_received(stages: Dag) -> None:
    send = next(name for name in stages.order[0] if name in stages.order[1])
    place = stages.order[0].index(send)
    sender = step(stages, 0, 0.0)
    late = replace(sender, tasks=(*sender.tasks[:place], (7.0, 90.0), *sender.tasks[place + 1 :]))
    receiver = step(stages, 1, 0.0)
    received = replace(receiver, tasks=((0.0, 9.0), *receiver.tasks[1:]))

    def sent(*ranks: RankTrace) -> Span:
        return next(s for s in merge_traces(stages, ranks).spans if (s.task, s.rank) == (send, 0))

    assert at(sent(late, received)) == (7.0, 9.0)
    assert at(sent(late, replace(received, clock="other"))) == (7.0, 90.0)


def test_hidden_is_what_is_on_its_way_and_not_exposed() -> None:
    spans = (
        Span("a", 0, COMMUNICATION, 1, 5),
        Span("b", 0, COMMUNICATION, 3, 8),  # on its way beside a: counted once
        Span("c", 0, COMPUTE, 1, 4),
        Span("c", 1, COMPUTE, 0, 9),
    )
    exposed = (Span("a", 0, COMMUNICATION, 4, 5), Span("b", 0, COMMUNICATION, 7, 8.5))
    # Rank 0: [1, 4] and [5, 7] of [1, 8]; rank 1: nothing.
    assert StepTrace(spans, exposed, duration_s=10, ranks=2).hidden_s == 5 / 2
    assert StepTrace(spans, exposed, duration_s=10, ranks=2).busy_share == (3 + 9) / 2 / 10


def test_kinds_are_means_over_ranks_and_medians_over_steps(stages: Dag) -> None:
    steps = [step(stages, rank, 0.0) for rank in (0, 1)]
    rows = times_by_kind(stages, [merge_traces(stages, steps)] * 3)
    keys = [(row["level"], row["kind"]) for row in rows]
    assert keys == list(dict.fromkeys((t.level, t.kind) for t in stages.tasks))
    linear = next(row for row in rows if (row["level"], row["kind"]) == ("feed_forward", "linear"))
    # Two layers of two products each, a layer on each of two ranks.
    assert linear == {
        "level": "feed_forward",
        "kind": "linear",
        "lane": "compute",
        "tasks": 4,
        "busy_ms": 2000,
        "exposed_ms": 0,
    }
