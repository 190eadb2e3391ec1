"""Level ``embed``: token ids reach every device, and the table, cut by vocabulary, gives their hidden states."""

from __future__ import annotations

from helixctl.dag import AllReduce, Broadcast
from helixctl.lower.builder import Builder


def embed(b: Builder, layer: int) -> None:
    """Every rank looks up the tokens of its part of the vocabulary; a sum over the team has them all (Megatron-LM)."""
    if layer != 0 or b.model.vocabulary is None:
        return
    b.own("input_ids", b.team[0])
    b.collective(0, "embed", "broadcast", Broadcast(), b.team, "input_ids", "copy")
    for rank in b.ranks:
        cut = {"vocab": b.layout.vocabulary(rank, b.model.vocabulary.size)}
        b.own("embedding", rank, cut)
        b.compute("embed", "lookup", rank, "embedded", cut)
    b.collective(0, "embed", "reduce", AllReduce(), b.team, "embedded", "full")
