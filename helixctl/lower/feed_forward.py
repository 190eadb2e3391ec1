"""Level ``feed_forward``: norm, up, activation, down, cut by the intermediate width, and one reduction."""

from __future__ import annotations

from helixctl.dag import AllReduce
from helixctl.dag.function import hidden_states
from helixctl.lower.builder import Builder


def feed_forward(b: Builder, layer: int) -> None:
    """Column-parallel up, row-parallel down (Megatron-LM, Shoeybi et al. 2019, section 3), partial sums in float32."""
    p = f"l{layer}."
    for rank in b.ranks:
        ffn = b.layout.ffn(rank, b.model)
        b.own(p + "feed_forward_norm", rank)
        b.own(p + "w_up", rank, ffn=ffn)
        b.own(p + "w_down", rank, ffn=ffn)
        b.compute("feed_forward", "norm", rank, p + "feed_forward_in")
        b.compute("feed_forward", "up", rank, p + "up", ffn=ffn)
        b.compute("feed_forward", "activation", rank, p + "activated", ffn=ffn)
        b.compute("feed_forward", "down", rank, p + "down", ffn=ffn)
    b.collective(layer, "feed_forward", "reduce", AllReduce(), b.ranks, p + "down", "full")
    for rank in b.ranks:
        b.compute("feed_forward", "add", rank, hidden_states(b.model, layer + 1))
