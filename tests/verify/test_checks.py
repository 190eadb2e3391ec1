"""What the checks accept: uneven but exact dags that no lowering of ours writes."""

from __future__ import annotations

from dataclasses import replace

from helixctl.dag import Dag, Task, Value
from helixctl.verify import verify
from tests.documents import PAPER, dag_of, tiny


def test_a_partial_reduction_stays_partial_until_it_is_whole() -> None:
    """Two all-reduces, inside pairs and then across them, are as good as one over all four ranks."""
    dag = tiny(2, 2)
    whole = dag.task["l0.feed_forward.reduce"]
    ranks = dag.plan.layout.devices
    pair = ((0, 1), (2, 3))
    across = ((0, 2), (1, 3))
    stage = {r: f"l0.down:pair@{r}" for r in range(ranks)}
    values = [
        replace(dag.value[f"l0.down@{r}"], id=stage[r], partial=(("ffn", (8 * (r // 2), 8 * (r // 2) + 8)),))
        for r in stage
    ]
    first = [
        _reduce(whole, f"pair{i}", p, [f"l0.down@{r}" for r in p], [stage[r] for r in p], values)
        for i, p in enumerate(pair)
    ]
    second = [
        _reduce(whole, f"across{i}", p, [stage[r] for r in p], [f"l0.down:full@{r}" for r in p], values)
        for i, p in enumerate(across)
    ]
    two = _replaced(dag, whole, [*first, *second], values)
    assert verify(two) == []
    missing = _replaced(dag, whole, [*first, second[0], replace(second[1], inputs=first[0].outputs)], values)
    assert {d.code for d in verify(missing)} == {"HX404"}


def test_paper_plan_is_proved() -> None:
    assert verify(dag_of(PAPER, 4, 4)) == []


def test_a_plan_for_more_memory_than_there_is_is_refused() -> None:
    codes = {d.code for d in verify(dag_of(PAPER, 4, 4, "device.memory=400 MB"))}
    assert codes == {"HX410"}


def _reduce(
    task: Task, name: str, ranks: tuple[int, ...], ins: list[str], outs: list[str], values: list[Value]
) -> Task:
    nbytes = 2 * (len(ranks) - 1) * values[0].nbytes // len(ranks)
    return replace(task, id=f"{task.id}.{name}", ranks=ranks, inputs=tuple(ins), outputs=tuple(outs), nbytes=nbytes)


def _replaced(dag: Dag, old: Task, new: list[Task], values: list[Value]) -> Dag:
    """The dag with one task replaced by several, in their order."""
    tasks = [t for task in dag.tasks for t in (new if task is old else [task])]
    order = []
    for rank, ids in enumerate(dag.order):
        mine = [t.id for t in new if rank in t.ranks]
        order.append(tuple(name for i in ids for name in (mine if i == old.id else [i])))
    return replace(dag, values=(*dag.values, *values), tasks=tuple(tasks), order=tuple(order))
