"""plan -> dag, one file per level of a layer."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import product
from typing import Final, Protocol

from helixctl.dag import Dag
from helixctl.errors import HelixError
from helixctl.lower.attend import attend
from helixctl.lower.builder import Builder
from helixctl.lower.concat import concat
from helixctl.lower.distribute import distribute
from helixctl.lower.embed import embed
from helixctl.lower.exchange import exchange
from helixctl.lower.feed_forward import feed_forward
from helixctl.lower.head import head
from helixctl.lower.project import project
from helixctl.lower.transfer import transfer
from helixctl.plan import Plan
from helixctl.plan.size import about, too_large


class Lowering(Protocol):
    """Adds one level of one layer to the dag."""

    def __call__(self, b: Builder, layer: int, /) -> None:
        """Add the level."""


LOWERINGS: Final[tuple[Lowering, ...]] = (
    embed,
    transfer,
    distribute,
    exchange,
    attend,
    concat,
    project,
    feed_forward,
    head,
)


def lower(
    plan: Plan,
    only: Collection[int] | None = None,
    layers: range | None = None,
    microbatches: range | None = None,
) -> Dag:
    """The dag of a plan whose layout is legal for its model.

    ``only`` lowers these ranks and leaves the others out, and so do ``layers`` and ``microbatches``: no document (its
    plan digest is empty), but enough to price the plan or to draw a layer. Where the layers do not begin with the
    first, the residual stream before them is given.

    Raises:
        HelixError: HX305: it has more tasks than can be worked with.
    """
    tasks = about(plan, only, layers, microbatches)
    if refused := too_large(tasks, f"layout {plan.layout}"):
        raise HelixError(refused)
    part = not (only is None and layers is None and microbatches is None)
    builder, layout = Builder(plan, only), plan.layout
    parts = range(layout.microbatches) if microbatches is None else microbatches
    teams: Iterable[tuple[int, int]] = product(range(layout.pipeline), range(layout.data))
    if only is not None:
        teams = sorted({layout.team_of(rank) for rank in only})
    for microbatch, (stage, replica) in product(parts, tuple(teams)):
        builder.enter(stage, replica, microbatch)
        for layer in layout.layers(stage, plan.model):
            if layers is None or layer in layers:
                if layers is not None and layer == layers.start > 0:
                    builder.begin(layer)
                for level in LOWERINGS:
                    level(builder, layer)
    return builder.build(part=part)


__all__ = ["LOWERINGS", "Lowering", "lower"]
