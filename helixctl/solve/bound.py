"""Lower bounds on a layout's step: what lets the search leave most layouts unsimulated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Final, NamedTuple

from helixctl.plan import Layout
from helixctl.solve.axes import Order
from helixctl.solve.hosts import uniform_placement
from helixctl.solve.microbatches import Microbatches
from helixctl.solve.passing import Stage, Stages, passing
from helixctl.solve.transfers import Transfers
from helixctl.solve.turns import rank_seconds
from helixctl.solve.work import LayerCosts, LayoutCosts


class Bound(NamedTuple):
    """What a layout takes at least; ``memory_nbytes`` on its fullest device.

    Of a generation the step is all of it, ``ttft_s`` the seconds until its first tokens, ``time_per_output_token_s``
    those of a decode step. ``fits`` is said of devices that differ, each of which has its own memory.
    """

    step_s: float
    latency_s: float
    memory_nbytes: float
    ttft_s: float = 0.0
    time_per_output_token_s: float = 0.0
    fits: bool = True


_NO_LINKS: Final[Sequence[float]] = ()
_SLACK: Final = 1 - 1e-9  # part of a looser bound that rounding does not lift above a tighter one


@dataclass(slots=True)
class Bounds:
    """Lower bounds for the layouts of one problem; what layouts share is worked out once.

    Attributes:
        costs: what layers are priced by.
        exact_memory: whether what is live counts also where it does not decide whether a layout fits.
        work: of the microbatches of layouts.
    """

    costs: LayoutCosts
    exact_memory: bool = True
    work: Microbatches = field(init=False)
    _quick: dict[object, Bound] = field(default_factory=dict, init=False)
    _loose: dict[object, dict[int, Bound]] = field(default_factory=dict, init=False)
    _tight: dict[Layout, Bound] = field(default_factory=dict, init=False)
    _turns: dict[object, float] = field(default_factory=dict, init=False)
    _layers: dict[tuple[int, str | None, int] | None, tuple[int, ...]] = field(default_factory=dict, init=False)
    _of_links: dict[object, Sequence[float]] = field(default_factory=dict, init=False)
    _stages: dict[object, Stages] = field(default_factory=dict, init=False)
    _places: dict[object, float] = field(default_factory=dict, init=False)
    _transfers: Transfers = field(init=False)
    _available: float = field(init=False)  # asked for with every bound, as are the cores
    _cores: int | None = field(init=False)

    def __post_init__(self) -> None:
        """Price nothing yet."""
        hosts = self.costs.cluster.only
        self.work = Microbatches(self.costs)
        self._transfers = Transfers(self.costs.model, self.costs.cluster, self.costs.workload, self.costs.step)
        self._available, self._cores = hosts.device.available, hosts.cores_per_host

    def __call__(self, layout: Layout) -> Bound:
        """Bounds that no simulation of this layout is below.

        A layer of a microbatch takes what it takes alone: its tasks in their order, beside the exchanges that they do
        not wait for. Any stage, in turn: the first microbatch comes to it through the layers before, then all of them
        pass it, then the last goes through the layers behind. Microbatches that take turns can hide the shorter lane
        behind the longer, no more. Where ranks share cores, these have all the work to do. Of unequal microbatches all
        are taken to be as small as the smallest, of the fullest replica or of all.
        """
        found = self._tight.get(layout)
        if found is None:
            found = self._tight[layout] = self._of_turns(layout)(layout.interleave)
        return found

    def in_orders(self, layout: Layout, orders: Sequence[Order]) -> list[Bound]:
        """The same of a layout in several orders of work and of ranks, all in one number of microbatches."""
        places: dict[object, Callable[[int], Bound]] = {}
        found = []
        for order in orders:
            place = (order["gather_order"], order["placement"])
            if place not in places:
                places[place] = self._of_turns(layout.model_copy(update=order))
            found.append(places[place](order["interleave"]))
        return found

    def in_any_order(self, layout: Layout, parts: int, orders: Sequence[Order]) -> Bound:
        """Looser bounds, which those in none of these orders are below.

        Of every layer the computations count, and the collectives of the order that has least of them, less what
        computations that do not wait for them can hide. Where microbatches take turns all computations can.

        Args:
            layout: how a microbatch is cut.
            parts: the number of microbatches, of all orders.
            orders: gather order, placement, and how many microbatches take turns.
        """
        stages, work = self._unlike_stages(layout, _NO_LINKS), self.work
        full, least = work.sizes(layout, parts).both(partial(work.with_least_communication, layout, parts, orders))
        memory, turns = self.quick(layout, parts).memory_nbytes, {order["interleave"] for order in orders}
        found = [self._bound(layout, parts, full, least, stages, memory, some) for some in turns]
        return _loosened(Bound(min([its.step_s for its in found]), min([its.latency_s for its in found]), memory))

    def with_turns(self, layout: Layout) -> Bound:
        """The same, and where microbatches take turns what the tasks of a rank take in their order.

        Any stage: the first microbatch comes to it through the layers before, then its rank has all tasks of all
        microbatches, then the last goes through the layers behind.
        """
        found = self(layout)
        if layout.interleave == 1 or self._cores is not None:
            return found
        sequences, links = self.work.sizes(layout, layout.microbatches).largest, self._links(layout)
        work, step_s = self.work.with_communication(layout, sequences), found.step_s
        whole = self._whole(work, sum(links))
        for stage in {0, layout.pipeline - 1}:
            _, alone = self.passing(layout, work, links, stage)
            step_s = max(step_s, self._of_a_rank(layout, sequences, stage) + whole - alone)
        return found._replace(step_s=step_s)

    def quick(self, layout: Layout, parts: int | None = None) -> Bound:
        """Looser bounds: as if nothing were exchanged, so that neither placement, gather order nor turns matter.

        Args:
            layout: how a microbatch is cut.
            parts: the number of microbatches, if it is not the layout's.
        """
        parts, axes = parts or layout.microbatches, self.work.axes(layout)
        key = (layout.data, layout.pipeline, layout.stages, parts, axes)
        found = self._quick.get(key)
        if found is None:
            full, least = self.work.computed(layout, parts, axes)
            stages, memory = self._unlike_stages(layout, _NO_LINKS), self._memory(layout, parts, full)
            found = self._quick[key] = self._bound(layout, parts, full, least, stages, memory, layout.interleave)
        return found

    def loose(self, layout: Layout, sizes: Sequence[int]) -> list[Bound]:
        """Still looser ones of a layout in each of these numbers of microbatches.

        Of every layer the feed-forward network alone counts: it is the same for many layouts of a mesh.
        """
        around = (layout.data, layout.pipeline, layout.stages, layout.expert_data)
        known = self._loose.setdefault((self.costs.feed_forward(layout), *around), {})
        for parts in sizes:
            if parts not in known:
                known[parts] = self._of_feed_forward(layout, parts)
        return [known[parts] for parts in sizes]

    def _of_feed_forward(self, layout: Layout, parts: int) -> Bound:
        stages, (full, least) = self._unlike_stages(layout, _NO_LINKS), self.work.feed_forward(layout, parts)
        return _loosened(self._bound(layout, parts, full, least, stages, 0.0, 1))

    def _of_a_rank(self, layout: Layout, sequences: int, stage: int) -> float:
        """Seconds in which the first rank of a stage does all tasks of its microbatches, by their sequences."""
        parts, model = self.costs.parts(layout, sequences), self.costs.model
        embed, head = stage == 0, stage == layout.pipeline - 1
        layers = layout.layers(stage, model) if model.pattern else len(layout.layers(stage, model))
        which = (id(parts.embed), *map(id, parts.layers))
        key = (which, layers, embed, head, layout.microbatches, layout.interleave)
        if key not in self._turns:
            of_kind = dict(zip(model.kinds, parts.layers, strict=True))
            runs = groupby(model.kind(layer) for layer in layout.layers(stage, model))
            through = [(of_kind[kind], len(tuple(run))) for kind, run in runs]
            through = [(parts.embed, 1)] * embed + through + [(parts.head, 1)] * head
            rounds = layout.microbatches // layout.interleave
            self._turns[key] = rank_seconds(through, rounds, layout.interleave)
        return self._turns[key]

    def _links(self, layout: Layout) -> Sequence[float]:
        """Seconds from each stage to the next, of the smallest microbatch; none where they are not known.

        The links of the first replica are not those of another that lies on the hosts in another way.
        """
        if layout.pipeline == 1:
            return _NO_LINKS
        smallest = self.work.sizes(layout, layout.microbatches).smallest
        key = (layout.mesh, layout.placement, layout.expert_data, smallest, self._transfers.sizes(layout))
        found = self._of_links.get(key)
        if found is None:
            uniform = uniform_placement(layout, self.costs.cluster)
            found = self._transfers.between_stages(layout, smallest) if uniform else _NO_LINKS
            self._of_links[key] = found
        return found

    def _whole(self, work: LayerCosts, links: float) -> float:
        """Seconds of a microbatch with this work through all stages and links, if there were no other."""
        layers = sum([n * its.alone_s for n, its in zip(self.counts(), work.layers, strict=True)])
        return work.embed.alone_s + layers + work.head.alone_s + links

    def counts(self, layout: Layout | None = None, stage: int = 0) -> tuple[int, ...]:
        """The layers of a stage by their kind; without a layout those of the model."""
        key = (layout.pipeline, layout.stages, stage) if layout else None
        if key not in self._layers:
            every = range(self.costs.model.layers)
            self._layers[key] = self.costs.counts(layout.layers(stage, self.costs.model) if layout else every)
        return self._layers[key]

    def _of_turns(self, layout: Layout) -> Callable[[int], Bound]:
        """The bounds of a layout, with communication, by how many microbatches take turns."""
        parts, links = layout.microbatches, self._links(layout)
        full, least = self.work.sizes(layout, parts).both(partial(self.work.with_communication, layout))
        stages, memory = self._unlike_stages(layout, links), self._memory(layout, parts, full)
        return partial(self._bound, layout, parts, full, least, stages, memory)

    def _bound(
        self,
        layout: Layout,
        parts: int,
        full: LayerCosts,
        least: LayerCosts,
        stages: Stages,
        memory_nbytes: float,
        turns: int,
    ) -> Bound:
        """In so many microbatches, with the work of the largest and of the smallest."""
        step, latency = self._times(layout, parts, full, stages, turns)
        if least is not full:
            _, latency = self._times(layout, parts, least, stages, turns)
        if self._cores is not None:
            hosts, ranks = self.costs.cluster.only, parts * layout.partitions * layout.data
            cores = min(self._cores, hosts.devices_per_host) * hosts.hosts
            layers = sum(n * ranks * s for n, s in zip(self.counts(), least.least_compute_s, strict=True))
            step = max(step, layers / cores)
        return Bound(step, latency, memory_nbytes)

    def _times(self, layout: Layout, parts: int, work: LayerCosts, stages: Stages, turns: int) -> tuple[float, float]:
        """Seconds of a step, and until a sequence is done (mean), with so many microbatches of this work."""
        turn = self._mean_turn(layout, parts)
        step = latency = whole = self._whole(work, stages.sent_s)
        for stage in stages.unlike:
            held, alone = passing(work, stage, turns=turns > 1)
            step = max(step, parts * held + whole - alone)
            latency = max(latency, turn * held + whole - alone)  # when the i-th part is done, i have passed the stage
        return step, latency

    def _unlike_stages(self, layout: Layout, links: Sequence[float]) -> Stages:
        key = (id(links), layout.pipeline, layout.stages)
        found = self._stages.get(key)
        if found is None:
            # Of layers that are alike: without links a stage between two others takes no longer than the first.
            every = links or layout.pipeline == 1 or layout.has_unlike_stages(self.costs.model)
            stages = range(layout.pipeline) if every else (0, layout.pipeline - 1)
            unlike = dict.fromkeys([self._stage(layout, links, stage) for stage in stages])
            found = self._stages[key] = Stages(tuple(unlike), sum(links))
        return found

    def _stage(self, layout: Layout, links: Sequence[float], stage: int) -> Stage:
        beside = sum(links[max(0, stage - 1) : stage + 1]) if links else 0.0
        return Stage(self.counts(layout, stage), stage == 0, stage == layout.pipeline - 1, beside)

    def passing(self, layout: Layout, work: LayerCosts, links: Sequence[float], stage: int) -> tuple[float, float]:
        """For how long a microbatch keeps a stage from the next one; and what part of its own way that is.

        A rank comes to the transfer of the next microbatch when it has computed the one before, and has sent that on:
        both are in one lane. The first stage receives nothing, and sends while it computes.
        """
        return passing(work, self._stage(layout, links, stage), turns=layout.interleave > 1)

    def _mean_turn(self, layout: Layout, parts: int) -> float:
        """The place of a sequence's microbatch among those of its replica, from 1; mean over the sequences.

        Of unequal microbatches the larger go first; the replica with some of either has the lowest mean.
        """
        key = (layout.data, parts, shared := layout.expert_data)
        if key not in self._places:
            size, larger = divmod(self.costs.workload.batch, layout.data * parts)
            larger %= parts * shared
            self._places[key] = min(
                [
                    (size * parts * (parts + 1) + mine * (mine + 1)) / 2 / (size * parts + mine)
                    for mine in {larger // shared, -(-larger // shared)}
                ]
            )
        return self._places[key]

    def _memory(self, layout: Layout, parts: int, work: LayerCosts) -> float:
        """The first stage holds most layers; the last keeps all of the output, and the input if it is the first.

        Where layers are of several kinds another stage may hold more.

        What is live in a layer is worked out where it can decide whether the layout fits, or where memory is compared.
        """
        last, kept = layout.pipeline - 1, (parts - 1) * work.output_nbytes
        if last == 0:
            given = 0 if self.costs.model.vocabulary else parts * work.output_nbytes
            fixed = self._weights(layout, work, 0) + kept + self.costs.ends_nbytes(work) + given
        else:
            stages = range(1, last) if layout.has_unlike_stages(self.costs.model) else ()
            fixed = max(
                self._weights(layout, work, 0) + work.embed.weight_nbytes,
                self._weights(layout, work, last) + work.head.weight_nbytes + kept,
                *[self._weights(layout, work, stage) for stage in stages],
            )
        if not work.values_nbytes:
            return fixed
        if not self.exact_memory:
            if fixed + work.values_nbytes <= self._available:
                return fixed
            if fixed + work.made_nbytes > self._available:
                return fixed + work.made_nbytes
        even = layout.model_copy(update={"experts": 1}) if self.work.is_spread_alike(layout) else layout
        return fixed + self.costs.live_nbytes(even, self.work.sizes(layout, parts).largest)

    def _weights(self, layout: Layout, work: LayerCosts, stage: int) -> int:
        """Bytes of the weights of a stage's layers."""
        counts = self.counts(layout, stage)
        return sum([n * its.weight_nbytes for n, its in zip(counts, work.layers, strict=True)])

    def seconds(self, layout: Layout) -> tuple[list[float], float, float]:
        """Of every layer, of the embedding and of the head, in one microbatch without others."""
        largest, model = self.work.sizes(layout, layout.microbatches).largest, self.costs.model
        work = self.work.with_communication(layout, largest)
        of_kind = {kind: its.alone_s for kind, its in zip(model.kinds, work.layers, strict=True)}
        layers = [of_kind[model.kind(layer)] for layer in range(model.layers)]
        return layers, work.embed.alone_s, work.head.alone_s


def _loosened(bound: Bound) -> Bound:
    """Surely not above another bound that sums the same terms, and more, in another order."""
    return Bound(bound.step_s * _SLACK, bound.latency_s * _SLACK, bound.memory_nbytes)
