"""Level ``attend``: every device attends over its own heads and head dims, and no softmax is cut."""

from __future__ import annotations

from helixctl.lower.builder import Builder


def attend(b: Builder, layer: int) -> None:
    """One attention task a rank."""
    for rank in b.ranks:
        cut = {"head": b.layout.heads(rank, b.model), "head_dim": b.layout.head_dims(rank, b.model)}
        b.compute("attend", "", rank, f"l{layer}.attention", **cut)
