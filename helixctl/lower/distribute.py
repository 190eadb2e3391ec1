"""Level ``distribute``: the input reaches every device, and each makes its own Q, K and V."""

from __future__ import annotations

from helixctl.dag import Broadcast
from helixctl.lower.builder import Builder


def distribute(b: Builder, layer: int) -> None:
    """Broadcast the model's input (first layer only), normalise it, and project it on this rank's heads and dims."""
    if layer == 0:
        b.own("input", b.team[0])
        b.collective(0, "distribute", "broadcast", Broadcast(), b.team, "input", "copy")
    p = f"l{layer}."
    for rank in b.ranks:
        cut = {"head": b.layout.heads(rank, b.model), "head_dim": b.layout.head_dims(rank, b.model)}
        b.own(p + "attention_norm", rank)
        for weight in ("w_q", "w_k", "w_v"):
            b.own(p + weight, rank, **cut)
        b.compute("distribute", "norm", rank, p + "attention_in")
        b.compute("distribute", "qkv", rank, p + "q", **cut)
