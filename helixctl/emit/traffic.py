"""What a device receives in a step, by level: inside its host and between hosts. Folded layers are counted as well."""

from __future__ import annotations

from collections import Counter

from helixctl.cost.tasks import crosses_hosts
from helixctl.dag import Dag
from helixctl.emit.folds import Folds
from helixctl.emit.svg import COLOURS
from helixctl.emit.views import Traffic


def traffic_of(dag: Dag, folds: Folds | None = None) -> tuple[Traffic, ...]:
    """The bytes that one device receives, of the one that receives most between hosts, else most of all.

    Args:
        dag: the dag, or what is drawn of it.
        folds: what stands for others.
    """
    times = Counter[int]()
    for fold in folds.layers if folds else ():
        times.update(dict.fromkeys(fold.like, fold.times))
    rounds = folds.of_microbatches / len(folds.microbatches) if folds else 1
    received: dict[int, Counter[tuple[str, bool]]] = {}
    for task in dag.tasks:
        if task.is_collective:
            nbytes, crosses = task.nbytes * (1 + times[task.layer]), crosses_hosts(task, dag.plan.cluster)
            for rank in set(task.receivers):
                received.setdefault(rank, Counter())[task.level, crosses] += nbytes
    if not received:
        return ()
    most = max(received.values(), key=lambda its: (_between(its), its.total()))
    levels = [level for level in COLOURS if most[level, False] or most[level, True]]
    return tuple(
        Traffic(level, round(most[level, False] * rounds), round(most[level, True] * rounds)) for level in levels
    )


def _between(received: Counter[tuple[str, bool]]) -> int:
    return sum(nbytes for (_, crosses), nbytes in received.items() if crosses)
