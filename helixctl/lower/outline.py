"""What one rank does, whatever the sizes: the tasks of all layouts whose axes differ in size alone.

The builder lowers one of these layouts, with shares that remember which cut they are of. The same tasks for another
layout are then its shares of the same cuts, without walking the equations again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from helixctl.dag import Dag, Level, Op, Task, Tensor, Value
from helixctl.dag.formulas import flops, nbytes
from helixctl.lower.builder import Builder
from helixctl.plan import Interval, Layout
from helixctl.plan.layout import Axis, Microbatch
from helixctl.plan.sharding import Cut, Sharding, Shares
from helixctl.program import Kernel, kernels
from helixctl.spec import Dtype


class Piece(NamedTuple):
    """A value without its region.

    Attributes:
        tensor: the tensor that it is a region of.
        sharding: how that is cut.
        dtype: of its numbers.
    """

    tensor: str
    sharding: Sharding
    dtype: Dtype | Literal["int64"]


class OutlinedTask(NamedTuple):
    """A task without sizes.

    Attributes:
        level, op: as the task has them.
        axis: along which the ranks of a collective differ; empty for a computation, and between two stages.
        inputs, outputs: the pieces that are on the rank.
        fresh: whether each piece, inputs before outputs, is met here for the first time.
        new_at_level: whether it is met for the first time at the task's level.
        kernel: whether a kernel computes the task alone.
    """

    level: Level
    op: Op
    axis: Axis | Literal[""]
    inputs: tuple[Piece, ...]
    outputs: tuple[Piece, ...]
    fresh: tuple[bool, ...]
    new_at_level: tuple[bool, ...]
    kernel: Kernel

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Inputs, then outputs."""
        return (*self.inputs, *self.outputs)

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """Every cut of a piece, each once."""
        return tuple(dict.fromkeys(cut for piece in self.pieces for cut in piece.sharding.cuts))


class Outline(NamedTuple):
    """The tasks of one rank, in the order in which they are lowered, and the tensors that they are about."""

    tasks: tuple[OutlinedTask, ...]
    tensors: Mapping[str, Tensor]


def task_of(
    outlined: OutlinedTask,
    name: str,
    tensors: Mapping[str, Tensor],
    shares: Shares,
    rank: int,
    batch: Microbatch,
    ranks: tuple[int, ...],
) -> tuple[Task, list[Value]]:
    """The task in one layout, and its values on a rank.

    Args:
        outlined: what is done.
        name: the task's id, with which those of its values begin.
        tensors: of the outline.
        shares: of the layout.
        rank: whose values.
        batch: the microbatch.
        ranks: that take part.
    """

    def value_of(place: int, piece: Piece) -> Value:
        region = shares.region(tensors[piece.tensor].dims, piece.sharding, rank, batch)
        return Value(f"{name}.{place}", piece.tensor, rank, region, piece.dtype)

    # What is read twice is one value: attention reads a latent as keys and as values, from memory once.
    given: dict[Piece, Value] = {}
    inputs = [given.setdefault(piece, value_of(place, piece)) for place, piece in enumerate(outlined.inputs)]
    outputs = [value_of(place, piece) for place, piece in enumerate(outlined.outputs, len(inputs))]
    values = inputs + outputs
    ends = tuple([v.id for v in inputs]), tuple([v.id for v in outputs])
    work = flops(outlined.op, inputs, outputs, tensors)
    moved = nbytes(outlined.op, len(ranks), inputs, outputs, tensors)
    return Task(name, 0, outlined.level, outlined.op, ranks, *ends, work, moved), values


class _Share(tuple[int, int]):  # noqa: SLOT001  it has an attribute
    """An interval that remembers which cut it is a share of."""

    cut: Cut

    @classmethod
    def of(cls, cut: Cut, interval: Interval) -> _Share:
        share = cls(interval)
        share.cut = cut
        return share


class Outliner(Builder):
    """A builder whose values can be told apart from their sizes."""

    def cut(self, sharding: Sharding, rank: int) -> dict[str, Interval]:
        """As a builder's, with the cuts."""
        cuts = {cut.dim: cut for cut in (*sharding.cuts, *sharding.partial)}
        return {dim: _Share.of(cuts[dim], interval) for dim, interval in super().cut(sharding, rank).items()}

    def outline(self) -> Outline:
        """What was lowered."""
        dag = self.build(part=True)
        return Outline(tuple(_outlined(self.layout, dag)), dag.tensor)


def _outlined(layout: Layout, dag: Dag) -> Iterable[OutlinedTask]:
    met = set[object]()
    merged = {
        name: kernel for rank, order in enumerate(dag.order) if order for name, kernel in kernels(dag, rank).items()
    }
    for task in dag.tasks:
        names = (*task.inputs, *task.outputs)
        pieces = [_piece(dag.value[name]) for name in names]
        at_level = [(task.level, name) for name in names]
        fresh, new = (tuple([one not in met for one in its]) for its in (names, at_level))
        met.update((*names, *at_level))
        ends = tuple(pieces[: len(task.inputs)]), tuple(pieces[len(task.inputs) :])
        yield OutlinedTask(task.level, task.op, _axis(layout, task), *ends, fresh, new, merged.get(task.id, "own"))


def _piece(value: Value) -> Piece:
    cuts = tuple([interval.cut for interval in value.region if isinstance(interval, _Share)])
    return Piece(value.tensor, Sharding(cuts), value.dtype)


def _axis(layout: Layout, task: Task) -> Axis | Literal[""]:
    """The axis along which the ranks of a collective differ; where an axis has one share it may be either."""
    if not task.is_collective or task.level == "transfer":
        return ""
    stage, replica = layout.team_of(task.ranks[0])
    if layout.team_of(task.ranks[-1])[1] != replica:
        return "replicas" if len(task.ranks) == layout.expert_data and layout.partitions > 1 else "spread"
    if len(task.ranks) == layout.partitions:
        return "tensor"
    group = layout.group_of(task.ranks[0])
    return "slices" if task.ranks == layout.ranks_of_group(group, stage, replica) else "groups"
