"""What every rank receives in a collective, derived from what the ranks send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from helixctl.dag import AllGather, AllToAll, Dag, Narrow, ReduceScatter, Task, Value
from helixctl.dag.document import shares
from helixctl.plan import Interval
from helixctl.verify.findings import partial_text
from helixctl.verify.rule import (
    Made,
    RuleError,
    axis_of,
    extents_of,
    interval,
    op_of,
    summed,
    whole_sum,
    without,
)
from helixctl.verify.tiling import bounding, untiled


def _broadcast(_: Dag, task: Task, values: list[Value]) -> list[Made]:
    return [Made(values[0].region, values[0].partial, values[0].dtype)] * len(task.outputs)


def _all_gather(dag: Dag, task: Task, pieces: list[Value]) -> list[Made]:
    region = _joined(dag, pieces, op_of(task, AllGather).dim)
    return [Made(region, pieces[0].partial, pieces[0].dtype)] * len(task.outputs)


def _all_to_all(dag: Dag, task: Task, pieces: list[Value]) -> list[Made]:
    """Where the ranks' shares of ``split`` begin and end is the outputs' to say, if they tile it in order."""
    op, first = op_of(task, AllToAll), pieces[0]
    if op.split == op.gather:
        raise RuleError(f"splits and gathers the same dim, {op.split}")
    region = _joined(dag, pieces, op.gather)
    axis = axis_of(dag.tensor[first.tensor], op.split)
    return [Made(its, first.partial, first.dtype) for its in _shares(dag, task, region, axis)]


def _shares(dag: Dag, task: Task, region: tuple[Interval, ...], axis: int) -> list[tuple[Interval, ...]]:
    """What every rank receives of a region that all share: the outputs' shares, if they tile it in order."""
    dim, stop, found = dag.tensor[dag.value[task.inputs[0]].tensor].dims[axis], region[axis][0], []
    for out in (dag.value[v] for v in task.outputs):
        share = out.region[axis]
        if share[0] != stop:
            message = f"{out.id} begins at {dim} {share[0]}, but the shares before it end at {stop}"
            raise RuleError(message, out.id)
        stop = share[1]
        found.append((*region[:axis], share, *region[axis + 1 :]))
    if stop != region[axis][1]:
        message = f"its shares of {dim} end at {stop}, the pieces at {region[axis][1]}"
        raise RuleError(message, task.outputs[-1])
    return found


def _joined(dag: Dag, pieces: list[Value], dim: str) -> tuple[Interval, ...]:
    """The region of pieces that lie side by side along a dim, and are alike in all else."""
    first = pieces[0]
    axis = axis_of(dag.tensor[first.tensor], dim)
    stop = first.region[axis][0]
    for piece in pieces:
        same = piece.tensor == first.tensor and piece.dtype == first.dtype and piece.partial == first.partial
        if not same or without(piece.region, axis) != without(first.region, axis):
            msg = f"gathers {first.id} and {piece.id}, which differ in more than {dim}"
            raise RuleError(msg)
        if piece.region[axis][0] != stop:
            msg = f"{piece.id} begins at {dim} {piece.region[axis][0]}, but the pieces before it end at {stop}"
            raise RuleError(msg)
        stop = piece.region[axis][1]
    return (*first.region[:axis], (first.region[axis][0], stop), *first.region[axis + 1 :])


def _send_receive(_: Dag, __: Task, values: list[Value]) -> list[Made]:
    return [Made(values[0].region, values[0].partial, values[0].dtype)]


def _all_reduce(dag: Dag, task: Task, pieces: list[Value]) -> list[Made]:
    return [_sum(dag, task, pieces)] * len(task.outputs)


def _reduce_scatter(dag: Dag, task: Task, pieces: list[Value]) -> list[Made]:
    """Of the sum every rank receives its share."""
    whole = _sum(dag, task, pieces)
    axis = axis_of(dag.tensor[pieces[0].tensor], op_of(task, ReduceScatter).dim)
    return [Made(its, whole.partial, whole.dtype) for its in _shares(dag, task, whole.region, axis)]


def _packed(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    """Every move by its own rule."""
    parts = task.parts
    return [
        made
        for part, its in zip(parts, shares(values, len(parts)), strict=True)
        for made in EXCHANGED[part.kind](dag, part, list(its))
    ]


def _narrow(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    """A part of one dim, which the output tells, if the input has it."""
    (value,), out = values, dag.value[task.outputs[0]]
    whole_sum(value)
    axis = axis_of(dag.tensor[value.tensor], op_of(task, Narrow).dim)
    (start, stop), part = value.region[axis], out.region[axis]
    if not start <= part[0] < part[1] <= stop:
        dim = dag.tensor[value.tensor].dims[axis]
        message = f"keeps {dim} {interval(part)} of {value.id}, which has {interval(value.region[axis])}"
        raise RuleError(message, out.id)
    return [Made((*value.region[:axis], part, *value.region[axis + 1 :]), (), value.dtype)]


def _sum(dag: Dag, task: Task, pieces: list[Value]) -> Made:
    """The sum of all ranks' partial sums."""
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
    for term in summed(dag, dims):
        of_term = [tuple(box[dims.index(dim)] for dim in term) for box in boxes]
        if len(set(of_term)) < len(of_term) or untiled(tuple(of_term), bounding(of_term), tuple(term)):
            text = "; ".join(f"{p.id} {partial_text(p.partial)}" for p in pieces)
            msg = f"the partial sums do not meet without gap or overlap: {text}"
            raise RuleError(msg)
    whole = bounding(boxes)
    extents = extents_of(dag, first.tensor)
    if unknown := [dim for dim in dims if dim not in extents]:
        raise RuleError(f"{first.id} is {partial_text(first.partial)}, and the model has no {unknown[0]}")
    partial = tuple((dim, iv) for dim, iv in zip(dims, whole, strict=True) if iv != (0, extents[dim]))
    return Made(first.region, partial, first.dtype)


EXCHANGED: Final[dict[str, Callable[[Dag, Task, list[Value]], list[Made]]]] = {
    "broadcast": _broadcast,
    "all_to_all": _all_to_all,
    "all_gather": _all_gather,
    "all_reduce": _all_reduce,
    "reduce_scatter": _reduce_scatter,
    "packed": _packed,
    "narrow": _narrow,
    "send_receive": _send_receive,
}
