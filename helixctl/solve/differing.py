"""Lower bounds where hosts differ: of every stage of every replica by the kind of its devices, each with its memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from helixctl.plan import Layout
from helixctl.plan.steps import step_of
from helixctl.solve.axes import Order
from helixctl.solve.bound import Bound, Bounds
from helixctl.solve.generation import GenerationBounds
from helixctl.solve.places import Alike, Place, alike
from helixctl.solve.work import LaneCosts, LayerCosts, LayoutCosts
from helixctl.spec import ClusterSpec, ModelSpec, StepName, WorkloadSpec


class Held(NamedTuple):
    """Bytes that a rank holds at least, of devices of one kind."""

    kind: int
    nbytes: float


@dataclass(slots=True)
class StepBounds:
    """Lower bounds of one step.

    Each kind of hosts is priced as if all hosts were like it. A stage takes what it takes there; where its ranks are on
    several kinds, what the slowest takes for the smallest piece. What a stage exchanges inside itself is counted where
    it lies on hosts of one kind as it would on the first of them; what stages send each other is not.

    Attributes:
        cluster: whose hosts differ.
        kinds: the bounds of the same step on each kind of hosts.
    """

    cluster: ClusterSpec
    kinds: tuple[Bounds, ...]
    _works: dict[object, LayerCosts] = field(default_factory=dict, init=False)

    @classmethod
    def of(
        cls, model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec, step: StepName | None = None
    ) -> StepBounds:
        """The bounds of a step, with nothing priced yet."""
        several = [
            cluster.of_kind(kind, -(-cluster.devices // its.devices_per_host)) for kind, its in enumerate(cluster.kinds)
        ]
        costs = [LayoutCosts(model, one, workload, step) for one in several]
        return cls(cluster, tuple([Bounds(its, exact_memory=False) for its in costs]))

    def times(self, layout: Layout, *, exchanged: bool) -> tuple[float, float]:
        """Seconds of a step, and until a sequence is done, the mean of all, that no simulation is below.

        Args:
            layout: its replicas.
            exchanged: whether exchanges are counted where they are known.
        """
        step_s = latency_s = 0.0
        batch = self.kinds[0].costs.workload.batch
        for its in alike(layout, self.cluster, self.kinds[0].costs.workload):
            step, latency = self.of_replica(layout, its.stages, its.sizes, exchanged=exchanged)
            step_s = max(step_s, step)
            latency_s += latency * sum(its.sizes) * len(its.replicas) / batch
        return step_s, latency_s

    def of_replica(
        self, layout: Layout, stages: Sequence[Place], sizes: Sequence[int], *, exchanged: bool
    ) -> tuple[float, float]:
        """The same of one replica, with microbatches of these sizes, all of which are taken to be the smallest."""
        bounds, last = self.kinds[0], layout.pipeline - 1
        works = [self.work(layout, stage, min(sizes), exchanged=exchanged) for stage in stages]
        ways = [bounds.passing(layout, work, (), stage) for stage, work in enumerate(works)]
        whole = sum(self._alone(layout, work, stage, last) for stage, work in enumerate(works))
        turn = sum(part * size for part, size in enumerate(sizes, 1)) / sum(sizes)
        step = latency = whole
        for held, alone in ways:
            step = max(step, len(sizes) * held + whole - alone)
            latency = max(latency, turn * held + whole - alone)
        return step, latency

    def work(self, layout: Layout, stage: Place, sequences: int, *, exchanged: bool) -> LayerCosts:
        """What a microbatch takes in a stage on its devices."""
        exchanged = exchanged and stage.regular
        of: list[Callable[[Layout, int], LayerCosts]] = [
            self.kinds[kind].work.with_communication if exchanged else self.kinds[kind].work.compute_only
            for kind in stage.kinds
        ]
        found = [price(layout, sequences) for price in of]
        if len(found) == 1:
            return found[0]
        return _slowest(_quickest(found), self._least(layout, stage, sequences))

    def _least(self, layout: Layout, stage: Place, sequences: int) -> list[tuple[float, ...]]:
        """What any rank of each kind computes in a layer at least; where groups have weights, one of each group."""
        costs = [its.costs for its in self.kinds]
        weights = layout.weights_of_groups
        if not weights:
            return [costs[kind].on_any_rank(layout, sequences) for kind in stage.kinds]
        of_groups = {  # of those with one weight on one kind the last has least
            (kind, weights[place // layout.slices]): place // layout.slices for place, kind in enumerate(stage.of_ranks)
        }
        return [costs[kind].on_any_rank(layout, sequences, group) for (kind, _), group in of_groups.items()]

    def held(self, layout: Layout, its: Alike) -> Iterator[Held]:
        """Bytes of weights, and of outputs that are kept, of every stage whose devices are of one kind."""
        model, last = self.kinds[0].costs.model, layout.pipeline - 1
        for stage, place in enumerate(its.stages):
            if len(place.kinds) > 1:
                continue
            (kind,) = place.kinds
            costs = self.kinds[kind].costs
            work = self.work(layout, place, min(its.sizes), exchanged=False)
            counts = self.kinds[kind].counts(layout, stage)
            nbytes = float(sum(n * layer.weight_nbytes for n, layer in zip(counts, work.layers, strict=True)))
            if layout.pipeline == 1:
                nbytes += costs.ends_nbytes(work)
                nbytes += 0 if model.vocabulary else layout.microbatches * work.output_nbytes
            elif stage == 0:
                nbytes += work.embed.weight_nbytes
            elif stage == last:
                nbytes += work.head.weight_nbytes + (layout.microbatches - 1) * work.output_nbytes
            yield Held(kind, nbytes)

    def _alone(self, layout: Layout, work: LayerCosts, stage: int, last: int) -> float:
        counts = self.kinds[0].counts(layout, stage)
        ends = (work.embed.alone_s if stage == 0 else 0.0) + (work.head.alone_s if stage == last else 0.0)
        return ends + sum(n * layer.alone_s for n, layer in zip(counts, work.layers, strict=True))


@dataclass(slots=True)
class DifferingBounds:
    """Lower bounds for the layouts of one problem on a cluster whose hosts differ.

    Attributes:
        steps: of the one pass; or of a prefill and of a decode step.
        generation: of a generation, how often its steps run, and its cache, on any kind of hosts.
    """

    steps: tuple[StepBounds, ...]
    generation: GenerationBounds | None
    _tight: dict[Layout, Bound] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec) -> DifferingBounds:
        """The bounds of a workload, with nothing priced yet."""
        if workload.output_len is None:
            return cls((StepBounds.of(model, cluster, workload),), None)
        prefill, decode = (StepBounds.of(model, cluster, workload, name) for name in ("prefill", "decode"))
        return cls((prefill, decode), GenerationBounds(prefill.kinds[0], decode.kinds[0]))

    @property
    def costs(self) -> LayoutCosts:
        """What the weights are known from."""
        return self.steps[-1].kinds[0].costs

    @property
    def cluster(self) -> ClusterSpec:
        """Whose hosts differ."""
        return self.steps[0].cluster

    def __call__(self, layout: Layout) -> Bound:
        """Bounds that no simulation of this layout is below."""
        if layout not in self._tight:
            self._tight[layout] = self._bound(layout, exchanged=True)
        return self._tight[layout]

    def with_turns(self, layout: Layout) -> Bound:
        """The same: of the order of tasks nothing is said."""
        return self(layout)

    def quick(self, layout: Layout, parts: int | None = None) -> Bound:
        """Looser bounds: as if nothing were exchanged; ``parts`` is the number of microbatches, if not the layout's."""
        one = layout.model_copy(update={"microbatches": parts}) if parts else layout
        return self._bound(one, exchanged=False)

    def loose(self, layout: Layout, sizes: Sequence[int]) -> list[Bound]:
        """The same of a layout in each of these numbers of microbatches."""
        return [self.quick(layout, size) for size in sizes]

    def in_any_order(self, layout: Layout, parts: int, orders: Sequence[Order]) -> Bound:  # noqa: ARG002  they say nothing
        """Bounds that those in none of these orders are below; arguments as of ``Bounds``."""
        return self.quick(layout, parts)

    def in_orders(self, layout: Layout, orders: Sequence[Order]) -> list[Bound]:
        """Bounds with communication of a layout in several orders of work and of ranks."""
        return [self(layout.model_copy(update=order)) for order in orders]

    def _bound(self, layout: Layout, *, exchanged: bool) -> Bound:
        times = [step.times(layout, exchanged=exchanged) for step in self.steps]
        nbytes, fits = 0.0, True
        for held in self.held(layout):
            nbytes = max(nbytes, held.nbytes)
            fits &= held.nbytes <= self.cluster.kinds[held.kind].device.available
        if self.generation is None:
            return Bound(*times[0], nbytes, fits=fits)
        count = self.generation.count(layout)
        (prefill, _), (decode, _) = times
        ttft_s = count.prefill * prefill
        total_s = ttft_s + count.decode * decode
        return Bound(total_s, total_s, nbytes, ttft_s, decode, fits)

    def held(self, layout: Layout) -> Iterator[Held]:
        """Bytes that a rank holds at least, the cache among them, of every stage whose devices are of one kind."""
        for its in alike(layout, self.cluster, self.costs.workload):
            cache = self.cache_nbytes(layout, sum(its.sizes))
            found = [step.held(layout, its) for step in self.steps]
            places = [stage for stage, place in enumerate(its.stages) if len(place.kinds) == 1]
            for stage, steps in zip(places, zip(*found, strict=True), strict=True):
                most = max(steps, key=attrgetter("nbytes"))
                yield Held(
                    most.kind, most.nbytes + sum(cache[layer] for layer in layout.layers(stage, self.costs.model))
                )

    def cache_nbytes(self, layout: Layout, sequences: int) -> list[int]:
        """The KV cache of every layer, of so many sequences; none in one pass."""
        model = self.costs.model
        if self.generation is None:
            return [0] * model.layers
        step = step_of(self.costs.workload, layout, "decode")
        of = {kind: self.generation.of_a_layer(layout, model.alike(kind), step, sequences) for kind in model.kinds}
        return [of[model.kind(layer)] for layer in range(model.layers)]


def _quickest(works: Sequence[LayerCosts]) -> LayerCosts:
    """Every lane as quick as on the quickest of several kinds."""
    layers = tuple([_least(lanes) for lanes in zip(*(work.layers for work in works), strict=True)])
    embed, head = (_least([getattr(work, end) for work in works]) for end in ("embed", "head"))
    return works[0]._replace(layers=layers, embed=embed, head=head)


def _slowest(work: LayerCosts, least: Sequence[Sequence[float]]) -> LayerCosts:
    """No layer is quicker than the smallest piece of it on the slowest of several kinds."""
    layers = []
    for lane, seconds in zip(work.layers, zip(*least, strict=True), strict=True):
        most = max(lane.compute_s, *seconds)
        layers.append(lane._replace(compute_s=most, alone_s=max(lane.alone_s, most)))
    return work._replace(layers=tuple(layers))


def _least(lanes: Sequence[LaneCosts]) -> LaneCosts:
    compute, communication, alone = (min(lane[at] for lane in lanes) for at in range(len(LaneCosts._fields) - 1))
    return LaneCosts(compute, communication, alone, lanes[0].weight_nbytes)
