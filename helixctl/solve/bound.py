"""Lower bounds on a layout's step: what lets the search leave most layouts unsimulated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, NamedTuple

from helixctl.plan import Layout
from helixctl.solve.hosts import uniform_placement
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


class _Stage(NamedTuple):
    """A stage, by what a microbatch takes in it.

    Attributes:
        counts: its layers, by their kind.
        first, last: which of the ends of the model it has.
        beside_s: of the links before and behind it.
    """

    counts: tuple[int, ...]
    first: bool
    last: bool
    beside_s: float


_NO_LINKS: Final[Sequence[float]] = ()


@dataclass(slots=True)
class Bounds:
    """Lower bounds for the layouts of one problem; what layouts share is worked out once."""

    costs: LayoutCosts
    exact_memory: bool = True
    _quick: dict[object, Bound] = field(default_factory=dict, init=False)
    _tight: dict[Layout, Bound] = field(default_factory=dict, init=False)
    _turns: dict[object, float] = field(default_factory=dict, init=False)
    _layers: dict[tuple[int, str | None, int] | None, tuple[int, ...]] = field(default_factory=dict, init=False)
    _computing: dict[object, LayerCosts] = field(default_factory=dict, init=False)
    _exchanging: dict[object, LayerCosts] = field(default_factory=dict, init=False)
    _of_links: dict[object, Sequence[float]] = field(default_factory=dict, init=False)
    _stages: dict[object, tuple[float, tuple[_Stage, ...]]] = field(default_factory=dict, init=False)
    _places: dict[object, float] = field(default_factory=dict, init=False)
    _transfers: Transfers = field(init=False)
    _narrowest: int = field(init=False)  # width of a feed-forward network, or of an expert
    _available: float = field(init=False)  # asked for with every bound, as are the cores
    _cores: int | None = field(init=False)

    def __post_init__(self) -> None:
        """Price nothing yet."""
        model, hosts = self.costs.model, self.costs.cluster.only
        self._narrowest = min(model.alike(kind).feed_forward.intermediate_size for kind in model.kinds)
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
            found = self._tight[layout] = self._bound(layout, self.with_communication, self._links(layout))
        return found

    def with_turns(self, layout: Layout) -> Bound:
        """The same, and where microbatches take turns what the tasks of a rank take in their order.

        Any stage: the first microbatch comes to it through the layers before, then its rank has all tasks of all
        microbatches, then the last goes through the layers behind.
        """
        found = self(layout)
        if layout.interleave == 1 or self._cores is not None:
            return found
        sequences, links = self._sizes(layout)[0], self._links(layout)
        work, step_s = self.with_communication(layout, sequences), found.step_s
        whole = self._whole(work, sum(links))
        for stage in {0, layout.pipeline - 1}:
            _, alone = self.passing(layout, work, links, stage)
            step_s = max(step_s, self._of_a_rank(layout, sequences, stage) + whole - alone)
        return found._replace(step_s=step_s)

    def quick(self, layout: Layout) -> Bound:
        """Looser bounds: as if nothing were exchanged, so that neither placement, gather order nor turns matter."""
        key = (layout.data, layout.pipeline, layout.stages, layout.microbatches, self.costs.axes.of(layout.__dict__))
        found = self._quick.get(key)
        if found is None:
            found = self._quick[key] = self._bound(layout, self.compute_only, _NO_LINKS)
        return found

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
        smallest = self._sizes(layout)[1]
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

    def with_communication(self, layout: Layout, sequences: int) -> LayerCosts:
        """The work of a microbatch. How experts are spread changes what is computed, not what is exchanged and live."""
        at = layout.strides
        wires = (at["groups"], at["slices"], at["data"] if layout.expert_data > 1 else 0)  # they follow from these
        key = (self._own(layout, sequences), layout.gather_order, *wires)
        found = self._exchanging.get(key)
        if found is None:
            found = self._exchanging[key] = self._with_communication(layout, sequences)
        return found

    def _with_communication(self, layout: Layout, sequences: int) -> LayerCosts:
        if not self._spread_alike(layout):
            return self.costs.with_communication(layout, sequences)
        even = self.costs.with_communication(layout.model_copy(update={"experts": 1}), sequences)
        mine = self.compute_only(layout, sequences)
        layers = tuple(
            [
                its._replace(
                    communication_s=other.communication_s,
                    alone_s=its.compute_s + (other.alone_s - other.compute_s),
                )
                for its, other in zip(mine.layers, even.layers, strict=True)
            ]
        )
        return even._replace(layers=layers, least_compute_s=mine.least_compute_s)

    def compute_only(self, layout: Layout, sequences: int) -> LayerCosts:
        """The work of a microbatch as if nothing were exchanged."""
        key = self._own(layout, sequences)
        found = self._computing.get(key)
        if found is None:
            found = self._computing[key] = self.costs.compute_only(layout, sequences)
        return found

    def _own(self, layout: Layout, sequences: int) -> object:
        """Equal where a microbatch of so many sequences is the same computation."""
        joined = 0 if layout.expert_data == 1 else layout.microbatch_of(sequences, self.costs.workload).joined[1]
        return (sequences, joined, self.costs.new_tokens(layout), self.costs.axes.of(layout.__dict__))

    def _bound(self, layout: Layout, work: Callable[[Layout, int], LayerCosts], links: Sequence[float]) -> Bound:
        largest, smallest = self._sizes(layout)
        full = work(layout, largest)
        least = full if smallest == largest else work(layout, smallest)
        step, latency = self._times(layout, full, links)
        if least is not full:
            _, latency = self._times(layout, least, links)
        if self._cores is not None:
            hosts, parts = self.costs.cluster.only, layout.microbatches * layout.partitions * layout.data
            cores = min(self._cores, hosts.devices_per_host) * hosts.hosts
            layers = sum(n * parts * s for n, s in zip(self.counts(), least.least_compute_s, strict=True))
            step = max(step, layers / cores)
        return Bound(step, latency, self._memory(layout, full))

    def _sizes(self, layout: Layout) -> tuple[int, int]:
        """Sequences of the smallest microbatch of the first replica, which has most, and of the smallest of all."""
        parts = layout.microbatches
        smallest, larger = divmod(self.costs.workload.batch, layout.data * parts)
        return smallest + (larger > (parts - 1) * layout.expert_data), smallest

    def _times(self, layout: Layout, work: LayerCosts, links: Sequence[float]) -> tuple[float, float]:
        """Seconds of a step, and until a sequence is done (mean), with microbatches of this work.

        Args:
            layout: its stages and microbatches.
            work: of a microbatch.
            links: seconds from each stage to the next.
        """
        turn, parts, turns = self._mean_turn(layout), layout.microbatches, layout.interleave > 1
        sent, stages = self._unlike_stages(layout, links)
        step = latency = whole = self._whole(work, sent)
        for stage in stages:
            held, alone = _passing(work, stage, turns=turns)
            step = max(step, parts * held + whole - alone)
            latency = max(latency, turn * held + whole - alone)  # when the i-th part is done, i have passed the stage
        return step, latency

    def _unlike_stages(self, layout: Layout, links: Sequence[float]) -> tuple[float, tuple[_Stage, ...]]:
        """Seconds of all links between stages; and the stages, of equal ones one."""
        key = (id(links), layout.pipeline, layout.stages)
        found = self._stages.get(key)
        if found is None:
            # Of layers that are alike: without links a stage between two others takes no longer than the first.
            every = links or layout.pipeline == 1 or layout.has_unlike_stages(self.costs.model)
            stages = range(layout.pipeline) if every else (0, layout.pipeline - 1)
            unlike = dict.fromkeys([self._stage(layout, links, stage) for stage in stages])
            found = self._stages[key] = sum(links), tuple(unlike)
        return found

    def _stage(self, layout: Layout, links: Sequence[float], stage: int) -> _Stage:
        beside = sum(links[max(0, stage - 1) : stage + 1]) if links else 0.0
        return _Stage(self.counts(layout, stage), stage == 0, stage == layout.pipeline - 1, beside)

    def passing(self, layout: Layout, work: LayerCosts, links: Sequence[float], stage: int) -> tuple[float, float]:
        """For how long a microbatch keeps a stage from the next one; and what part of its own way that is.

        A rank comes to the transfer of the next microbatch when it has computed the one before, and has sent that on:
        both are in one lane. The first stage receives nothing, and sends while it computes.
        """
        return _passing(work, self._stage(layout, links, stage), turns=layout.interleave > 1)

    def _mean_turn(self, layout: Layout) -> float:
        """The place of a sequence's microbatch among those of its replica, from 1; mean over the sequences.

        Of unequal microbatches the larger go first; the replica with some of either has the lowest mean.
        """
        key = (layout.data, parts := layout.microbatches, shared := layout.expert_data)
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

    def _memory(self, layout: Layout, work: LayerCosts) -> float:
        """The first stage holds most layers; the last keeps all of the output, and the input if it is the first.

        Where layers are of several kinds another stage may hold more.

        What is live in a layer is worked out where it can decide whether the layout fits, or where memory is compared.
        """
        last, kept = layout.pipeline - 1, (layout.microbatches - 1) * work.output_nbytes
        if last == 0:
            given = 0 if self.costs.model.vocabulary else layout.microbatches * work.output_nbytes
            fixed = self._weights(layout, work, 0) + kept + self.costs.ends_nbytes(work) + given
        else:
            stages = range(1, last) if layout.has_unlike_stages(self.costs.model) else ()
            fixed = max(
                self._weights(layout, work, 0) + work.embed.weight_nbytes,
                self._weights(layout, work, last) + work.head.weight_nbytes + kept,
                *[self._weights(layout, work, stage) for stage in stages],
            )
        if not work.values_nbytes or (fixed + work.values_nbytes <= self._available and not self.exact_memory):
            return fixed
        even = layout.model_copy(update={"experts": 1}) if self._spread_alike(layout) else layout
        return fixed + self.costs.live_nbytes(even, self._sizes(layout)[0])

    def _weights(self, layout: Layout, work: LayerCosts, stage: int) -> int:
        """Bytes of the weights of a stage's layers."""
        counts = self.counts(layout, stage)
        return sum([n * its.weight_nbytes for n, its in zip(counts, work.layers, strict=True)])

    def seconds(self, layout: Layout) -> tuple[list[float], float, float]:
        """Of every layer, of the embedding and of the head, in one microbatch without others."""
        work, model = self.with_communication(layout, self._sizes(layout)[0]), self.costs.model
        of_kind = {kind: its.alone_s for kind, its in zip(model.kinds, work.layers, strict=True)}
        layers = [of_kind[model.kind(layer)] for layer in range(model.layers)]
        return layers, work.embed.alone_s, work.head.alone_s

    def _spread_alike(self, layout: Layout) -> bool:
        """Whether what is exchanged and live would be the same if all devices held an equal share of every expert.

        Side by side experts compute while attention exchanges: how much of that they hide depends on their spread.
        """
        alike = layout.experts > 1 and self._narrowest >= layout.expert_devices and not layout.group_shares
        return alike and not self.costs.model.side_by_side


def _passing(work: LayerCosts, stage: _Stage, *, turns: bool) -> tuple[float, float]:
    """As ``Bounds.passing``, of microbatches that take turns or do not."""
    compute = communication = alone = 0.0
    for n, layer in zip(stage.counts, work.layers, strict=True):
        compute += n * layer.compute_s
        communication += n * layer.communication_s
        alone += n * layer.alone_s
    for here, end in ((stage.first, work.embed), (stage.last, work.head)):
        if here:
            compute, communication, alone = (
                compute + end.compute_s,
                communication + end.communication_s,
                alone + end.alone_s,
            )
    if turns:
        return max(compute, communication + stage.beside_s), alone + stage.beside_s
    serial = alone if stage.first else alone + stage.beside_s
    return serial, serial
