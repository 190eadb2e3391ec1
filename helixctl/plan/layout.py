"""Layout: how one attention layer is cut over the devices, and the index arithmetic that follows from it.

Partition (i, j) is head group i, slice j; it sits on rank ``i * slices + j``: slices innermost, so that a group stays
inside one host wherever it fits.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from helixctl.spec import Count, ModelSpec, Spec, WorkloadSpec

Whole = Annotated[int, Field(strict=True, ge=0)]
Interval = tuple[Whole, Whole]  # half-open


def share(size: int, parts: int, index: int) -> Interval:
    """The ``index``-th of ``parts`` equal pieces of ``range(size)``; ``parts`` divides ``size``."""
    piece = size // parts
    return (index * piece, (index + 1) * piece)


class Layout(Spec):
    """One point of the space of plans.

    Attributes:
        groups, slices: the heads in n groups, each group's work in m slices.
        combine: concat gathers the attention output and projects it by columns; reduce projects the local part by rows
            and sums (Megatron-LM).
        gather_order: of concat: slices_first puts each group together, then the groups (the paper's 1/16 -> 1/4 ->
            full); groups_first crosses the groups with the small pieces.
        data: replicas, each with its share of the batch.
        pipeline: stages, each with its share of the layers.
        microbatches: parts in which a replica's share of the batch goes through the layers.
    """

    groups: Count
    slices: Count
    slicing: Literal["head_dim"] = "head_dim"
    combine: Literal["concat", "reduce"] = "concat"
    gather_order: Literal["slices_first", "groups_first"] = "slices_first"
    data: Count = 1
    pipeline: Count = 1
    microbatches: Count = 1

    def __str__(self) -> str:
        """``8 x 2``: 8 groups of 2 slices; then every axis that is not at its default."""
        axes = [
            f"{name} {getattr(self, name)}" for name in ("data", "pipeline", "microbatches") if getattr(self, name) > 1
        ]
        axes += [getattr(self, name) for name in ("combine", "gather_order") if name in self._apart]
        return ", ".join([f"{self.groups} x {self.slices}", *axes])

    @property
    def _apart(self) -> set[str]:
        return {
            name for name in type(self).model_fields if getattr(self, name) != type(self).model_fields[name].default
        }

    @property
    def partitions(self) -> int:
        """Partitions of a layer: m x n, one per device of a team."""
        return self.groups * self.slices

    @property
    def devices(self) -> int:
        """Devices of all stages and replicas."""
        return self.partitions * self.data * self.pipeline

    def team(self, stage: int, replica: int) -> range:
        """The ranks that together hold one stage of one replica, by partition."""
        first = (stage * self.data + replica) * self.partitions
        return range(first, first + self.partitions)

    def group_of(self, rank: int) -> int:
        """The head group of a rank."""
        return rank % self.partitions // self.slices

    def slice_of(self, rank: int) -> int:
        """The slice of a rank inside its group."""
        return rank % self.slices

    def ranks_of_group(self, group: int, stage: int = 0, replica: int = 0) -> tuple[int, ...]:
        """The ranks of one group, by slice."""
        return tuple(self.team(stage, replica)[group * self.slices : (group + 1) * self.slices])

    def ranks_of_slice(self, slice_: int, stage: int = 0, replica: int = 0) -> tuple[int, ...]:
        """The ranks of one slice position, by group."""
        return tuple(self.team(stage, replica)[slice_ :: self.slices])

    def heads(self, rank: int, model: ModelSpec) -> Interval:
        """The heads of a rank's group."""
        return share(model.attention.heads, self.groups, self.group_of(rank))

    def head_dims(self, rank: int, model: ModelSpec) -> Interval:
        """The dims of every head that a rank's slice owns."""
        return share(model.attention.head_dim, self.slices, self.slice_of(rank))

    def columns(self, rank: int, model: ModelSpec) -> Interval:
        """The columns of the output projection that a rank owns (concat)."""
        return share(model.hidden_size, self.partitions, rank % self.partitions)

    def ffn(self, rank: int, model: ModelSpec) -> Interval:
        """The feed-forward width that a rank owns."""
        return share(model.feed_forward.intermediate_size, self.partitions, rank % self.partitions)

    def layers(self, stage: int, model: ModelSpec) -> range:
        """The layers of a stage: as even as can be, the first stages one more."""
        size, more = divmod(model.layers, self.pipeline)
        first = stage * size + min(stage, more)
        return range(first, first + size + (stage < more))

    def batch(self, replica: int, microbatch: int, workload: WorkloadSpec) -> Interval:
        """The sequences of a microbatch of a replica."""
        parts = self.data * self.microbatches
        return share(workload.batch, parts, replica * self.microbatches + microbatch)


def illegalities(layout: Layout, model: ModelSpec, workload: WorkloadSpec, devices: int) -> list[str]:
    """Why this layout cannot compute this model and workload on so many devices; empty where it can.

    Each reason is one clause, fit for a table: "8 slices would cut a softmax of 128 dims".
    """
    attention, reasons = model.attention, []
    if layout.devices != devices:
        reasons.append(f"{layout} takes {layout.devices} devices; there are {devices}")
    if attention.heads % layout.groups:
        reasons.append(f"{layout.groups} groups do not divide {attention.heads} heads")
    if attention.head_dim % layout.slices:
        reasons.append(f"{layout.slices} slices do not divide a head of {attention.head_dim} dims")
    elif attention.softmax_slices % layout.slices:
        reasons.append(f"{layout.slices} slices would cut a softmax of {attention.softmax_width} dims")
    if layout.combine == "concat" and model.hidden_size % layout.partitions:
        reasons.append(f"{layout.partitions} partitions do not divide a hidden size of {model.hidden_size}")
    if model.feed_forward.intermediate_size % layout.partitions:
        size = model.feed_forward.intermediate_size
        reasons.append(f"{layout.partitions} partitions do not divide a feed-forward width of {size}")
    if model.layers < layout.pipeline:
        reasons.append(f"{layout.pipeline} stages for {model.layers} layers")
    if workload.batch % (layout.data * layout.microbatches):
        parts = f"{layout.data} replicas x {layout.microbatches} microbatches"
        reasons.append(f"{parts} do not divide a batch of {workload.batch}")
    return reasons


def full_extents(model: ModelSpec, workload: WorkloadSpec) -> dict[str, int]:
    """The size of every named dim of a model's tensors under a workload."""
    return {
        "batch": workload.batch,
        "seq": workload.seq_len,
        "hidden": model.hidden_size,
        "head": model.attention.heads,
        "head_dim": model.attention.head_dim,
        "ffn": model.feed_forward.intermediate_size,
    }
