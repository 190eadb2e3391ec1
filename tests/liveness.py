"""How long each value of a rank is needed, by an independent rule: tests compare arenas and lifetimes with it."""

from __future__ import annotations

from helixctl.dag import Dag, SendReceive, Task


def last_needed(dag: Dag, rank: int) -> dict[str, int]:
    """The place in a rank's order at which each of its values is last needed.

    A value is needed from the task that makes it to the last task that reads it. A collective runs beside other tasks
    until its output is first used on the rank, and reads its input until then (to the end, if there is no use). A rank
    that only sends has no output: it reads what it sends until its next send (to the end, if there is none). The
    model's input, its weights and its output are needed to the end: their place is the length of the order.
    """
    order, ends, kept = dag.order[rank], dag.ends, dag.kept
    place = {name: i for i, name in enumerate(order)}
    sends = [i for name, i in place.items() if _sends(dag.task[name], rank)]
    last: dict[str, int] = {}
    for i, name in enumerate(order):
        task, done = dag.task[name], i
        inputs, outputs = ends[name][rank]
        if task.is_collective:
            uses = [place[t.id] for v in outputs for t in dag.consumers.get(v, ()) if rank in t.ranks]
            done = min(uses if outputs else [p for p in sends if p > i], default=len(order))
        for value_id in outputs + inputs:
            last[value_id] = len(order) if value_id in kept else max(done, last.get(value_id, done))
    return last


def _sends(task: Task, rank: int) -> bool:
    return isinstance(task.op, SendReceive) and task.ranks[0] == rank
