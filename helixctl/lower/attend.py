"""Level ``attend``: every device attends over its part of its group's work, and no softmax is cut."""

from __future__ import annotations

from helixctl.dag.function import attended
from helixctl.lower.builder import Builder


def attend(b: Builder, layer: int) -> None:
    """Queries and keys are normalised and rotated where the model does so, then one attention task a rank.

    Sliced by query, every slice of a group prepares all of the group's keys for itself.
    """
    p, attention = f"l{layer}.", b.model.attention
    query, key, _ = attended(b.model, layer)
    for rank in b.ranks:
        cut = b.attended(rank)
        keys = b.heads(rank) if b.layout.shared_dim == "seq" else cut
        if attention.qk_norm:
            for name, its in (("q", cut), ("k", keys)):
                b.own(f"{p}{name}_norm", rank)
                b.compute("attend", f"{name}_norm", rank, f"{p}{name}_normed", its)
        if attention.rotary:
            b.compute("attend", "rotate", rank, query, cut, {key: keys})
        b.compute("attend", "", rank, p + "attention", cut)
