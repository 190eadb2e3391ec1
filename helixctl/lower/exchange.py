"""Level ``exchange``: slices of heads become whole heads over a share of the sequences, or of the query rows."""

from __future__ import annotations

from helixctl.dag import AllGather, AllToAll
from helixctl.dag.function import projected
from helixctl.lower.builder import Builder


def exchange(b: Builder, layer: int) -> None:
    """Inside each group, where the slicing is by batch or by query.

    batch: Q, K and V change hands (all-to-all), so that every slice has whole heads of its sequences (Ulysses, Jacobs
    et al. 2023, with sequences for rows). query: so does Q, for its rows, and every slice receives all of K and V.
    """
    split = b.layout.shared_dim
    if split == "head_dim":
        return
    for name, tensor in zip("qkv", projected(b.model, layer), strict=True):
        gathered = split == "seq" and name != "q"
        op = AllGather("head_dim") if gathered else AllToAll(split, "head_dim")
        cut = b.heads if gathered else b.attended
        for group, ranks in b.groups:
            b.collective(layer, "exchange", f"{name}.g{group}", op, ranks, tensor, "whole", cut)
