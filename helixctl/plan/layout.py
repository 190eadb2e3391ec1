"""Layout: how one attention layer is cut over the devices, and the index arithmetic that follows from it.

Partition (i, j) is head group i, slice j; it sits on rank ``i * slices + j``: slices innermost, so that a group stays
inside one host wherever it fits.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from helixctl.spec import ModelSpec, WorkloadSpec
from helixctl.spec.models import Count, Spec

Whole = Annotated[int, Field(strict=True, ge=0)]
Interval = tuple[Whole, Whole]  # half-open


def share(size: int, parts: int, index: int) -> Interval:
    """The ``index``-th of ``parts`` equal pieces of ``range(size)``; ``parts`` divides ``size``."""
    piece = size // parts
    return (index * piece, (index + 1) * piece)


class Layout(Spec):
    """One point of the space of plans: heads in ``groups``, each group in ``slices``."""

    groups: Count
    slices: Count
    slicing: Literal["head_dim"] = "head_dim"
    combine: Literal["concat"] = "concat"
    gather_order: Literal["slices_first"] = "slices_first"

    def __str__(self) -> str:
        """``8 x 2``: 8 groups of 2 slices."""
        return f"{self.groups} x {self.slices}"

    @property
    def devices(self) -> int:
        """One partition per device: m x n."""
        return self.groups * self.slices

    def rank(self, group: int, slice_: int) -> int:
        """The rank of partition (group, slice)."""
        return group * self.slices + slice_

    def group_of(self, rank: int) -> int:
        """The head group of a rank."""
        return rank // self.slices

    def slice_of(self, rank: int) -> int:
        """The slice of a rank inside its group."""
        return rank % self.slices

    def ranks_of_group(self, group: int) -> tuple[int, ...]:
        """The ranks of one group, by slice."""
        return tuple(self.rank(group, s) for s in range(self.slices))

    def ranks_of_slice(self, slice_: int) -> tuple[int, ...]:
        """The ranks of one slice position, by group."""
        return tuple(self.rank(g, slice_) for g in range(self.groups))

    def heads(self, rank: int, model: ModelSpec) -> Interval:
        """The heads of a rank's group."""
        return share(model.attention.heads, self.groups, self.group_of(rank))

    def head_dims(self, rank: int, model: ModelSpec) -> Interval:
        """The dims of every head that a rank's slice owns."""
        return share(model.attention.head_dim, self.slices, self.slice_of(rank))

    def columns(self, rank: int, model: ModelSpec) -> Interval:
        """The columns of the output projection that a rank owns."""
        return share(model.hidden_size, self.devices, rank)

    def ffn(self, rank: int, model: ModelSpec) -> Interval:
        """The feed-forward width that a rank owns."""
        return share(model.feed_forward.intermediate_size, self.devices, rank)


def illegalities(layout: Layout, model: ModelSpec, devices: int) -> list[str]:
    """Why this layout cannot compute this model on so many devices; empty where it can.

    Each reason is one clause, fit for a table: "8 slices would cut a softmax of 128 dims".
    """
    attention, reasons = model.attention, []
    if layout.devices != devices:
        reasons.append(f"{layout} makes {layout.devices} partitions for {devices} devices")
    if attention.heads % layout.groups:
        reasons.append(f"{layout.groups} groups do not divide {attention.heads} heads")
    if attention.head_dim % layout.slices:
        reasons.append(f"{layout.slices} slices do not divide a head of {attention.head_dim} dims")
    elif attention.softmax_slices % layout.slices:
        reasons.append(f"{layout.slices} slices would cut a softmax of {attention.softmax_width} dims")
    if model.hidden_size % layout.devices:
        reasons.append(f"{layout.devices} devices do not divide a hidden size of {model.hidden_size}")
    if model.feed_forward.intermediate_size % layout.devices:
        size = model.feed_forward.intermediate_size
        reasons.append(f"{layout.devices} devices do not divide a feed-forward width of {size}")
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
