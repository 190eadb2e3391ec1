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
    experts, gated = b.model.feed_forward.experts, b.model.feed_forward.gated
    into = ("w_gate", "w_up") if gated else ("w_up",)
    for rank in b.ranks:
        cut = {"ffn": b.layout.ffn(rank, b.model)}
        b.own(p + "feed_forward_norm", rank)
        b.compute("feed_forward", "norm", rank, p + "feed_forward_in")
        if experts:
            cut["expert"] = b.layout.experts_of(rank, experts.count)
            b.own(p + "w_router", rank)
            for weight in (*into, "w_down"):
                b.own(p + weight, rank, cut)
            b.compute("feed_forward", "route", rank, p + "gates")
            b.compute("feed_forward", "experts", rank, p + "down", cut)
        else:
            for weight in (*into, "w_down"):
                b.own(p + weight, rank, cut)
            b.compute("feed_forward", "up", rank, p + "up", cut)
            b.compute("feed_forward", "activation", rank, p + "activated", cut)
            if gated:
                b.compute("feed_forward", "multiply", rank, p + "inner", cut)
            b.compute("feed_forward", "down", rank, p + "down", cut)
    b.collective(layer, "feed_forward", "reduce", AllReduce(), b.team, p + "down", "full")
    for rank in b.ranks:
        b.compute("feed_forward", "add", rank, hidden_states(b.model, layer + 1))
