"""Level ``head``: the final norm, and logits, each device those of its part of the vocabulary.

Where only the last token of every sequence is wanted, every rank of the last stage is given the lengths: they are few,
and a broadcast would cost more than it moves.
"""

from __future__ import annotations

from helixctl.dag.function import LENGTH, head_weight
from helixctl.lower.builder import Builder


def head(b: Builder, layer: int) -> None:
    """Column-parallel by vocabulary; the logits stay where they are made."""
    vocabulary = b.model.vocabulary
    if layer != b.model.layers - 1 or vocabulary is None:
        return
    last = b.plan.workload.logits == "last"
    for rank in b.ranks:
        cut = {"vocab": b.layout.vocabulary(rank, vocabulary.size)}
        b.own("final_norm", rank)
        b.own(head_weight(vocabulary), rank, cut)
        if last:
            b.own(LENGTH, rank)
            b.compute("head", "last", rank, "last_hidden")
        b.compute("head", "norm", rank, "normed")
        b.compute("head", "logits", rank, "logits", cut)
