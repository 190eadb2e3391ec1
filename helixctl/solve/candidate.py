"""A layout and what it is predicted to do: simulated on one rank of every kind, which stands for its likes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from helixctl.dag import Dag
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.plan.layout import chunk
from helixctl.plan.sharding import Shares
from helixctl.plan.size import TASKS_OF_A_LAYER
from helixctl.plan.steps import step_of, steps_of
from helixctl.records import record
from helixctl.simulate import Forecast, forecast, generated
from helixctl.solve.deep import Work, extrapolated, shallow, work_simulated
from helixctl.solve.hosts import uniform_placement
from helixctl.solve.places import alike
from helixctl.solve.replicas import forecast_of_replicas, ranks_of, tasks_simulated
from helixctl.spec import ClusterSpec, ModelSpec, StepName, WorkloadSpec

# Layers up to which a model with unlike stages is simulated as it is: that is exact, and 16 stages of half a layer each
# are no more work than the shallow models that deeper ones are extrapolated from.
_DEEP: Final = 8


@record
class Candidate:
    """One layout: its forecast where it is legal, the reasons where it is not."""

    layout: Layout
    forecast: Forecast | None = None
    reasons: tuple[str, ...] = ()


def simulated(model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec, layout: Layout) -> Candidate:
    """A legal layout with its forecast; that of a generation is made of its steps'."""
    found = [step_forecast(model, cluster, workload, layout, name) for name in steps_of(workload)]
    if workload.output_len is None:
        return Candidate(layout, found[0])
    return Candidate(layout, of_steps(workload, layout, found))


def of_steps(workload: WorkloadSpec, layout: Layout, steps: Sequence[Forecast]) -> Forecast:
    """The forecast of a generation, from those of its prefill and of its decode step."""
    chunks = -(-workload.seq_len // chunk(workload, layout))
    return generated(steps[0], steps[1], chunks, workload.batch, workload.output_len or 1)


def step_forecast(
    model: ModelSpec,
    cluster: ClusterSpec,
    workload: WorkloadSpec,
    layout: Layout,
    name: StepName,
    cached: int | None = None,
) -> Forecast:
    """The forecast of one step of a legal layout; ``cached``: positions in the cache, if not their mean."""
    step = step_of(workload, layout, name)
    if cached is not None:
        step = replace(step, cached=cached)
    if cluster.differs and not cluster.shares_cores:
        return forecast_of_replicas(model, cluster, layout, step, largest_slices(layout, model, workload))
    ranks = representatives(layout, model, cluster, workload)

    def forecast_of(its: ModelSpec, part: Layout, work: Work, /, *, arenas: bool = True) -> Forecast:
        return forecast(lower(Plan.sketch(its, cluster, work, part), ranks), arenas=arenas)

    if _simulated_whole(layout, model, cluster):
        return forecast_of(model, layout, step)
    replicas = not uniform_placement(layout, cluster)
    return extrapolated(forecast_of, model, layout, step, replicas=replicas)


def priced(plan: Plan, step: StepName | None = None) -> Dag:
    """A part of the dag of a plan's step, by default the first, with tasks of every kind: its forecast rests on it."""
    model, layout = shallow(plan.model, plan.layout, 1)
    ranks = representatives(plan.layout, plan.model, plan.cluster, plan.workload)
    sketch = Plan.sketch(model, plan.cluster, plan.workload, layout)
    return lower(sketch, ranks, microbatches=range(1), step=step)


def _simulated_whole(layout: Layout, model: ModelSpec, cluster: ClusterSpec) -> bool:
    """Whether a model is simulated as deep as it is: where stages may be unlike each other, unless it is very deep."""
    return cluster.shares_cores or (not uniform_placement(layout, cluster) and model.layers <= _DEEP)


def size(model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec, layout: Layout) -> int:
    """About how many tasks a simulation takes: a dozen a layer and microbatch, on every rank that stands for others."""
    if cluster.differs and not cluster.shares_cores:
        slices = largest_slices(layout, model, workload)
        return TASKS_OF_A_LAYER * tasks_simulated(model, cluster, layout, workload, slices) * len(steps_of(workload))
    ranks = len(representatives(layout, model, cluster, workload)) // layout.pipeline
    if _simulated_whole(layout, model, cluster):
        return TASKS_OF_A_LAYER * model.layers * layout.microbatches * ranks * len(steps_of(workload))
    work = work_simulated(model, layout, workload, replicas=not uniform_placement(layout, cluster))
    return TASKS_OF_A_LAYER * work * ranks * len(steps_of(workload))


def representatives(layout: Layout, model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec) -> frozenset[int]:
    """Ranks whose simulation gives the step of all: one of every stage, where all teams lie on the hosts alike.

    It is the one with the largest pieces; of groups with shares of their own there is one of each. Of causal rows the
    first slice has most, but another may have a little more work: it is there as well. Where teams lie on the hosts in
    different ways, and where ranks share the cores of a host, all ranks have to be there; where hosts differ, some of
    every replica that is like no other.
    """
    if cluster.differs and not cluster.shares_cores:
        slices = largest_slices(layout, model, workload)
        return frozenset().union(*(ranks_of(layout, its, slices) for its in alike(layout, cluster, workload)))
    if not uniform_placement(layout, cluster) or cluster.shares_cores:
        return frozenset(range(layout.devices))
    return frozenset(
        layout.rank(group, slice_, stage)
        for stage in range(layout.pipeline)
        for group in layout.unlike_groups
        for slice_ in largest_slices(layout, model, workload)
    )


def largest(layout: Layout, model: ModelSpec, workload: WorkloadSpec) -> frozenset[int]:
    """Ranks, one of whom holds as much as any: those with the largest pieces in the first two stages and in the last.

    Those between are like the second, with as many layers or one less; but where layers are of several kinds.
    """
    unlike = layout.has_unlike_stages(model)
    stages = set(range(layout.pipeline)) if unlike else {0, min(1, layout.pipeline - 1), layout.pipeline - 1}
    slices = largest_slices(layout, model, workload)
    # Of several kinds the buffers of the smallest pieces may be packed a little worse than those of the largest.
    last = {layout.rank(layout.groups - 1, layout.slices - 1, stage) for stage in stages} if model.pattern else set()
    most = {layout.rank(group, s, stage) for stage in stages for group in layout.unlike_groups for s in slices}
    return frozenset(most | last)


def largest_slices(layout: Layout, model: ModelSpec, workload: WorkloadSpec) -> set[int]:
    """Slices of which one has as much to do, and holds as much, as any."""
    if layout.shared_dim != "seq" and layout.key_prefill != "query":
        return {0}
    if layout.residual == "sharded":  # a slice between has more rows of the stream than the one that attends longest
        return set(range(layout.slices))
    return {0, _busiest(layout, model, workload)}


def _busiest(layout: Layout, model: ModelSpec, workload: WorkloadSpec) -> int:
    """The slice whose query rows attend to most keys."""
    shares = Shares(layout, model, step_of(workload, layout))
    its = shares.of("attention").made
    rows = [shares.cut(its, layout.rank(0, slice_))["seq"] for slice_ in range(layout.slices)]
    return max(range(layout.slices), key=lambda s: (rows[s][1] - rows[s][0]) * (rows[s][0] + rows[s][1] + 1))
