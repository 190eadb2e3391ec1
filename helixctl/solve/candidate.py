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
    """One layout: its forecast where it is legal, the reasons where it is not; ``tasks`` were simulated for it."""

    layout: Layout
    forecast: Forecast | None = None
    reasons: tuple[str, ...] = ()
    tasks: int = 0


def simulated(model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec, layout: Layout) -> Candidate:
    """A legal layout with its forecast."""
    plan = Plan.sketch(model, cluster, workload, layout)
    dag = lower(plan, representatives(layout, cluster))
    return Candidate(layout, forecast(dag), tasks=sum(len(order) for order in dag.order))


def representatives(layout: Layout, cluster: ClusterSpec) -> frozenset[int]:
    """Ranks whose simulation gives the step of all: one of every stage, where all teams lie on the hosts alike.

    Where they do not, and where ranks share the cores of a host, all ranks have to be there.
    """
    if not alike(layout, cluster) or cluster.cores_per_host is not None:
        return frozenset(range(layout.devices))
    return frozenset(layout.team(stage, 0)[0] for stage in range(layout.pipeline))
