"""What every rank receives in a collective, derived from what the ranks send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from helixctl.dag import AllGather, AllToAll, Dag, Task, Value
from helixctl.plan import Interval
from helixctl.plan.layout import full_extents
from helixctl.verify.findings import partial_text
from helixctl.verify.rule import Made, RuleError, axis_of, op_of, without
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
    stop, found = region[axis][0], []
    for out in (dag.value[v] for v in task.outputs):
        share = out.region[axis]
        if share[0] != stop:
            message = f"{out.id} begins at {op.split} {share[0]}, but the shares before it end at {stop}"
            raise RuleError(message, out.id)
        stop = share[1]
        found.append(Made((*region[:axis], share, *region[axis + 1 :]), first.partial, first.dtype))
    if stop != region[axis][1]:
        message = f"its shares of {op.split} end at {stop}, the pieces at {region[axis][1]}"
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
    if len(set(boxes)) < len(boxes) or untiled(boxes, whole, dims):
        summed = "; ".join(f"{p.id} {partial_text(p.partial)}" for p in pieces)
        msg = f"the partial sums do not meet without gap or overlap: {summed}"
        raise RuleError(msg)
    extents = full_extents(dag.plan.model, dag.plan.workload)
    if unknown := [dim for dim in dims if dim not in extents]:
        raise RuleError(f"{first.id} is {partial_text(first.partial)}, and the model has no {unknown[0]}")
    partial = tuple((dim, iv) for dim, iv in zip(dims, whole, strict=True) if iv != (0, extents[dim]))
    return [Made(first.region, partial, first.dtype)] * len(task.outputs)


EXCHANGED: Final[dict[str, Callable[[Dag, Task, list[Value]], list[Made]]]] = {
    "broadcast": _broadcast,
    "all_to_all": _all_to_all,
    "all_gather": _all_gather,
    "all_reduce": _all_reduce,
    "send_receive": _send_receive,
}
