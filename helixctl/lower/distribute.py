"""Level ``distribute``: the input reaches every device, and each makes its own Q, K and V."""

from __future__ import annotations

from helixctl.dag import Broadcast
from helixctl.dag.function import projected
from helixctl.lower.builder import Builder


def distribute(b: Builder, layer: int) -> None:
    """Broadcast hidden states given as input (first layer), normalise them, and project on this rank's heads and dims.

    Whatever the slicing: weights and K, V of a group are cut by head_dim, so that each device holds 1/(m n) of them.
    """
    if layer == 0 and b.model.vocabulary is None:
        b.own("input", b.team[0])
        b.collective(0, "distribute", "broadcast", Broadcast(), b.team, "input", "copy")
    p, biased = f"l{layer}.", b.model.attention.qkv_bias
    for rank in b.ranks:
        cut = b.head_dims(rank)
        b.own(p + "attention_norm", rank)
        for name in "qkv":
            b.own(f"{p}w_{name}", rank, cut)
        b.compute("distribute", "norm", rank, p + "attention_in")
        b.compute("distribute", "qkv", rank, p + "q", cut)
        if biased:
            for name in "qkv":
                b.own(f"{p}b_{name}", rank, cut)
            b.compute("distribute", "bias", rank, projected(b.model, layer)[0], cut)
