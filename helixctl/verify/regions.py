"""Regions: what every task makes, derived from its inputs by the rule of its kind, against what is declared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

from helixctl.dag import Dag, Task, Tensor, Value
from helixctl.dag.formulas import flops, nbytes
from helixctl.dag.ops import AllGather, Attention, Linear, Norm, contracted
from helixctl.errors import Diagnostic
from helixctl.plan import Interval
from helixctl.plan.layout import full_extents
from helixctl.spec import Dtype, accumulator
from helixctl.verify.findings import finding, partial_text, region_text
from helixctl.verify.tiling import bounding, untiled


class Made(NamedTuple):
    """One derived output: region, partial sum and dtype."""

    region: tuple[Interval, ...]
    partial: tuple[tuple[str, Interval], ...]
    dtype: Dtype


class RuleError(Exception):
    """The inputs do not fit the rule of the task's kind."""


def check_regions(dag: Dag) -> Iterator[Diagnostic]:
    """Every output is what its task makes of its inputs: region and partial sum (HX406), dtype (HX413)."""
    for value in dag.values:
        given = value.id not in dag.producer
        if given and value.dtype != dag.plan.model.dtype:
            yield Diagnostic("HX413", f"value {value.id} is {value.dtype}; the model is {dag.plan.model.dtype}")
        if given and value.partial:
            yield Diagnostic(
                "HX406", f"value {value.id} is declared {partial_text(value.partial)}, but no task made it"
            )
    for task in dag.tasks:
        try:
            made = derive(dag, task)
        except RuleError as error:
            yield finding("HX406", dag, task, str(error))
            continue
        for value_id, want in zip(task.outputs, made, strict=True):
            value = dag.value[value_id]
            if (value.region, value.partial) != (want.region, want.partial):
                yield finding("HX406", dag, task, _mismatch(dag.tensor[value.tensor], value, want))
            if value.dtype != want.dtype:
                yield finding("HX413", dag, task, f"{value_id} is declared {value.dtype}, but it is {want.dtype}")


def check_costs(dag: Dag) -> Iterator[Diagnostic]:
    """Flops and bytes are what the kind's formulas give (HX412)."""
    for task in dag.tasks:
        inputs = [dag.value[v] for v in task.inputs]
        outputs = [dag.value[v] for v in task.outputs]
        want = (flops(task.op, inputs, outputs, dag.tensor), nbytes(task.op, len(task.ranks), inputs, outputs))
        if (task.flops, task.nbytes) != want:
            have = f"{task.flops} flops and {task.nbytes} bytes"
            yield finding("HX412", dag, task, f"declares {have}; its regions give {want[0]} and {want[1]}")


def derive(dag: Dag, task: Task) -> list[Made]:
    """The outputs of a task by the rule of its kind.

    Raises:
        RuleError: the inputs do not fit each other.
    """
    return RULES[task.kind](dag, task, [dag.value[v] for v in task.inputs])


def _broadcast(_: Dag, task: Task, values: list[Value]) -> list[Made]:
    return [Made(values[0].region, values[0].partial, values[0].dtype)] * len(task.outputs)


def _elementwise(dag: Dag, _: Task, values: list[Value]) -> list[Made]:
    _whole_sum(*values)
    first = values[0]
    for other in values[1:]:
        if dag.tensor[first.tensor].dims != dag.tensor[other.tensor].dims or first.region != other.region:
            msg = f"takes {first.id} and {other.id}, which are different regions"
            raise RuleError(msg)
    return [Made(first.region, (), dag.plan.model.dtype)]


