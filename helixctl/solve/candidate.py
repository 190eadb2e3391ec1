"""A layout and what it is predicted to do: simulated on one rank of every kind, which stands for its likes."""

from __future__ import annotations

from dataclasses import dataclass

from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.simulate import Forecast, forecast
from helixctl.solve.hosts import alike
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec


@dataclass(frozen=True, slots=True)
class Candidate:
    """One layout: its forecast where it is legal, the reasons where it is not."""

    layout: Layout
    forecast: Forecast | None = None
    reasons: tuple[str, ...] = ()


def simulated(model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec, layout: Layout) -> Candidate:
    """A legal layout with its forecast."""
    plan = Plan.sketch(model, cluster, workload, layout)
    dag = lower(plan, representatives(layout, cluster))
    return Candidate(layout, forecast(dag))


def size(model: ModelSpec, cluster: ClusterSpec, layout: Layout) -> int:
    """About how many tasks a simulation takes: a dozen a layer and microbatch, on every rank that stands for others."""
    ranks = len(representatives(layout, cluster)) // layout.pipeline
    return 12 * model.layers * layout.microbatches * ranks


def representatives(layout: Layout, cluster: ClusterSpec) -> frozenset[int]:
    """Ranks whose simulation gives the step of all: one of every stage, where all teams lie on the hosts alike.

    It is the one with the largest pieces. Of causal rows the first slice has most, but not just as much work as the
    others: then all slices of a group are there. Where teams lie on the hosts in different ways, and where ranks share
    the cores of a host, all ranks have to be there.
    """
    if not alike(layout, cluster) or cluster.cores_per_host is not None:
        return frozenset(range(layout.devices))
    stages = range(layout.pipeline)
    if layout.shared_dim == "seq":
        return frozenset(rank for stage in stages for rank in layout.ranks_of_group(0, stage))
    return frozenset(layout.team(stage, 0)[0] for stage in stages)
