"""Level ``project``: the column-parallel output projection, gathered and added to the residual stream."""

from __future__ import annotations

from helixctl.dag import AllGather
from helixctl.lower.builder import Builder


def project(b: Builder, layer: int) -> None:
    """Every rank makes its columns from the whole attention output, then all ranks gather them."""
    p = f"l{layer}."
    for rank in b.ranks:
        columns = b.layout.columns(rank, b.model)
        b.own(p + "w_o", rank, hidden=columns)
        b.compute("project", "linear", rank, p + "projection", hidden=columns)
    b.collective(layer, "project", "gather", AllGather("hidden"), b.ranks, p + "projection", "full")
    for rank in b.ranks:
        b.compute("project", "add", rank, p + "residual")
