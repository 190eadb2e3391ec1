"""A rank makes its program from its own tasks and the values of its collectives, and all ranks send in one order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from helixctl.dag import Dag
from helixctl.dag.ops import wire_kind
from helixctl.lower import lower
from helixctl.plan import Plan
from helixctl.program import Exchange, program_of
from helixctl.spec import StepName
from tests.documents import SMALL, dag_of
from tests.runtime.models import REAL, plan_for, real
from tests.runtime.unusual import put_off_uses


def steps(groups: int, slices: int, step: StepName, **axes: Any) -> Dag:
    plan = plan_for(REAL, (5, 4), groups, slices, **axes)
    work = plan.workload.model_copy(update={"output_len": 3})
    return lower(Plan.of(plan.model, plan.cluster, work, plan.layout), step=step)


DAGS: list[tuple[str, Dag]] = [
    ("4 x 4", dag_of(SMALL, 4, 4, "layers=2")),
    ("groups first", dag_of(SMALL, 2, 2, "layers=2", gather_order="groups_first")),
    ("late uses", put_off_uses(dag_of(SMALL, 2, 2, "layers=2", combine="reduce"))),
    ("query", real(2, 3, slicing="query")),
    ("batch", real(3, 2, slicing="batch", microbatches=2, interleave=2)),
    ("stages", real(2, 1, pipeline=2, microbatches=3)),
    ("decode by key", steps(1, 3, "decode", slicing="key")),
    ("prefill by key", steps(2, 2, "prefill", slicing="key")),
    ("decode by batch", steps(2, 2, "decode", slicing="batch")),
]


def own_part(dag: Dag, rank: int) -> Dag:
    """The dag without the tasks and values of other ranks, except the values of collectives that this rank shares."""
    tasks = tuple(task for task in dag.tasks if rank in task.ranks)
    names = {value for task in tasks for value in (*task.inputs, *task.outputs)}
    order = tuple(ids if r == rank else () for r, ids in enumerate(dag.order))
    return replace(dag, tasks=tasks, values=tuple(v for v in dag.values if v.id in names), order=order)


@pytest.mark.parametrize(("name", "dag"), DAGS, ids=[name for name, _ in DAGS])
def test_a_program_follows_from_the_rank_s_own_part(name: str, dag: Dag) -> None:
    for rank in range(len(dag.order)):
        assert program_of(own_part(dag, rank), rank) == program_of(dag, rank), name


@pytest.mark.parametrize(("name", "dag"), DAGS, ids=[name for name, _ in DAGS])
def test_no_table_of_the_whole_dag_is_made(name: str, dag: Dag) -> None:
    fresh = replace(dag)
    for rank in range(len(dag.order)):
        program_of(fresh, rank)
    made = set(vars(fresh)) - set(dag.__dataclass_fields__)
    assert made == {"tensor", "value", "task", "work"}, name


@pytest.mark.parametrize(("name", "dag"), DAGS, ids=[name for name, _ in DAGS])
def test_what_is_sent_is_received(name: str, dag: Dag) -> None:
    """As many elements, of one dtype, and to each rank what it awaits from there."""
    sent: dict[str, dict[int, Exchange]] = {}
    for rank in range(len(dag.order)):
        for action in program_of(dag, rank).actions:
            if isinstance(action, Exchange):
                sent.setdefault(action.task.id, {})[rank] = action
    for task_id, exchanges in sent.items():
        assert tuple(sorted(exchanges)) == tuple(sorted(dag.task[task_id].ranks)), name
        check(wire_kind(dag.task[task_id].op), [exchanges[rank] for rank in dag.task[task_id].ranks])


def check(kind: str, exchanges: list[Exchange]) -> None:
    first: Any = exchanges[0]
    for at, exchange in enumerate(exchanges):
        assert exchange.send.contiguous
        assert exchange.receive.contiguous
        assert exchange.send.dtype == exchange.receive.dtype == first.send.dtype
        if kind == "all_to_all":
            assert exchange.arrive == tuple(other.leave[at] for other in exchanges)
            assert (sum(exchange.leave), sum(exchange.arrive)) == (exchange.send.numel, exchange.receive.numel)
        else:
            assert exchange.send.numel == first.send.numel
            times = len(exchanges) if kind == "all_gather" else 1
            assert exchange.receive.numel == times * exchange.send.numel
