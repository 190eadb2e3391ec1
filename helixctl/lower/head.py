"""Level ``head``: the final norm, and logits, each device those of its part of the vocabulary."""

from __future__ import annotations

from helixctl.dag.function import head_weight
from helixctl.lower.builder import Builder


def head(b: Builder, layer: int) -> None:
    """Column-parallel by vocabulary; the logits stay where they are made."""
    vocabulary = b.model.vocabulary
    if layer != b.model.layers - 1 or vocabulary is None:
        return
    for rank in b.ranks:
        cut = {"vocab": b.layout.vocabulary(rank, vocabulary.size)}
        b.own("final_norm", rank)
        b.own(head_weight(vocabulary), rank, cut)
        b.compute("head", "norm", rank, "normed")
        b.compute("head", "logits", rank, "logits", cut)
