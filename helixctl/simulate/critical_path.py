"""Which tasks determine how long a step takes: the longest chain of tasks that wait for one another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from helixctl.dag import Dag, Lane, Level, Task
from helixctl.simulate.waits import waits_of

if TYPE_CHECKING:
    import networkx as nx

_BEGIN: Final = 0  # the vertex ahead of all tasks: no id, as these are texts


@dataclass(frozen=True, slots=True)
class KindOnPath:
    """The tasks of one kind in one level that are on the critical path.

    Attributes:
        tasks: how many.
        seconds: how long they take, one after the other.
        share: of the path, from 0 to 1.
    """

    level: Level
    kind: str
    lane: Lane
    tasks: int
    seconds: float
    share: float


def critical_path(dag: Dag, seconds: Mapping[str, float]) -> tuple[Task, ...]:
    """The longest chain of tasks in which each begins when the one before it has ended.

    A task waits for the tasks whose outputs it reads, and for those ahead of it on its ranks: a computation for what
    its rank computed or stood still for before; a collective for that on all its ranks, and for the collective ahead
    of it in the lane. These are the rules of ``simulate``, so with its durations the chain takes exactly the step.

    Args:
        dag: free of deadlock; it may be partial, as that of ``simulate`` may.
        seconds: how long every task takes once it runs, by its id (``Timeline.seconds``).

    Returns:
        The tasks of the chain in the order in which they run; none where no task takes time. Of equally long chains
        always the same one.

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
    """The tasks of a critical path summed by level and kind, in the order in which the path comes to them.

    Args:
        path: what ``critical_path`` gave.
        seconds: what it was given.
    """
    found: dict[tuple[Level, str, Lane], list[float]] = {}
    for task in path:
        found.setdefault((task.level, task.kind, task.lane), []).append(seconds[task.id])
    whole = sum(map(sum, found.values()))
    return tuple(
        KindOnPath(*kind, len(each), sum(each), sum(each) / whole if whole else 0.0) for kind, each in found.items()
    )


def _graph(dag: Dag, seconds: Mapping[str, float]) -> nx.DiGraph[str | int]:
    """An edge from each task to every task that begins after it has ended; its weight is how long the second takes."""
    import networkx as nx

    graph: nx.DiGraph[str | int] = nx.DiGraph()
    waits = waits_of(dag)
    for rank, order in enumerate(dag.order):
        behind: Sequence[str | int] = (_BEGIN,)  # the rank goes on when these have ended
        last: tuple[str, ...] = ()  # the collective ahead in the rank's lane
        for name in order:
            behind = (*behind, *waits[rank].get(name, ()))
            is_collective = dag.task[name].is_collective
            ahead = (*behind, *last) if is_collective else behind
            graph.add_edges_from(((before, name) for before in ahead), weight=seconds[name])
            behind, last = (behind, (name,)) if is_collective else ((name,), last)
    return graph
