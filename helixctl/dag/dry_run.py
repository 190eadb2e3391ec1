"""A dry run of all ranks: each issues its tasks in order, and a collective begins when all its ranks are there."""

from __future__ import annotations

from collections import Counter, defaultdict, deque

from helixctl.dag.document import Dag, Task
from helixctl.records import record


@record
class DryRun:
    """Tasks in an order in which they can run, and, on a deadlock, the task in which each stuck rank waits."""

    done: tuple[Task, ...]
    stuck: dict[int, Task]


def meetings(dag: Dag) -> Counter[str]:
    """How many ranks issue each task.

    In a proved dag these are all of the task's ranks. A partial dag, which holds the orders of some ranks alone, has
    fewer: a collective then begins without the ranks that are not in it.
    """
    return Counter(name for order in dag.order for name in dict.fromkeys(order))


def dry_run(dag: Dag) -> DryRun:
    """Walk the declared issue orders of all ranks together."""
    awaited = meetings(dag)
    waiting: dict[str, list[int]] = defaultdict(list)
    at = [0] * len(dag.order)
    done: list[Task] = []
    ready = deque(range(len(dag.order)))
    while ready:
        rank = ready.popleft()
        order = dag.order[rank]
        while at[rank] < len(order):
            name = order[at[rank]]
            if awaited[name] > 1:
                waiting[name].append(rank)
                if len(waiting[name]) < awaited[name]:
                    break
                for other in waiting.pop(name):
                    if other != rank:
                        at[other] += 1
                        ready.append(other)
            done.append(dag.task[name])
            at[rank] += 1
    return DryRun(tuple(done), {r: dag.task[dag.order[r][i]] for r, i in enumerate(at) if i < len(dag.order[r])})
