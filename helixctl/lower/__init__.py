"""plan -> dag, one file per level of a layer."""

from __future__ import annotations

from collections.abc import Collection
from itertools import product
from typing import Final, Protocol

from helixctl.dag import Dag
from helixctl.lower.attend import attend
from helixctl.lower.builder import Builder
from helixctl.lower.concat import concat
from helixctl.lower.distribute import distribute
from helixctl.lower.feed_forward import feed_forward
from helixctl.lower.project import project
from helixctl.lower.transfer import transfer
from helixctl.plan import Plan


class Lowering(Protocol):
    """Adds one level of one layer to the dag."""

    def __call__(self, b: Builder, layer: int, /) -> None:
        """Add the level."""


LOWERINGS: Final[tuple[Lowering, ...]] = (transfer, distribute, attend, concat, project, feed_forward)


def lower(plan: Plan, only: Collection[int] | None = None) -> Dag:
    """The dag of a plan whose layout is legal for its model.

    ``only`` lowers these ranks and leaves the others out: no document, but enough to price the plan.
    """
    builder, layout = Builder(plan, only), plan.layout
    for microbatch, stage, replica in product(range(layout.microbatches), range(layout.pipeline), range(layout.data)):
        builder.enter(stage, replica, microbatch)
        for layer in layout.layers(stage, plan.model):
            for level in LOWERINGS:
                level(builder, layer)
    return builder.build()


__all__ = ["LOWERINGS", "Lowering", "lower"]
