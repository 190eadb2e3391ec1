"""For which collectives a rank stands still ahead of each of its tasks."""

from __future__ import annotations

from helixctl.dag import Dag, SendReceive

Waits = tuple[dict[str, tuple[str, ...]], ...]


def waits_of(dag: Dag) -> Waits:
    """By rank and task: the collectives that made its inputs, and, ahead of a send, the rank's send before.

    A task without any is left out.
    """
    made_by = {value: task.id for task in dag.tasks if task.is_collective for value in task.outputs}
    found: list[dict[str, tuple[str, ...]]] = []
    for rank, order in enumerate(dag.order):
        mine: dict[str, tuple[str, ...]] = {}
        sent: tuple[str, ...] = ()
        for name in order:
            awaited = tuple(made_by[value] for value in dag.ends[name][rank][0] if value in made_by)
            task = dag.task[name]
            if isinstance(task.op, SendReceive) and task.ranks[0] == rank:
                awaited, sent = (*awaited, *sent), (name,)
            if awaited:
                mine[name] = awaited
        found.append(mine)
    return tuple(found)
