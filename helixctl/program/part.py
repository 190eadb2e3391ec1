"""One rank's part of a dag: its tasks with what they read and make there, and until when a collective is on its way."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from helixctl.dag import AllGather, Dag, Task
from helixctl.plan.layout import share


@dataclass(frozen=True, slots=True)
class Own:
    """A task of the rank, with its inputs and outputs that are on the rank."""

    task: Task
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Part:
    """What follows from the order of one rank; nothing of other ranks but the values of their common collectives.

    Attributes:
        own: the rank's tasks in their order.
        made: the values that they make.
        readers: the places of the tasks that read each value, ascending.
    """

    def __init__(self, dag: Dag, rank: int) -> None:
        """Go once through the rank's order."""
        self.dag, self.rank = dag, rank
        self.own = owned(dag, rank)
        self.made = {value for own in self.own for value in own.outputs}
        found: dict[str, list[int]] = defaultdict(list)
        for place, own in enumerate(self.own):
            for value in dict.fromkeys(own.inputs):
                found[value].append(place)
        self.readers = dict(found)
        self._sends = [place for place, own in enumerate(self.own) if own.task.is_collective and not own.outputs]

    def awaited(self, place: int) -> int:
        """The place of the task ahead of which the rank waits for the collective at ``place``.

        It is the first that reads what the collective brings; if none does, the end. A rank that only sends waits
        ahead of its next send.
        """
        outputs = self.own[place].outputs
        reads = [self.readers[value][0] for value in outputs if value in self.readers]
        places = reads if outputs else [later for later in self._sends if later > place]
        return min(places, default=len(self.own))

    def done(self, place: int) -> int:
        """The place at which a task no longer reads its inputs."""
        return self.awaited(place) if self.own[place].task.is_collective else place


def owned(dag: Dag, rank: int) -> list[Own]:
    """The tasks of a rank in their order."""

    def here(task: Task, values: tuple[str, ...]) -> tuple[str, ...]:
        if len(values) == len(task.ranks):  # one of each rank, in their order
            return (values[task.ranks.index(rank)],)
        return tuple([v for v in values if dag.value[v].rank == rank])

    found = []
    for task in map(dag.task.__getitem__, dag.order[rank]):
        if task.is_collective:
            found.append(Own(task, here(task, task.inputs), here(task, task.outputs)))
        else:
            found.append(Own(task, task.inputs, task.outputs))
    return found


def extents(dag: Dag, task: Task, values: tuple[str, ...], dim: str, total: int) -> list[int]:
    """How long the ranks' pieces are along a dim, in the order of the ranks.

    Args:
        dag: the collective's dag.
        task: the collective.
        values: the pieces; in a partial dag not all of them: the others share equally what those leave of ``total``.
        dim: along which the pieces are parts of a whole.
        total: the extent of the whole.
    """
    axis = dag.tensor[dag.value[values[0]].tensor].dims.index(dim)
    known = {dag.value[v].rank: dag.value[v].shape[axis] for v in values}
    if len(known) == len(task.ranks):
        return [known[rank] for rank in task.ranks]
    others = [rank for rank in task.ranks if rank not in known]
    left = total - sum(known.values())
    known |= {rank: stop - start for i, rank in enumerate(others) for start, stop in [share(left, len(others), i)]}
    return [known[rank] for rank in task.ranks]


def pieces(dag: Dag, task: Task, dim: str) -> list[int]:
    """How long the pieces that a collective puts together along a dim are, in the order of its ranks."""
    out = dag.value[task.outputs[0]]
    return extents(dag, task, task.inputs, dim, out.shape[dag.tensor[out.tensor].dims.index(dim)])


def even(dag: Dag, task: Task) -> bool:
    """Whether a task is a gather of pieces of one size."""
    return isinstance(task.op, AllGather) and len(set(pieces(dag, task, task.op.dim))) == 1
