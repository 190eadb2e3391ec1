"""Lower bounds on a layout's step, from the tasks of one layer: what lets the search leave most layouts unsimulated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from helixctl.cost.memory import peak_live_nbytes
from helixctl.cost.tasks import TaskCosts
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.solve.hosts import host_pattern
from helixctl.spec import DTYPE_NBYTES, ClusterSpec, ModelSpec, WorkloadSpec


class Bound(NamedTuple):
    """What a layout takes at least; ``memory_nbytes`` on its fullest device."""

    step_s: float
    latency_s: float
    memory_nbytes: float


class _Layer(NamedTuple):
    """One microbatch in one layer on one rank: seconds by lane, bytes of weights, bytes of all else that is live."""

    compute_s: float
    communication_s: float
    weight_nbytes: int
    live_nbytes: int


@dataclass(slots=True)
class Bounds:
    """Lower bounds for the layouts of one problem; what layouts share is worked out once."""

    model: ModelSpec
    cluster: ClusterSpec
    workload: WorkloadSpec
    _layers: dict[object, _Layer] = field(default_factory=dict, init=False)
    _patterns: dict[object, tuple[int, ...]] = field(default_factory=dict, init=False)
    _silent: dict[object, _Layer] = field(default_factory=dict, init=False)

    def __call__(self, layout: Layout) -> Bound:
        """Bounds that no simulation of this layout is below.

        Inside a layer every task of a microbatch waits for the one before, so that a microbatch takes both lanes' time
        one after the other. Any stage, in turn: the first microbatch comes to it through the layers before, then all
        of them pass it, then the last goes through the layers behind. Microbatches that take turns can hide the
        shorter lane behind the longer, no more. Where ranks share cores, these have all the work to do.
        """
        return self._bound(layout, self._layer(layout))

    def quick(self, layout: Layout) -> Bound:
        """Looser bounds: as if nothing were exchanged. Many more layouts share these."""
        key = self._shape(layout)
        if key not in self._silent:
            layer = self._layer(layout)
            self._silent[key] = layer._replace(communication_s=0.0, live_nbytes=0)
        return self._bound(layout, self._silent[key])

    def _bound(self, layout: Layout, layer: _Layer) -> Bound:
        compute_s, communication_s, weights, live = layer
        alone = compute_s + communication_s
        passing = max(compute_s, communication_s) if layout.interleave > 1 else alone
        layers, parts = self.model.layers, layout.microbatches
        most = len(layout.layers(0, self.model))
        step = (layers - most) * alone + parts * most * passing
        if self.cluster.cores_per_host is not None:
            work = layers * parts * compute_s * layout.partitions * layout.data
            cores = min(self.cluster.cores_per_host, self.cluster.devices_per_host) * self.cluster.hosts
            step = max(step, work / cores)
        # When the i-th part is done, the stage with most layers has passed i parts.
        latency = (layers - most) * alone + (parts + 1) / 2 * most * passing
        return Bound(step, max(layers * alone, latency), self._memory(layout, weights, live))

    def _memory(self, layout: Layout, weights: int, live: int) -> float:
        """The first stage holds most layers; the last keeps all of the output, and the input if it is the first."""
        stages, work = layout.pipeline, self.workload
        whole = work.tokens // layout.data * self.model.hidden_size * DTYPE_NBYTES[self.model.dtype]
        kept = whole - whole // layout.microbatches + (whole if stages == 1 else 0)
        first, last = (len(layout.layers(stage, self.model)) for stage in (0, stages - 1))
        return live + max(first * weights, last * weights + kept)

    def _shape(self, layout: Layout) -> tuple[object, ...]:
        """What the computation of a layer depends on: groups and slices by their product alone, an equal share."""
        parts = layout.data * layout.microbatches
        return (layout.partitions, layout.combine, layout.reduction_dtype, layout.experts, parts)

    def _layer(self, layout: Layout) -> _Layer:
        place = (layout.groups, layout.slices, layout.data, layout.pipeline, layout.placement)
        if place not in self._patterns:
            self._patterns[place] = host_pattern(layout, self.cluster, stages=1)
        key = (self._shape(layout), layout.groups, layout.gather_order, self._patterns[place])
        if key not in self._layers:
            plan = Plan.sketch(self.model, self.cluster, self.workload, layout)
            dag = lower(plan, only={layout.team(0, 0)[0]}, layers=range(1), microbatches=range(1))
            costs = TaskCosts(dag)
            lanes = {"compute": 0.0, "communication": 0.0}
            for task in dag.tasks:
                if task.kind != "broadcast":  # once a step, not in every layer
                    lanes[task.lane] += costs.seconds(task)
            given = [v for v in dag.values if v.id not in dag.producer]
            weights = sum(v.nbytes for v in given if dag.tensor[v.tensor].role == "weight")
            live = peak_live_nbytes(dag, layout.team(0, 0)[0]) - sum(v.nbytes for v in given) + weights
            self._layers[key] = _Layer(lanes["compute"], lanes["communication"], weights, live)
        return self._layers[key]
