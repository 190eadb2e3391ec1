"""Which tasks determine how long a step takes: the longest chain of tasks that wait for one another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from helixctl.dag import Dag, Lane, Level, Task
from helixctl.records import record
from helixctl.simulate.waits import awaited_collectives

if TYPE_CHECKING:
    import networkx as nx

_BEGIN: Final = 0  # the vertex before all tasks: a number, because the ids of tasks are texts


@record
class KindOnPath:
    """The tasks of one kind in one level that are on the critical path.

    Attributes:
        level, kind, lane: which tasks.
        tasks: their number.
        seconds: the sum of their durations.
        share: their share of the path, from 0 to 1.
    """

    level: Level
    kind: str
    lane: Lane
    tasks: int
    seconds: float
    share: float


def critical_path(dag: Dag, seconds: Mapping[str, float]) -> tuple[Task, ...]:
    """The longest chain of tasks in which each begins when the one before it has ended.

    A task waits for the tasks that make its inputs, and for those before it on its ranks: a computation for what its
    rank computed or waited for before; a collective for the same on all its ranks, and for the collective before it
    in the lane. These are the rules of ``simulate``, so with its durations the chain takes exactly the step.

    Args:
        dag: a dag without deadlock; it may be partial, as for ``simulate``.
        seconds: the duration of every task once it runs, by its id (``Timeline.seconds``).

    Returns:
        The tasks of the chain in the order in which they run; empty if no task takes time. Among equally long chains
        the result is always the same one.

    Raises:
        ValueError: the dag deadlocks; a proved one does not.
    """
    import networkx as nx  # 0.4 s: only where the path is asked for

    graph = _graph(dag, seconds)
    try:
        _, *path = nx.dag_longest_path(graph)
    except nx.NetworkXUnfeasible:
        raise ValueError("deadlock: tasks wait for one another") from None
    return tuple(dag.task[str(name)] for name in path)


def kinds_on_path(path: Iterable[Task], seconds: Mapping[str, float]) -> tuple[KindOnPath, ...]:
    """The tasks of a critical path, summed by level and kind, in the order of the path.

    Args:
        path: the result of ``critical_path``.
        seconds: its argument of this name.
    """
    found: dict[tuple[Level, str, Lane], list[float]] = {}
    for task in path:
        found.setdefault((task.level, task.kind, task.lane), []).append(seconds[task.id])
    whole = sum(map(sum, found.values()))
    return tuple(
        KindOnPath(*kind, len(each), sum(each), sum(each) / whole if whole else 0.0) for kind, each in found.items()
    )


def _graph(dag: Dag, seconds: Mapping[str, float]) -> nx.DiGraph[str | int]:
    """An edge from each task to every task that begins after it has ended, weighted with the second one's duration."""
    import networkx as nx

    graph: nx.DiGraph[str | int] = nx.DiGraph()
    waits = awaited_collectives(dag)
    for rank, order in enumerate(dag.order):
        behind: Sequence[str | int] = (_BEGIN,)  # the rank continues when these have ended
        last: tuple[str, ...] = ()  # the previous collective in the rank's lane
        for name in order:
            behind = (*behind, *waits[rank].get(name, ()))
            is_collective = dag.task[name].is_collective
            ahead = (*behind, *last) if is_collective else behind
            graph.add_edges_from(((before, name) for before in ahead), weight=seconds[name])
            behind, last = (behind, (name,)) if is_collective else ((name,), last)
    return graph
