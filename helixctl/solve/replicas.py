"""The forecast of a layout on hosts that differ: of every replica by itself, as they exchange nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import itemgetter

from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.simulate import Forecast, forecast
from helixctl.solve.deep import Work, extrapolated, work_simulated
from helixctl.solve.places import Alike, alike
from helixctl.spec import ClusterSpec, ModelSpec, Step, WorkloadSpec


def forecast_of_replicas(
    model: ModelSpec, cluster: ClusterSpec, layout: Layout, step: Step, slices: set[int]
) -> Forecast:
    """The forecast of one step.

    Args:
        model: what is planned.
        cluster: whose hosts differ, and do not share their cores.
        layout: a legal one.
        step: what is done.
        slices: which ranks of a group stand for all of it.
    """
    found = []
    for its in alike(layout, cluster, step):
        ranks = ranks_of(layout, its, slices)

        def of(
            model: ModelSpec, part: Layout, work: Work, /, ranks: frozenset[int] = ranks, *, arenas: bool = True
        ) -> Forecast:
            return forecast(lower(Plan.sketch(model, cluster, work, part), ranks), arenas=arenas)

        replica, whole = its.replicas[0], its.unlike_stages
        one = extrapolated(of, model, layout, step, replicas=False, replica=replica, whole=whole)
        found.append((its, one))
    return _together(found, step)


def tasks_simulated(
    model: ModelSpec, cluster: ClusterSpec, layout: Layout, workload: WorkloadSpec, slices: set[int]
) -> int:
    """Layers times microbatches times ranks of a stage that are simulated for it."""
    total = 0
    for its in alike(layout, cluster, workload):
        ranks = -(-len(ranks_of(layout, its, slices)) // layout.pipeline)
        replica, whole = its.replicas[0], its.unlike_stages
        total += ranks * work_simulated(model, layout, workload, replicas=False, replica=replica, whole=whole)
    return total


def ranks_of(layout: Layout, its: Alike, slices: set[int]) -> frozenset[int]:
    """Ranks of the first of some replicas that stand for all of it: of a stage that lies evenly on the hosts, one.

    Of groups with shares of their own it is one of each.
    """
    replica, found = its.replicas[0], set[int]()
    for stage, place in enumerate(its.stages):
        one = [layout.rank(group, slice_, stage, replica) for group in layout.unlike_groups for slice_ in slices]
        found.update(one if place.uniform else layout.team(stage, replica))
    return frozenset(found)


def _together(found: Sequence[tuple[Alike, Forecast]], step: Step) -> Forecast:
    """Replicas at work side by side: the step ends with the slowest, of which the levels are."""
    slowest = max((one for _, one in found), key=lambda one: one.step_s)
    replicas = sum(len(its.replicas) for its, _ in found)

    def mean(of: Callable[[Forecast], float]) -> float:
        return sum(of(one) * len(its.replicas) for its, one in found) / replicas

    def most(of: Callable[[Forecast], int]) -> int:
        return max(of(one) for _, one in found)

    kinds = zip(*(one.memory_of_kinds for _, one in found), strict=True)
    links = zip(*(one.link_nbytes for _, one in found), strict=True)
    return replace(
        slowest,
        tokens=step.tokens,
        latency_s=sum(one.latency_s * sum(its.sizes) * len(its.replicas) for its, one in found) / step.batch,
        exposed_s=mean(lambda one: one.exposed_s),
        hidden_s=mean(lambda one: one.hidden_s),
        busy_share=mean(lambda one: one.busy_share * one.step_s) / slowest.step_s,
        received_nbytes=most(lambda one: one.received_nbytes),
        between_hosts_nbytes=most(lambda one: one.between_hosts_nbytes),
        memory_nbytes=most(lambda one: one.memory_nbytes),
        weight_nbytes=most(lambda one: one.weight_nbytes),
        cache_nbytes=most(lambda one: one.cache_nbytes),
        memory_of_kinds=tuple([max(its) for its in kinds]),
        link_nbytes=tuple([max(its, key=itemgetter(1)) for its in links]),
    )
