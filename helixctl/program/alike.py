"""The programs of all ranks of a dag. Ranks that do the same, on values of the same sizes, share one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from helixctl.dag import (
    Attention,
    Best,
    CachedAttention,
    CachedSelect,
    CacheWrite,
    Dag,
    Expand,
    PartialAttention,
    PartialSelect,
    Rotate,
    RotateAt,
    Sample,
    ScaleQueries,
    Select,
    Value,
)
from helixctl.dag.function import function_of
from helixctl.program.actions import Program
from helixctl.program.axes import wire_order
from helixctl.program.part import Own, Pieces, owned
from helixctl.program.rank import program_of


class Programs:
    """The program of each rank, made when it is first asked for; of ranks that are alike that of the first."""

    def __init__(self, dag: Dag) -> None:
        """Make none yet."""
        self._dag = dag
        self._made: dict[object, Program] = {}
        self._of: dict[int, Program] = {}
        self._pieces = Pieces(dag)
        self._exchanged: dict[str, object] = {}
        self._contracted = function_of(dag.plan.model, dag.work).contracted

    def __getitem__(self, rank: int) -> Program:
        """A program with the sizes, lifetimes and copies of this rank's; its values may be those of another rank."""
        if rank not in self._of:
            key = tuple(self._signature(rank)) if len(self.ranks) > 1 else ()
            if key not in self._made:
                self._made[key] = program_of(self._dag, rank, self._pieces)
            self._of[rank] = self._made[key]
        return self._of[rank]

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that have tasks."""
        return tuple([rank for rank, order in enumerate(self._dag.order) if order])

    def _signature(self, rank: int) -> Iterator[object]:
        """All that a rank's program follows from, with its values counted instead of named."""
        number: dict[str, int] = {}
        for own in owned(self._dag, rank):
            task = own.task
            yield task.op
            for name in (*own.inputs, *own.outputs):
                if name not in number:
                    number[name] = len(number)
                    yield self._kind(self._dag.value[name])
                yield number[name]
            if task.is_collective:
                yield self._exchange(own)
            elif isinstance(
                task.op, Rotate | Attention | RotateAt | ScaleQueries | CachedAttention | Select | CachedSelect
            ):  # on where the rows stand
                yield tuple([self._dag.value[name].region[1:2] for name in own.inputs])
            elif isinstance(task.op, CacheWrite | Expand | PartialAttention | PartialSelect):  # on the lane as well
                yield tuple([self._dag.value[name].region[1:3] for name in own.inputs])
            elif isinstance(task.op, Best):  # on the first token of the share
                yield self._dag.value[own.inputs[0]].region[1]
            elif isinstance(task.op, Sample):  # on which sequences these are
                yield self._dag.value[own.inputs[0]].region[0]

    def _kind(self, value: Value) -> object:
        tensor = self._dag.tensor[value.tensor]
        return tensor.dims, tensor.role, tensor.storage, value.shape, value.dtype

    def _exchange(self, own: Own) -> object:
        """What a program follows from of the other ranks' values in a collective."""
        task = own.task
        if task.id not in self._exchanged:
            sizes = [self._dag.value[v].shape for values in (task.inputs, task.outputs) for v in values]
            parts = task.parts
            leading = [wire_order(self._dag, t, self._contracted, even=self._pieces.even(t)) for t in parts]
            self._exchanged[task.id] = (len(task.ranks), tuple(sizes), tuple(leading))
        return self._exchanged[task.id]
