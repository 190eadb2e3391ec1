"""How large a dag becomes: what is too large for any machine to work with is refused before it is begun."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from helixctl.errors import Diagnostic
from helixctl.plan.document import Plan

# Tasks of one rank, layer and microbatch, about.
TASKS_OF_A_LAYER: Final = 13
# Tasks of a dag that is lowered: a minute's work and 2 GB (tests/benchmarks/scale.py).
MOST_TASKS: Final = 1_000_000


def about(
    plan: Plan, ranks: Collection[int] | None = None, layers: range | None = None, parts: range | None = None
) -> int:
    """About how many tasks a plan is lowered to; of these ranks, layers and microbatches where they are given."""
    layout = plan.layout
    depth = plan.model.layers if layers is None else len(layers)
    stages = layout.devices if ranks is None else len(ranks)  # each has its share of the layers
    return (
        TASKS_OF_A_LAYER
        * (layout.microbatches if parts is None else len(parts))
        * max(1, stages * depth // layout.pipeline)
    )


def too_large(tasks: int, what: str) -> Diagnostic | None:
    """HX305, if so many tasks are more than are lowered; ``what`` begins the message."""
    if tasks <= MOST_TASKS:
        return None
    message = f"{what} is lowered to about {tasks:,} tasks; {MOST_TASKS:,} are the most that are worked with"
    return Diagnostic("HX305", message, "fewer devices, layers or microbatches make fewer tasks")
