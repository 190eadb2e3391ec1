"""How every value of a dag lies in memory: its axes, from major to minor, decided once for all ranks.

Ranks exchange bytes, so the ranks of a collective must lay out what they send in one way. And a gather puts the ranks'
pieces one after the other, so the gathered dim becomes the outermost axis of memory, whatever its place in the tensor;
what is gathered and then contracted is therefore made with the contracted dims outermost, so that the gathered whole is
a matrix as it lies. Pieces of different sizes travel padded, and what ranks cut up for an all-to-all travels in parts:
both are unpacked on arrival, and are plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from helixctl.dag import Activation, AllGather, AllReduce, Attention, Broadcast, Dag, Linear, SendReceive, Task
from helixctl.dag.dry_run import dry_run


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of memory: the ``part``-th factor of a dim (0 is the most significant) and its size."""

    dim: str
    part: int
    size: int


Axes = tuple[Axis, ...]


def axes_of(dag: Dag) -> dict[str, Axes]:
    """The axes of every value of every rank."""
    found = {value.id: plain(dag, value.id) for value in dag.values}
    for task in dry_run(dag).done:
        sent = as_sent(dag, found, task.inputs)
        for value_id in task.outputs:
            match task.op:
                case Attention():
                    found[value_id] = plain(dag, value_id, _contracted_later(dag, value_id))
                case Activation() | Broadcast() | AllReduce() | SendReceive():
                    found[value_id] = sent
                case AllGather(dim) if even(dag, task):
                    deeper = (Axis(a.dim, a.part + 1, a.size) if a.dim == dim else a for a in sent)
                    found[value_id] = (Axis(dim, 0, len(task.ranks)), *deeper)
    return found


def even(dag: Dag, gather: Task) -> bool:
    """Whether the pieces of a gather are of one size."""
    return len({dag.value[v].shape for v in gather.inputs}) == 1


def as_sent(dag: Dag, axes: dict[str, Axes], inputs: Sequence[str]) -> Axes:
    """How the ranks of a collective lay out what they send: as it is where all agree, else plain."""
    first = axes[inputs[0]]
    return first if all(axes[v] == first for v in inputs) else plain(dag, inputs[0])


def plain(dag: Dag, value_id: str, leading: Sequence[str] = ()) -> Axes:
    """One axis per dim: ``leading`` first, then the others in the tensor's order."""
    value = dag.value[value_id]
    dims = dag.tensor[value.tensor].dims
    sizes = dict(zip(dims, value.shape, strict=True))
    return tuple(Axis(d, 0, sizes[d]) for d in (*leading, *(d for d in dims if d not in leading)))


def _contracted_later(dag: Dag, value_id: str) -> tuple[str, ...]:
    """The dims over which a value is contracted once it has been gathered along them alone; else none."""
    rank, gathered = dag.value[value_id].rank, set[str]()
    while (uses := dag.consumers.get(value_id)) and isinstance(uses[0].op, AllGather) and even(dag, uses[0]):
        gathered.add(uses[0].op.dim)
        value_id = uses[0].outputs[uses[0].ranks.index(rank)]
    if gathered and uses and isinstance(uses[0].op, Linear) and gathered.issubset(uses[0].op.contract):
        contract = uses[0].op.contract
        return tuple(d for d in dag.tensor[dag.value[value_id].tensor].dims if d in contract)
    return ()
