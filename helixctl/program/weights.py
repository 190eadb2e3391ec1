"""Weights as kernels take them, and the bytes that they are held in."""

from __future__ import annotations

from math import prod

from helixctl.dag.storage import held_nbytes
from helixctl.program.actions import Weights
from helixctl.program.axes import Axes, plain
from helixctl.program.draft import Draft
from helixctl.program.view import Buffer, View, row_major


def held(draft: Draft, value_id: str, axes: Axes = ()) -> Weights:
    """A weight as it is loaded; a kernel that wants its axes in another order takes a view of it."""
    draft.weights.setdefault(Weights((value_id,)), _nbytes(draft, value_id))
    return Weights((value_id,), axes)


def side_by_side(draft: Draft, values: tuple[str, ...], rows: Axes) -> Weights:
    """The weights of one product side by side: a matrix with rows in the order of its left operand's columns."""
    weights = Weights(values, rows)
    if weights not in draft.weights:
        raw = Weights(values)
        if raw in draft.weights and _is_view(draft, values[0], rows):  # a table that embeds as well: once in memory
            draft.weights[weights] = 0
        else:
            draft.weights[weights] = sum(_nbytes(draft, v) for v in values)
    return weights


def _nbytes(draft: Draft, value_id: str) -> int:
    return held_nbytes(draft.dag.value[value_id], draft.dag.tensor)


def _is_view(draft: Draft, value_id: str, rows: Axes) -> bool:
    """Whether a weight as it is loaded is a matrix with such rows."""
    value = draft.dag.value[value_id]
    loaded = Buffer(View(0, value.dtype, 0, value.shape, row_major(value.shape)), plain(draft.dag, value))
    summed = {a.dim for a in rows}
    cut = loaded.split({d: tuple(a.size for a in sorted(rows, key=lambda a: a.part) if a.dim == d) for d in summed})
    kept = [a for a in cut.axes if a.dim not in summed]
    view = cut.in_order([*rows, *kept]).merged(len(rows))
    return view is not None and view.numel == prod(value.shape)
