"""A dry run of all ranks: each issues its tasks in order, and a collective begins when all its ranks are there."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from helixctl.dag.document import Dag, Task


@dataclass(frozen=True, slots=True)
class DryRun:
    """Tasks in an order in which they can run, and, on a deadlock, the task in which each stuck rank waits."""

    done: tuple[Task, ...]
    stuck: dict[int, Task]


def dry_run(dag: Dag) -> DryRun:
    """Walk the declared issue orders of all ranks together."""
    at = [0] * len(dag.order)

    def current(rank: int) -> str | None:
        return dag.order[rank][at[rank]] if at[rank] < len(dag.order[rank]) else None

    done: list[Task] = []
    ready = deque(range(len(dag.order)))
    while ready:
        rank = ready.popleft()
        while (name := current(rank)) is not None:
            task = dag.task[name]
            if any(current(other) != name for other in task.ranks):
                break
            done.append(task)
            for other in task.ranks:
                at[other] += 1
                if other != rank:
                    ready.append(other)
    return DryRun(tuple(done), {r: dag.task[name] for r in range(len(at)) if (name := current(r)) is not None})
