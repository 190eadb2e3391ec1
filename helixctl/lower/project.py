"""Level ``project``: the output projection, put together and added to the residual stream."""

from __future__ import annotations

from helixctl.dag import AllGather, AllReduce
from helixctl.lower.builder import Builder


def project(b: Builder, layer: int) -> None:
    """By columns from the whole attention output and a gather (concat), or by rows from the part and a sum (reduce)."""
    p = f"l{layer}."
    concat = b.layout.combine == "concat"
    for rank in b.ranks:
        if concat:
            cut = {"hidden": b.layout.columns(rank, b.model)}
        else:
            cut = {"head": b.layout.heads(rank, b.model), "head_dim": b.layout.head_dims(rank, b.model)}
        b.own(p + "w_o", rank, **cut)
        b.compute("project", "linear", rank, p + "projection", **cut)
    if concat:
        b.collective(layer, "project", "gather", AllGather("hidden"), b.team, p + "projection", "full")
    else:
        b.collective(layer, "project", "reduce", AllReduce(), b.team, p + "projection", "full")
    for rank in b.ranks:
        b.compute("project", "add", rank, p + "residual")
