"""How large a dag becomes: what is too large for any machine to work with is refused before it is begun."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from helixctl.errors import Diagnostic
from helixctl.plan.document import Plan
from helixctl.plan.layout import Layout

# Tasks of one rank, layer and microbatch, about.
TASKS_OF_A_LAYER: Final = 13
# Tasks of the dag of a plan: the one limit of all commands, and of what the search chooses. Only runs lower all.
MOST_TASKS: Final = 16_000_000
# Tasks that are lowered and proved whole: a quarter of a minute's work. Documents of dags are shorter.
MANY_TASKS: Final = 200_000
# What it takes to lower a task (tests/benchmarks/scale.py).
SECONDS_OF_A_TASK: Final = 25e-6
NBYTES_OF_A_TASK: Final = 1_100


def about(
    plan: Plan,
    ranks: Collection[int] | None = None,
    layers: Collection[int] | None = None,
    parts: range | None = None,
) -> int:
    """About how many tasks a plan is lowered to; of these ranks, layers and microbatches where they are given."""
    layout = plan.layout
    depth = plan.model.layers if layers is None else len(layers)
    return tasks_of(layout, depth, None if ranks is None else len(ranks), None if parts is None else len(parts))


def tasks_of(layout: Layout, layers: int, ranks: int | None = None, microbatches: int | None = None) -> int:
    """About how many tasks a layout of a model is lowered to, by its number of layers."""
    parts = layout.microbatches if microbatches is None else microbatches
    held = (layout.devices if ranks is None else ranks) * layers // layout.pipeline  # a rank has its stage's layers
    return TASKS_OF_A_LAYER * parts * max(1, held)


def too_large(tasks: int, what: str, most: int | None = None) -> Diagnostic | None:
    """HX305, if the tasks are more than ``MOST_TASKS``, or than ``most``; ``what`` begins the message."""
    most = MOST_TASKS if most is None else most
    if tasks <= most:
        return None
    message = f"{what} is lowered to about {tasks:,} tasks; {most:,} are the most that are worked with"
    return Diagnostic("HX305", message, "fewer devices, layers or microbatches make fewer tasks")
