"""The programs of all ranks of a dag. Ranks that do the same, on values of the same sizes, share one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Final
from weakref import WeakValueDictionary

from helixctl.dag import (
    Attention,
    CachedAttention,
    CachedSelect,
    CacheWrite,
    Dag,
    Expand,
    Op,
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

# By the identity of their dag, which lives as long as they do: a dag is compared by all that is in it.
_HELD: Final[WeakValueDictionary[int, Programs]] = WeakValueDictionary()
_ON_ROWS: Final = (Rotate, Attention, RotateAt, ScaleQueries, CachedAttention, Select, CachedSelect)
_ON_LANES: Final = (CacheWrite, Expand, PartialAttention, PartialSelect)


def programs_of(dag: Dag) -> Programs:
    """The programs of a dag: the same as long as somebody holds them."""
    found = _HELD.get(id(dag))
    if found is None:
        _HELD[id(dag)] = found = Programs(dag)
    return found


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
        self._numbers: dict[object, int] = {}  # of kinds of values and of ops
        self._number_of: dict[object, int] = {}  # the same, by what is quicker to look up

    def __getitem__(self, rank: int) -> Program:
        """A program with the sizes, lifetimes and copies of this rank's; its values may be those of another rank."""
        if rank not in self._of:
            # Only ranks with equally many tasks can be alike.
            others = self._lengths[len(self._dag.order[rank])] > 1
            key: object = tuple(self._signature(rank)) if others else rank
            if key not in self._made:
                self._made[key] = program_of(self._dag, rank, self._pieces)
            self._of[rank] = self._made[key]
        return self._of[rank]

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that have tasks."""
        return tuple([rank for rank, order in enumerate(self._dag.order) if order])

    @cached_property
    def _lengths(self) -> Counter[int]:
        return Counter(len(order) for order in self._dag.order)

    def _signature(self, rank: int) -> Iterator[object]:
        """All that a rank's program follows from, with its values counted instead of named."""
        number: dict[str, int] = {}
        value = self._dag.value
        for own in owned(self._dag, rank):
            task = own.task
            yield self._op(task.op)
            for name in (*own.inputs, *own.outputs):
                if name not in number:
                    number[name] = len(number)
                    yield self._kind(value[name])
                yield number[name]
            if task.is_collective:
                yield self._exchange(own)
            elif isinstance(task.op, _ON_ROWS):  # on where the rows stand
                yield tuple([value[name].region[1:2] for name in own.inputs])
            elif isinstance(task.op, _ON_LANES):  # on the lane as well
                yield tuple([value[name].region[1 : 3 if self._has_lanes(name) else 2] for name in own.inputs])
            elif isinstance(task.op, Sample):  # on which sequences these are
                yield value[own.inputs[0]].region[0]

    def _op(self, op: Op) -> int:
        """A number for all equal ops. Tasks of one equation have the same object, which is quicker to compare."""
        found = self._number_of.get(id(op))
        if found is None:
            self._number_of[id(op)] = found = self._numbers.setdefault(op, len(self._numbers))
        return found

    def _kind(self, value: Value) -> int:
        """A number for all values that are alike but for their tensor, rank and place in it."""
        key = (value.tensor, shape := value.shape, value.dtype)
        found = self._number_of.get(key)
        if found is None:
            tensor = self._dag.tensor[value.tensor]
            its = (tensor.dims, tensor.role, tensor.storage, shape, value.dtype)
            self._number_of[key] = found = self._numbers.setdefault(its, len(self._numbers))
        return found

    def _has_lanes(self, name: str) -> bool:
        """Whether a value is a piece of a cache."""
        return "key_lane" in self._dag.tensor[self._dag.value[name].tensor].dims

    def _exchange(self, own: Own) -> object:
        """What a program follows from of the other ranks' values in a collective."""
        task = own.task
        if task.id not in self._exchanged:
            sizes = [self._dag.value[v].shape for values in (task.inputs, task.outputs) for v in values]
            parts = task.parts
            leading = [wire_order(self._dag, t, self._contracted, even=self._pieces.even(t)) for t in parts]
            self._exchanged[task.id] = (len(task.ranks), tuple(sizes), tuple(leading))
        return self._exchanged[task.id]
