"""Level ``project``: the output projection, put together and added to the residual stream."""

from __future__ import annotations

from helixctl.dag import AllGather, AllReduce, AllToAll
from helixctl.dag.function import projection
from helixctl.lower.builder import Builder


def project(b: Builder, layer: int) -> None:
    """By columns from the whole attention output and a gather (concat), or by rows from the part and a sum (reduce)."""
    p = f"l{layer}."
    concat = b.layout.combine == "concat"
    if not concat:
        _return(b, layer)
    for rank in b.ranks:
        cut = {"hidden": b.layout.columns(rank, b.model)} if concat else b.head_dims(rank)
        b.own(p + "w_o", rank, cut)
        b.compute("project", "linear", rank, p + "projection", cut)
    if concat:
        b.collective(layer, "project", "gather", AllGather("hidden"), b.team, p + "projection", "full")
    else:
        b.collective(layer, "project", "reduce", AllReduce(), b.team, p + "projection", "full")
    for rank in b.ranks:
        if b.model.attention.output_bias:
            b.own(p + "b_o", rank)
            b.compute("project", "bias", rank, projection(b.model, layer))
        b.compute("project", "add", rank, p + "residual")


def _return(b: Builder, layer: int) -> None:
    """Give the slices of a group its heads' dims back, as the rows of the projection are cut."""
    if b.layout.shared_dim == "head_dim":
        return
    op = AllToAll("head_dim", b.layout.shared_dim)
    for group, ranks in b.groups:
        b.collective(layer, "project", f"return.g{group}", op, ranks, f"l{layer}.attention", "sliced", b.head_dims)
