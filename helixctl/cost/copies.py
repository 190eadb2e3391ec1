"""What the copies of a program take: those that collectives pack and unpack, and those that kernels ask for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from helixctl.cost.compute import copy_cost
from helixctl.cost.origin import Cost
from helixctl.dag import Dag
from helixctl.program import Copy, Programs
from helixctl.records import record


@record
class CopyCosts:
    """The copies of a dag's programs.

    Attributes:
        ahead_s: per rank, seconds of copies ahead of each of its tasks, after the waits for what the task reads.
        after_s: per rank, seconds of copies after all of its tasks.
        costs: the cost of every size of copy, with its origins.
    """

    ahead_s: tuple[Mapping[str, float], ...]
    after_s: tuple[float, ...]
    costs: tuple[Cost, ...]


def copy_costs(dag: Dag, programs: Programs) -> CopyCosts:
    """Price every copy of every rank: bytes read and written, and the start of a task."""
    ahead: list[Mapping[str, float]] = [{} for _ in dag.order]
    after = [0.0] * len(dag.order)
    known: dict[tuple[int, str, int], Cost] = {}
    for rank in programs.ranks:
        kind = dag.plan.cluster.kind_of(rank)
        order, mine = dag.order[rank], defaultdict[str, float](float)
        for action in programs[rank].actions:
            if not isinstance(action, Copy):
                continue
            seconds = 0.0
            for moved in action.moved:
                key = (kind, *moved)
                if key not in known:
                    known[key] = copy_cost(dag, rank, *moved)
                seconds += known[key].seconds
            if action.place < len(order):
                mine[order[action.place]] += seconds
            else:
                after[rank] += seconds
        ahead[rank] = mine
    return CopyCosts(tuple(ahead), tuple(after), tuple(known.values()))
