"""How values lie in memory: their axes, from major to minor, and the order in which collectives send them.

A gather puts the ranks' pieces one after the other, so the gathered dim becomes the outermost axis of memory, whatever
its place in the tensor. What is gathered and then contracted is therefore sent with the contracted dims outermost: the
gathered whole is a matrix as it lies. All ranks of a collective must send in one order; it follows from the task and
from the regions of its values, so that no rank needs to know how another came by its piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from helixctl.dag import AllGather, Dag, Task, Value


class Axis(NamedTuple):
    """One axis of memory: the ``part``-th factor of a dim (0 is the most significant) and its size."""

    dim: str
    part: int
    size: int


Axes = tuple[Axis, ...]


def plain(dag: Dag, value: Value, leading: Sequence[str] = ()) -> Axes:
    """One axis per dim: ``leading`` first, then the others in the tensor's order."""
    return _plain(dag.tensor[value.tensor].dims, value.shape, tuple(leading))


@lru_cache(maxsize=1024)  # the layers of a model have values of the same few shapes
def _plain(dims: tuple[str, ...], shape: tuple[int, ...], leading: tuple[str, ...]) -> Axes:
    sizes = dict(zip(dims, shape, strict=True))
    return tuple([Axis(d, 0, sizes[d]) for d in (*leading, *[d for d in dims if d not in leading])])


def wire_order(dag: Dag, task: Task, contracted: Mapping[str, tuple[str, ...]], *, even: bool) -> tuple[str, ...]:
    """The dims that stand outermost in what the ranks of a collective send; the others follow in the tensor's order.

    Args:
        dag: the collective's dag.
        task: the collective.
        contracted: the dims over which the model's equations contract each tensor, in its order.
        even: whether the pieces of a gather are of one size.

    Returns:
        For a gather along a dim that is contracted afterwards: the contracted dims, those that are whole in the
        pieces first (an earlier gather has put them there), then the gathered one. Else nothing: the tensor's order.
    """
    if not isinstance(task.op, AllGather) or not even:
        return ()
    piece, dim = dag.value[task.inputs[0]], task.op.dim
    tensor = dag.tensor[piece.tensor]
    summed = contracted.get(tensor.name, ())
    if dim not in summed:
        return ()
    whole = {d for d, part, full in zip(tensor.dims, piece.region, tensor.full, strict=True) if part == full}
    others = [d for d in summed if d != dim]
    return (*[d for d in others if d in whole], dim, *[d for d in others if d not in whole])


def gathered(pieces: Axes, dim: str, ranks: int) -> Axes:
    """The axes of what an even gather makes of pieces that lie so, one axis per dim."""
    if pieces[0].dim == dim:
        return (Axis(dim, 0, ranks * pieces[0].size), *pieces[1:])
    deeper = [Axis(a.dim, 1, a.size) if a.dim == dim else a for a in pieces]
    return (Axis(dim, 0, ranks), *deeper)
