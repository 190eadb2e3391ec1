"""Level ``concat``: the attention output is put together inside each group, then across the groups."""

from __future__ import annotations

from helixctl.dag import AllGather
from helixctl.lower.builder import Builder


def concat(b: Builder, layer: int) -> None:
    """Gather 1/(m n) to 1/n inside each group, then to the whole across groups.

    The gather across groups is one task per slice position: the ranks that hold the same slice exchange what their
    groups have put together, so that every rank ends with the whole.
    """
    layout, tensor = b.layout, f"l{layer}.attention"
    for group in range(layout.groups):
        ranks = layout.ranks_of_group(group)
        heads = layout.heads(ranks[0], b.model)
        b.collective(layer, "concat", f"slices.g{group}", AllGather("head_dim"), ranks, tensor, "group", head=heads)
    for slice_ in range(layout.slices):
        ranks = layout.ranks_of_slice(slice_)
        b.collective(layer, "concat", f"groups.s{slice_}", AllGather("head"), ranks, tensor, "full")
