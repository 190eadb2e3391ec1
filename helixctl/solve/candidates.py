"""Every m x n of the devices: legal or why not, and what each costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from helixctl.cost.price import Price, price
from helixctl.dag import Dag
from helixctl.lower import lower
from helixctl.plan import Layout, Plan, illegalities
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec


@dataclass(frozen=True, slots=True)
class Candidate:
    """One layout: its price and dag where it is legal, the reasons where it is not."""

    layout: Layout
    reasons: tuple[str, ...]
    price: Price | None = None
    dag: Dag | None = None


def layouts(devices: int) -> Iterator[Layout]:
    """All factor pairs groups x slices of the devices, most groups first."""
    for slices in range(1, devices + 1):
        if devices % slices == 0:
            yield Layout(groups=devices // slices, slices=slices)


def candidates(model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec) -> list[Candidate]:
    """Every layout of the cluster's devices."""
    return [candidate(layout, model, cluster, workload) for layout in layouts(cluster.devices)]


def candidate(layout: Layout, model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec) -> Candidate:
    """A layout, lowered and priced where it is legal."""
    if reasons := illegalities(layout, model, cluster.devices):
        return Candidate(layout, tuple(reasons))
    dag = lower(Plan.of(model, cluster, workload, layout))
    return Candidate(layout, (), price(dag), dag)
