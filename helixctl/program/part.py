"""One rank's part of a dag: its tasks with what they read and make there, and until when a collective is on its way."""

from __future__ import annotations

from collections import defaultdict

from helixctl.dag import AllGather, Dag, Packed, Task
from helixctl.records import record


@record
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
        if len(values) == len(task.ranks) and not isinstance(task.op, Packed):  # one of each rank, in their order
            return (values[task.ranks.index(rank)],)
        return tuple([v for v in values if dag.value[v].rank == rank])

    found = []
    for task in map(dag.task.__getitem__, dag.order[rank]):
        if task.is_collective:
            found.append(Own(task, here(task, task.inputs), here(task, task.outputs)))
        else:
            found.append(Own(task, task.inputs, task.outputs))
    return found


def carried(own: Own) -> list[Own]:
    """The moves of a packed exchange, each with what it reads and makes on the rank."""
    ends = zip(own.task.parts, own.inputs, own.outputs, strict=True)
    return [Own(part, (source,), (made,)) for part, source, made in ends]


class Pieces:
    """How long the ranks' pieces in collectives are; what all ranks of a collective ask is worked out once."""

    def __init__(self, dag: Dag) -> None:
        """Work out nothing yet."""
        self._dag = dag
        self._known: dict[tuple[str, str, bool], tuple[int, ...]] = {}

    def gathered(self, task: Task, dim: str) -> tuple[int, ...]:
        """The extents along a dim of the pieces that a collective puts together, in the order of its ranks."""
        return self._extents(task, dim, of_outputs=False)

    def split(self, task: Task, dim: str) -> tuple[int, ...]:
        """The extents along a dim of the parts that a collective cuts up, in the order of its ranks."""
        return self._extents(task, dim, of_outputs=True)

    def even(self, task: Task) -> bool:
        """Whether a task is a gather of pieces of one size."""
        return isinstance(task.op, AllGather) and len(set(self.gathered(task, task.op.dim))) == 1

    def _extents(self, task: Task, dim: str, *, of_outputs: bool) -> tuple[int, ...]:
        key = (task.id, task.inputs[0], of_outputs)  # the parts of a packed exchange have one id
        if key not in self._known:
            values, others = (task.outputs, task.inputs) if of_outputs else (task.inputs, task.outputs)
            whole = self._dag.value[others[0]]
            axis = self._dag.tensor[whole.tensor].dims.index(dim)
            self._known[key] = self._shared(task, values, axis, whole.shape[axis])
        return self._known[key]

    def _shared(self, task: Task, values: tuple[str, ...], axis: int, total: int) -> tuple[int, ...]:
        """The extents of values; in a partial dag some are not there, and share equally what is left of the total."""
        known = {}
        for value in map(self._dag.value.__getitem__, values):
            start, stop = value.region[axis]
            known[value.rank] = stop - start
        others = [rank for rank in task.ranks if rank not in known]
        if others:
            each, more = divmod(total - sum(known.values()), len(others))
            known |= {rank: each + (i < more) for i, rank in enumerate(others)}
        return tuple([known[rank] for rank in task.ranks])