def _norm(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    x, weight = values
    _whole_sum(x, weight)
    tensor, dim = dag.tensor[x.tensor], _op(task, Norm).dim
    axis = _axis(tensor, dim)
    if x.region[axis] != (0, tensor.shape[axis]):
        msg = f"normalises {dim} {_iv(x.region[axis])} of {x.id}; the mean needs all {tensor.shape[axis]}"
        raise RuleError(msg)
    if weight.region != (x.region[axis],):
        msg = f"weight {weight.id} has {weight.region}, its input has {dim} {_iv(x.region[axis])}"
        raise RuleError(msg)
    return [Made(x.region, (), dag.plan.model.dtype)]


def _all_gather(dag: Dag, task: Task, pieces: list[Value]) -> list[Made]:
    dim, first = _op(task, AllGather).dim, pieces[0]
    axis = _axis(dag.tensor[first.tensor], dim)
    stop = first.region[axis][0]
    for piece in pieces:
        same = piece.tensor == first.tensor and piece.dtype == first.dtype and piece.partial == first.partial
        if not same or _without(piece.region, axis) != _without(first.region, axis):
            msg = f"gathers {first.id} and {piece.id}, which differ in more than {dim}"
            raise RuleError(msg)
        if piece.shape[axis] != first.shape[axis]:
            msg = f"gathers {first.id} and {piece.id}, which differ in size; this version gathers equal pieces"
            raise RuleError(msg)
        if piece.region[axis][0] != stop:
            msg = f"{piece.id} begins at {dim} {piece.region[axis][0]}, but the pieces before it end at {stop}"
            raise RuleError(msg)
        stop = piece.region[axis][1]
    region = (*first.region[:axis], (first.region[axis][0], stop), *first.region[axis + 1 :])
    return [Made(region, first.partial, first.dtype)] * len(task.outputs)


def _send_receive(_: Dag, __: Task, values: list[Value]) -> list[Made]:
    return [Made(values[0].region, values[0].partial, values[0].dtype)]


def _all_reduce(dag: Dag, task: Task, pieces: list[Value]) -> list[Made]:
    first = pieces[0]
    dims = [dim for dim, _ in first.partial]
    for piece in pieces:
        if (piece.tensor, piece.region, piece.dtype) != (first.tensor, first.region, first.dtype):
            msg = f"sums {first.id} and {piece.id}, which are different regions"
            raise RuleError(msg)
        if not piece.partial or [dim for dim, _ in piece.partial] != dims:
            msg = (
                f"{piece.id} is {partial_text(piece.partial)}: a sum of it over {len(task.ranks)} ranks counts it again"
            )
            raise RuleError(msg)
    boxes = [tuple(interval for _, interval in piece.partial) for piece in pieces]
    whole = bounding(boxes)
    if len(set(boxes)) < len(boxes) or untiled(boxes, whole):
        summed = "; ".join(f"{p.id} {partial_text(p.partial)}" for p in pieces)
        msg = f"the partial sums do not meet without gap or overlap: {summed}"
        raise RuleError(msg)
    extents = full_extents(dag.plan.model, dag.plan.workload)
    partial = tuple((dim, iv) for dim, iv in zip(dims, whole, strict=True) if iv != (0, extents[dim]))
    return [Made(first.region, partial, first.dtype)] * len(task.outputs)


def _linear(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    return [_product(dag, _op(task, Linear).contract, values[0], weight) for weight in values[1:]]


def _product(dag: Dag, contract: Sequence[str], x: Value, weight: Value) -> Made:
    _whole_sum(x, weight)
    tx, tw = dag.tensor[x.tensor], dag.tensor[weight.tensor]
    partial = []
    for dim in contract:
        i, j = _axis(tx, dim), _axis(tw, dim)
        if x.region[i] != weight.region[j]:
            msg = f"contracts {dim} {_iv(x.region[i])} of {x.id} with {dim} {_iv(weight.region[j])} of {weight.id}"
            raise RuleError(msg)
        if x.region[i] != (0, tx.shape[i]):
            partial.append((dim, x.region[i]))
    kept = [iv for dim, iv in zip(tx.dims, x.region, strict=True) if dim not in contract]
    kept += [iv for dim, iv in zip(tw.dims, weight.region, strict=True) if dim not in contract]
    return Made(tuple(kept), tuple(partial), dag.plan.partial_dtype if partial else dag.plan.model.dtype)


def _route(dag: Dag, _: Task, values: list[Value]) -> list[Made]:
    x, weight = values
    _whole_sum(x, weight)
    for value, axis in ((x, 2), (weight, 0), (weight, 1)):
        _all_of(dag, value, axis, "a token's gates need all")
    return [Made((*x.region[:2], weight.region[1]), (), accumulator(dag.plan.model.dtype))]


def _experts(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    x, gates, w_up, w_down = values
    _whole_sum(*values)
    for value, axis in ((x, 2), (w_up, 1), (gates, 2)):
        _all_of(dag, value, axis, "an expert needs all")
    if gates.region[:2] != x.region[:2]:
        msg = f"{x.id} and {gates.id} are of different tokens"
        raise RuleError(msg)
    if (w_up.region[0], w_up.region[2]) != w_down.region[:2]:
        msg = f"{w_up.id} and {w_down.id} differ in expert or ffn"
        raise RuleError(msg)
    extents = full_extents(dag.plan.model, dag.plan.workload)
    cuts = zip(contracted(task.op), w_down.region[:2], strict=True)
    partial = tuple((dim, iv) for dim, iv in cuts if iv != (0, extents[dim]))
    dtype = dag.plan.partial_dtype if partial else dag.plan.model.dtype
    return [Made((*x.region[:2], w_down.region[2]), partial, dtype)]


def _all_of(dag: Dag, value: Value, axis: int, why: str) -> None:
    tensor = dag.tensor[value.tensor]
    if value.region[axis] != (0, tensor.shape[axis]):
        msg = f"takes {tensor.dims[axis]} {_iv(value.region[axis])} of {value.id}; {why} {tensor.shape[axis]}"
        raise RuleError(msg)


def _attention(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    q, k, v = values
    softmax_width = _op(task, Attention).softmax_width
    _whole_sum(*values)
    for other in (k, v):
        if (other.region[0], *other.region[2:]) != (q.region[0], *q.region[2:]):
            msg = f"{q.id} and {other.id} differ in batch, head or head_dim"
            raise RuleError(msg)
        rows, size = other.region[1], dag.tensor[other.tensor].shape[1]
        if rows != (0, size):
            msg = f"{other.id} has rows {_iv(rows)}; a softmax needs all {size}"
            raise RuleError(msg)
    start, stop = q.region[3]
    if start % softmax_width or stop % softmax_width:
        msg = f"head_dim {start}:{stop} cuts a softmax of {softmax_width} dims"
        raise RuleError(msg)
    return [Made(q.region, (), dag.plan.model.dtype)]


RULES: Final[dict[str, Callable[[Dag, Task, list[Value]], list[Made]]]] = {
    "broadcast": _broadcast,
    "norm": _norm,
    "linear": _linear,
    "attention": _attention,
    "activation": _elementwise,
    "route": _route,
    "experts": _experts,
    "add": _elementwise,
    "all_gather": _all_gather,
    "all_reduce": _all_reduce,
    "send_receive": _send_receive,
}

T = TypeVar("T", AllGather, Attention, Linear, Norm)


def _op(task: Task, kind: type[T]) -> T:
    """The task's op, which the rule table has told to be of this kind."""
    if not isinstance(task.op, kind):
        raise TypeError(task.op)
    return task.op


def _whole_sum(*values: Value) -> None:
    for value in values:
        if value.partial:
            msg = f"takes {value.id} for a whole, but it is {partial_text(value.partial)}"
            raise RuleError(msg)


def _axis(tensor: Tensor, dim: str) -> int:
    if dim not in tensor.dims:
        msg = f"{tensor.name} has no dim {dim}; it has {', '.join(tensor.dims)}"
        raise RuleError(msg)
    return tensor.dims.index(dim)


def _without(region: tuple[Interval, ...], axis: int) -> tuple[Interval, ...]:
    return region[:axis] + region[axis + 1 :]


def _iv(interval: Interval) -> str:
    return f"{interval[0]}:{interval[1]}"


def _mismatch(tensor: Tensor, value: Value, want: Made) -> str:
    declared = f"[{region_text(tensor, value.region)}; {partial_text(value.partial)}]"
    derived = (
        f"[{region_text(tensor, want.region)}; {partial_text(want.partial)}]"
        if len(want.region) == len(tensor.dims)
        else str(want.region)
    )
    return f"{value.id} is declared {declared}, but the task makes {derived}"
