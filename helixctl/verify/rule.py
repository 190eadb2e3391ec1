"""What the rules of all kinds share: what a rule gives, how it refuses, and the questions it asks of a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeVar

from helixctl.dag import (
    AllGather,
    AllToAll,
    Attention,
    CachedAttention,
    CachedSelect,
    Dag,
    HeadLinear,
    Linear,
    Narrow,
    Norm,
    Op,
    PartialAttention,
    PartialSelect,
    ReduceScatter,
    Select,
    Task,
    Tensor,
    Value,
)
from helixctl.dag.function import function_of
from helixctl.dag.ops import made_dtype
from helixctl.plan import Interval
from helixctl.plan.layout import full_extents
from helixctl.plan.sharding import layer_of
from helixctl.spec import Dtype
from helixctl.verify.findings import partial_text


class Made(NamedTuple):
    """One derived output: region, partial sum and dtype."""

    region: tuple[Interval, ...]
    partial: tuple[tuple[str, Interval], ...]
    dtype: Dtype | Literal["int64"]


class RuleError(Exception):
    """The values do not fit the rule of the task's kind; ``value`` is the one at fault, if it is one."""

    def __init__(self, message: str, value: str | None = None) -> None:
        """Keep the value for the finding's place."""
        super().__init__(message)
        self.value = value


def extents_of(dag: Dag, tensor: str) -> dict[str, int]:
    """The size of every named dim in the layer of a tensor, those over which it is summed among them."""
    model = dag.plan.model
    return full_extents(model.alike(model.kind(layer_of(tensor))), dag.work)


T = TypeVar(
    "T",
    AllGather,
    AllToAll,
    Attention,
    CachedAttention,
    CachedSelect,
    HeadLinear,
    Linear,
    Narrow,
    Norm,
    PartialAttention,
    PartialSelect,
    ReduceScatter,
    Select,
)


def op_of(task: Task, kind: type[T]) -> T:
    """The task's op, which the rule table has told to be of this kind."""
    if not isinstance(task.op, kind):
        raise TypeError(task.op)
    return task.op


def made(
    dag: Dag, op: Op, region: tuple[Interval, ...], partial: tuple[tuple[str, Interval], ...] = (), output: int = 0
) -> Made:
    """What a computation makes of a region, as which of its outputs, in the dtype that is its due."""
    dtype = made_dtype(op, output, dag.plan.model.dtype, dag.plan.partial_dtype, partial=bool(partial))
    return Made(region, partial, dtype)


def whole_sum(*values: Value) -> None:
    """Refuse a partial sum."""
    for value in values:
        if value.partial:
            msg = f"takes {value.id} for a whole, but it is {partial_text(value.partial)}"
            raise RuleError(msg)


def same_tokens(length: Value, x: Value, *, axis: int = 0) -> None:
    """Refuse lengths that are not there for all sequences of a value, whose batch stands at ``axis``."""
    (first, last), batch = length.region[0], x.region[axis]
    if not first <= batch[0] < batch[1] <= last:
        msg = f"{length.id} has batch {interval(length.region[0])}; {x.id} has batch {interval(batch)}"
        raise RuleError(msg)


def summed(dag: Dag, dims: Sequence[str]) -> list[list[str]]:
    """The terms of a partial sum over these dims: those that one equation of the model sums over are one term.

    A sum of partial sums has a term of each; the parts of every term must meet by themselves.
    """
    together = function_of(dag.plan.model, dag.work).sums
    terms: list[list[str]] = []
    for dim in dims:
        its = next((term for term in terms if any({dim, other} <= {*its} for its in together for other in term)), None)
        if its is None:
            terms.append([dim])
        else:
            its.append(dim)
    return terms


def axis_of(tensor: Tensor, dim: str) -> int:
    """The place of a dim among a tensor's."""
    if dim not in tensor.dims:
        msg = f"{tensor.name} has no dim {dim}; it has {', '.join(tensor.dims)}"
        raise RuleError(msg)
    return tensor.dims.index(dim)


def without(region: tuple[Interval, ...], axis: int) -> tuple[Interval, ...]:
    """A region less one dim."""
    return region[:axis] + region[axis + 1 :]


def interval(ends: Interval) -> str:
    """``4:8``."""
    return f"{ends[0]}:{ends[1]}"


def all_of(dag: Dag, value: Value, axis: int, why: str) -> None:
    """Refuse a value that has only a part of a dim."""
    tensor = dag.tensor[value.tensor]
    if value.region[axis] != (0, tensor.shape[axis]):
        msg = f"takes {tensor.dims[axis]} {interval(value.region[axis])} of {value.id}; {why} {tensor.shape[axis]}"
        raise RuleError(msg)
