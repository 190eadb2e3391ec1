"""Level ``concat``: the attention output is put together on every device of the team."""

from __future__ import annotations

from helixctl.dag import AllGather
from helixctl.lower.builder import Builder, Cut, whole


def concat(b: Builder, layer: int) -> None:
    """Gather inside the groups and across them, in the layout's order; no task where the layout reduces.

    slices_first goes from 1/(m n) to 1/n inside each group, then to the whole across groups. The gather across groups
    is one task per slice position: the ranks at the same position exchange what they have, so that all end with the
    whole. groups_first goes the other way: across groups with the small pieces, then inside each group.
    """
    if b.layout.combine != "concat":
        return
    tensor = f"l{layer}.attention"
    shared = b.layout.shared_dim
    inside, across = AllGather(shared), AllGather("head")
    first = b.layout.gather_order == "slices_first"

    def group_of(rank: int) -> Cut:
        return {"head": b.heads(rank)["head"]}

    def slice_of(rank: int) -> Cut:
        return {shared: b.attended(rank)[shared]}

    if first:
        for group, ranks in b.groups:
            b.collective(layer, "concat", f"slices.g{group}", inside, ranks, tensor, "group", group_of)
    for position, ranks in b.crossings:
        stage, cut = ("full", whole) if first else ("slice", slice_of)
        b.collective(layer, "concat", f"groups.s{position}", across, ranks, tensor, stage, cut)
    if not first:
        for group, ranks in b.groups:
            b.collective(layer, "concat", f"slices.g{group}", inside, ranks, tensor, "full")
