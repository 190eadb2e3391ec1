"""The collectives that a rank waits for before each of its tasks."""

from __future__ import annotations

from helixctl.dag import Dag, SendReceive

Waits = tuple[dict[str, tuple[str, ...]], ...]


def awaited_collectives(dag: Dag) -> Waits:
    """The collectives that a task waits for, by rank and task; a task that waits for none is left out.

    A task waits for the collectives that make its inputs. A send also waits for the rank's previous send.
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
