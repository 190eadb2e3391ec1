"""plan -> dag: the model's equations cut over the ranks, and the collectives that this needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import product
from typing import TypeVar

from helixctl import collector
from helixctl.dag import Dag
from helixctl.dag.function import TOKEN
from helixctl.errors import HelixError
from helixctl.lower.builder import Builder
from helixctl.lower.equations import add_equations
from helixctl.lower.outline import Outline, OutlinedTask, Outliner, task_of
from helixctl.lower.reshard import distribute_input, receive, spread_tokens
from helixctl.plan import Plan
from helixctl.plan.size import about, too_large
from helixctl.spec import StepName

B = TypeVar("B", bound=Builder)


def lower(
    plan: Plan,
    only: Collection[int] | None = None,
    layers: Collection[int] | None = None,
    microbatches: range | None = None,
    step: StepName | None = None,
) -> Dag:
    """The dag of a plan whose layout is legal for its model.

    ``only`` lowers these ranks and leaves the others out, and so do ``layers`` and ``microbatches``: no document (its
    plan digest is empty), but enough to price the plan or to draw a layer. Where the layer before one is left out, the
    residual stream that enters it is given. ``step`` names a step of the plan; by default it is the first.

    Raises:
        HelixError: HX305: it has more tasks than can be worked with.
    """
    tasks = about(plan, only, layers, microbatches)
    if refused := too_large(tasks, f"layout {plan.layout}"):
        raise HelixError(refused)
    part = not (only is None and layers is None and microbatches is None)
    with collector.paused():
        return _filled(Builder(plan, step, only), only, layers, microbatches).build(part=part)


def outline_of(plan: Plan, rank: int) -> Outline:
    """What one rank does in the first microbatch of a plan, apart from sizes: see ``helixctl.lower.outline``."""
    with collector.paused():
        return _filled(Outliner(plan, only={rank}), {rank}, None, range(1)).outline()


def _filled(builder: B, only: Collection[int] | None, layers: Collection[int] | None, microbatches: range | None) -> B:
    """A builder with all tasks, stage by stage of every replica and microbatch; replicas that share experts as one."""
    plan, layout = builder.plan, builder.layout
    parts = range(layout.microbatches) if microbatches is None else microbatches
    teams: Iterable[tuple[int, int]] = product(range(layout.pipeline), range(layout.data))
    if only is not None:
        teams = sorted({layout.team_of(rank) for rank in only})
    together = tuple(dict.fromkeys((stage, layout.sharing(replica)) for stage, replica in teams))
    for microbatch, (stage, replicas) in product(parts, together):
        builder.enter(stage, replicas, microbatch)
        for layer in layout.layers(stage, plan.model):
            if layers is None or layer in layers:
                builder.enter_layer(layer)
                _begin(builder, layer, given=layers is not None and layer > 0 and layer - 1 not in layers)
                add_equations(builder, builder.function.layers[layer])
    last = plan.model.layers - 1
    if TOKEN in builder.function.tensors and layout.pipeline > 1 and (layers is None or last in layers):
        for microbatch, replica in product(parts, range(layout.data)):
            builder.enter_the_end(replica, microbatch)
            spread_tokens(builder)
    return builder


def _begin(builder: Builder, layer: int, *, given: bool) -> None:
    """What a stage's first layer begins with comes to its ranks; ``given``: the layers before are left out."""
    if given:
        builder.begin(layer)
    if layer == 0:
        distribute_input(builder)
    elif layer == builder.layout.layers(builder.stage, builder.model)[0]:
        receive(builder, layer)


__all__ = ["Outline", "OutlinedTask", "lower", "outline_of", "task_of"]
