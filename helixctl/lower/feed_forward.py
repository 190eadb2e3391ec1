"""Level ``feed_forward``: norm, then a network cut by its width and its experts, and one reduction."""

from __future__ import annotations

from helixctl.dag import AllReduce
from helixctl.dag.function import hidden_states
from helixctl.lower.builder import Builder


def feed_forward(b: Builder, layer: int) -> None:
    """Column-parallel up, row-parallel down (Megatron-LM, Shoeybi et al. 2019, section 3), and a sum over the team.

    Of a mixture of experts every rank has all tokens of its team: it routes them all, computes those of its experts
    (or its piece of them), and the same sum puts experts and pieces together. No token moves, and none is dropped.
    """
    p = f"l{layer}."
    experts = b.model.feed_forward.experts
    for rank in b.ranks:
        ffn = b.layout.ffn(rank, b.model)
        b.own(p + "feed_forward_norm", rank)
        b.compute("feed_forward", "norm", rank, p + "feed_forward_in")
        if experts:
            held = b.layout.experts_of(rank, experts.count)
            b.own(p + "w_router", rank)
            b.own(p + "w_up", rank, expert=held, ffn=ffn)
            b.own(p + "w_down", rank, expert=held, ffn=ffn)
            b.compute("feed_forward", "route", rank, p + "gates")
            b.compute("feed_forward", "experts", rank, p + "down", expert=held, ffn=ffn)
        else:
            b.own(p + "w_up", rank, ffn=ffn)
            b.own(p + "w_down", rank, ffn=ffn)
            b.compute("feed_forward", "up", rank, p + "up", ffn=ffn)
            b.compute("feed_forward", "activation", rank, p + "activated", ffn=ffn)
            b.compute("feed_forward", "down", rank, p + "down", ffn=ffn)
    b.collective(layer, "feed_forward", "reduce", AllReduce(), b.team, p + "down", "full")
    for rank in b.ranks:
        b.compute("feed_forward", "add", rank, hidden_states(b.model, layer + 1))
