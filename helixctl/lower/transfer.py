"""Level ``transfer``: the residual stream goes from one pipeline stage to the next."""

from __future__ import annotations

from helixctl.dag import SendReceive
from helixctl.dag.function import hidden_states
from helixctl.lower.builder import Builder


def transfer(b: Builder, layer: int) -> None:
    """Ahead of a stage's first layer every rank of the stage before sends what it holds to its counterpart."""
    if b.stage == 0 or layer != b.layout.layers(b.stage, b.model)[0]:
        return
    before = b.layout.team(b.stage - 1, b.replica)
    for index, (source, target) in enumerate(zip(before, b.team, strict=True)):
        tensor = hidden_states(b.model, layer)
        b.collective(layer, "transfer", f"send.{index}", SendReceive(), (source, target), tensor, "received")
