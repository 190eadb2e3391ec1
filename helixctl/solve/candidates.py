"""Every m x n of the devices: legal or why not, and what each costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from helixctl.dag import Dag
from helixctl.lower import lower
from helixctl.plan import Layout, Plan, illegalities
from helixctl.simulate import Forecast, forecast
from helixctl.solve.wish import Wish
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec


@dataclass(frozen=True, slots=True)
class Candidate:
    """One layout: its price and dag where it is legal, the reasons where it is not."""

    layout: Layout
    reasons: tuple[str, ...]
    price: Forecast | None = None
    dag: Dag | None = None


def layouts(devices: int, wish: Wish | None = None) -> Iterator[Layout]:
    """All factor pairs groups x slices of the devices, most groups first; other axes as wished, else at their default.

    Empty where the wished replicas and stages do not divide the devices.
    """
    axes = {axis: value for axis, value in (wish or {}).items() if axis not in {"groups", "slices"}}
    teams = int(axes.get("data", 1)) * int(axes.get("pipeline", 1))
    partitions = devices // teams if devices % teams == 0 else 0
    for slices in range(1, partitions + 1):
        if partitions % slices == 0:
            yield Layout.model_validate({"groups": partitions // slices, "slices": slices, **axes})


def candidates(model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec, wish: Wish) -> list[Candidate]:
    """Every layout of the cluster's devices that has the wished axes, groups and slices apart."""
    return [candidate(layout, model, cluster, workload) for layout in layouts(cluster.devices, wish)]


def candidate(layout: Layout, model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec) -> Candidate:
    """A layout, lowered and priced where it is legal."""
    if reasons := illegalities(layout, model, workload, cluster.devices):
        return Candidate(layout, tuple(reasons))
    dag = lower(Plan.of(model, cluster, workload, layout))
    return Candidate(layout, (), forecast(dag), dag)
