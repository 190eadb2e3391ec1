"""Unequal shares where hosts differ: layers by the stage's devices, sequences by the replica's, the rest by groups."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf

from helixctl.plan import Layout
from helixctl.plan.layout import share
from helixctl.plan.steps import step_of
from helixctl.solve.at_best import AtBest
from helixctl.solve.constraints import AxisConstraints
from helixctl.solve.differing import DifferingBounds
from helixctl.solve.group_shares import GroupShares
from helixctl.solve.places import Alike, Place, alike

# What is live beside weights and the cache is not known of a layout that is not simulated: shares are also made for
# devices that have so much less memory.
_ROOM = (1.0, 0.95)
_ROUNDS = 4  # of shares by the rates that replicas have with the shares before
_MOVES = 32  # of one unit from the slowest replica to a quick one


@dataclass(slots=True)
class UnequalShares:
    """Layouts of one problem with shares that even out time, and fit in memory.

    Attributes:
        bounds: of the layouts.
        constraints: axes that have one value.
        within: seconds that no layout may exceed by what it computes; None: any.
    """

    bounds: DifferingBounds
    constraints: AxisConstraints
    within: float | None = None
    _stages: dict[object, str | None] = field(default_factory=dict, init=False)
    _shares: dict[object, str | None] = field(default_factory=dict, init=False)
    _groups: GroupShares = field(init=False)
    _at_best: AtBest | None = field(init=False)

    def __post_init__(self) -> None:
        """Work nothing out yet."""
        self._groups = GroupShares(self.bounds)
        self._at_best = None if self.within is None else AtBest(self.bounds, self.within)

    def of(self, layout: Layout) -> Iterator[Layout]:
        """The layout with unequal stages, replicas, both, or groups; none where its devices are alike."""
        found = alike(layout, self.bounds.cluster, self.bounds.costs.workload)
        stages, replicas, groups = self._unlike(layout, found)
        if self._at_best and (stages or replicas):
            least = layout.microbatches * self._least_of_a_microbatch(layout)
            if not self._at_best.reachable(layout, found, self._counts(layout), least):
                stages = replicas = False
        layouts = [layout, *(self._with_stages(layout, found) if stages else ())]
        for one in layouts:
            if one is not layout:
                yield one
            if replicas:
                yield from self._with_shares(one)
        if groups:
            yield from self._groups.of(layout, found, self._counts(layout))

    def _unlike(self, layout: Layout, found: Sequence[Alike]) -> tuple[bool, bool, bool]:
        """Whether stages, replicas and groups may have unequal shares."""
        stages = "stages" not in self.constraints and any(its.unlike_stages for its in found)
        replicas = "batch_shares" not in self.constraints and len({its.stages for its in found}) > 1
        return stages, replicas, layout.groups > 1 and "group_shares" not in self.constraints

    # --- layers by stage ---------------------------------------------------------------------------------------------

    def _with_stages(self, layout: Layout, found: Sequence[Alike]) -> list[Layout]:
        places = [tuple(its.stages[stage] for its in found) for stage in range(layout.pipeline)]
        sizes = tuple(its.sizes for its in found)
        texts = []
        for room in _ROOM:
            key = (room, tuple(places), sizes, layout.model_copy(update={"placement": "slices-groups-data-pipeline"}))
            if key not in self._stages:
                self._stages[key] = self._stages_of(layout, places, found, room)
            texts.append(self._stages[key])
        return [layout.model_copy(update={"stages": text}) for text in dict.fromkeys(texts) if text]

    def _stages_of(
        self, layout: Layout, places: Sequence[tuple[Place, ...]], found: Sequence[Alike], room: float
    ) -> str | None:
        """Layers of every stage; None where they are equal, or do not fit."""
        layers, microbatches = self.bounds.costs.model.layers, layout.microbatches
        sizes = [min(its.sizes) for its in found]
        each, ends = [], []
        for stage, its in enumerate(places):
            of_layer, of_ends = zip(
                *(self._seconds(layout, place, size, stage) for place, size in zip(its, sizes, strict=True)),
                strict=True,
            )
            each.append(max(of_layer))
            ends.append(max(of_ends))
        most = [
            min(self._most_layers(layout, place, its, stage, room) for place, its in zip(row, found, strict=True))
            for stage, row in enumerate(places)
        ]
        dealt = dealt_layers(layers, each, ends, most, microbatches)
        even = tuple(len(layout.layers_of(stage, layers)) for stage in range(layout.pipeline))
        return "-".join(map(str, dealt)) if dealt and dealt != even else None

    def _seconds(self, layout: Layout, place: Place, sequences: int, stage: int) -> tuple[float, float]:
        """Of a layer, the mean of its kinds, and of the ends that a stage has, in one microbatch."""
        layer = ends = 0.0
        for step, times in zip(self.bounds.steps, self._counts(layout), strict=True):
            work = step.work(layout, place, sequences, exchanged=True)
            counts = step.kinds[0].counts()
            every = sum(n * its.alone_s for n, its in zip(counts, work.layers, strict=True))
            layer += times * every / sum(counts)
            ends += times * (work.embed.alone_s if stage == 0 else 0.0)
            ends += times * (work.head.alone_s if stage == layout.pipeline - 1 else 0.0)
        return layer, ends

    def _counts(self, layout: Layout) -> list[int]:
        """How often each step runs."""
        if self.bounds.generation is None:
            return [1]
        return list(self.bounds.generation.count(layout))

    def _most_layers(self, layout: Layout, place: Place, its: Alike, stage: int, room: float) -> int:
        """Layers that fit in the memory of a stage's devices, whose weights and cache are the mean of all layers'."""
        model = self.bounds.costs.model
        cache = sum(self.bounds.cache_nbytes(layout, sum(its.sizes))) / model.layers
        step = self.bounds.steps[-1]
        work = step.work(layout, place, min(its.sizes), exchanged=False)
        counts = step.kinds[0].counts()
        layer = sum(n * lane.weight_nbytes for n, lane in zip(counts, work.layers, strict=True)) / model.layers
        last = layout.pipeline - 1
        ends = (work.embed.weight_nbytes if stage == 0 else 0) + (work.head.weight_nbytes if stage == last else 0)
        least = min(self.bounds.cluster.kinds[kind].device.available for kind in place.kinds)
        return int((room * least - ends) // (layer + cache)) if layer + cache else model.layers

    # --- sequences by replica ----------------------------------------------------------------------------------------

    def _with_shares(self, layout: Layout) -> Iterator[Layout]:
        batch = self.bounds.costs.workload.batch
        unit = layout.microbatches if batch % layout.microbatches == 0 else 1
        stages = [its.stages for its in alike(layout, self.bounds.cluster, self.bounds.costs.workload)]
        of_replica: dict[int, tuple[Place, ...]] = {}
        for its in alike(layout, self.bounds.cluster, self.bounds.costs.workload):
            of_replica |= dict.fromkeys(its.replicas, its.stages)
        places = [of_replica[replica] for replica in range(layout.data)]
        key = (tuple(places), layout.model_copy(update={"placement": "slices-groups-data-pipeline"}))
        if key not in self._shares:
            self._shares[key] = self._shares_of(layout, places, batch // unit, unit) if stages else None
        if text := self._shares[key]:
            yield layout.model_copy(update={"batch_shares": text})

    def _shares_of(self, layout: Layout, places: Sequence[tuple[Place, ...]], units: int, unit: int) -> str | None:
        """Sequences of every replica; None where an equal share is as good."""
        least = -(-layout.microbatches * self._least_of_a_microbatch(layout) // unit)
        if units < least * layout.data:
            return None
        most = [max(least, self._most_sequences(layout, its) // unit) for its in places]
        known: dict[tuple[tuple[Place, ...], int], float] = {}

        def seconds(replica: int, count: int) -> float:
            key = (places[replica], count)
            if key not in known:
                known[key] = self._of_replica(layout, places[replica], count * unit)
            return known[key]

        counts = [share(units, layout.data, replica) for replica in range(layout.data)]
        even = [last - first for first, last in counts]
        best, found = inf, even
        shares = even
        for _ in range(_ROUNDS):
            slowest = max(seconds(replica, count) for replica, count in enumerate(shares))
            if slowest < best:
                best, found = slowest, shares
            rates = [count / seconds(replica, count) for replica, count in enumerate(shares)]
            shares = dealt_units(units, rates, least, most)
        found = _evened(found, seconds, least, most)
        return None if found == even else "-".join(str(count * unit) for count in found)

    def _least_of_a_microbatch(self, layout: Layout) -> int:
        """Sequences that a microbatch has at least, so that every rank of a team has one where they share them."""
        rows = min(
            step_of(self.bounds.costs.workload, layout, step.kinds[0].costs.step).seq_len for step in self.bounds.steps
        )
        of_stream = layout.partitions if layout.residual == "sharded" and rows < layout.partitions else 1
        return max(layout.slices if layout.shared_dim == "batch" else 1, of_stream)

    def _of_replica(self, layout: Layout, places: Sequence[Place], sequences: int) -> float:
        """Seconds of a replica with so many sequences in all steps."""
        parts = [share(sequences, layout.microbatches, part) for part in range(layout.microbatches)]
        sizes = [last - first for first, last in parts]
        return sum(
            times * step.of_replica(layout, places, sizes, exchanged=True)[0]
            for step, times in zip(self.bounds.steps, self._counts(layout), strict=True)
        )

    def _most_sequences(self, layout: Layout, places: Sequence[Place]) -> int:
        """Sequences whose cache fits beside the weights, on every stage of a replica."""
        batch = self.bounds.costs.workload.batch
        one = self.bounds.cache_nbytes(layout, 1)
        its = Alike((0,), tuple(places), (1,) * layout.microbatches)
        most = batch
        for held, place in zip(self.bounds.steps[-1].held(layout, its), places, strict=False):
            stage = places.index(place)
            cache = sum(one[layer] for layer in layout.layers(stage, self.bounds.costs.model))
            room = _ROOM[-1] * self.bounds.cluster.kinds[held.kind].device.available - held.nbytes
            most = min(most, int(room // cache)) if cache else most
        return most


def dealt_layers(
    layers: int, each: Sequence[float], ends: Sequence[float], most: Sequence[int], microbatches: int
) -> tuple[int, ...] | None:
    """Layers of every stage, so that a step of so many microbatches takes as little as can be; None: they do not fit.

    All microbatches but the first wait for the slowest stage, and the first goes through all of them.

    Args:
        layers: of the model.
        each: seconds of a layer, of every stage.
        ends: seconds of what else a stage has.
        most: layers that fit in a stage.
        microbatches: that follow one another.
    """
    stages = range(len(each))
    if any(its < 1 for its in most) or sum(most) < layers or len(each) > layers:
        return None
    quickest = sorted(stages, key=lambda stage: each[stage])

    def room(limit: float) -> list[int]:
        """Layers that a stage has time for within a limit, and memory."""
        return [min(most[s], int((limit - ends[s]) / each[s] * (1 + 1e-12))) if each[s] else most[s] for s in stages]

    def within(limit: float) -> tuple[float, float, tuple[int, ...]]:
        """Seconds of a step whose slowest stage keeps a limit, those of one microbatch through all, and the sizes."""
        sizes, left, free = [1] * len(each), layers - len(each), room(limit)
        for stage in quickest:
            more = min(left, free[stage] - 1)
            sizes[stage], left = sizes[stage] + more, left - more
        times = [ends[s] + sizes[s] * each[s] for s in stages]
        return (microbatches - 1) * max(times) + sum(times), sum(times), tuple(sizes)

    limits = sorted({ends[s] + n * each[s] for s in stages for n in range(1, min(layers, most[s]) + 1)})
    best, through, found = within(limits[-1])
    first = bisect_left(limits, 1, key=lambda limit: min(room(limit)) >= 1 and sum(room(limit)) >= layers)
    for limit in limits[first:] if microbatches > 1 else ():
        if (microbatches - 1) * limit + through >= best:
            break
        seconds, _, sizes = within(limit)
        if seconds < best:
            best, found = seconds, sizes
    return found


def dealt_units(units: int, rates: Sequence[float], least: int, most: Sequence[int]) -> list[int]:
    """Units by rates, at least so many of each, and where they fit at most so many: rounded, the largest rests up."""
    found, open_, left = [0] * len(rates), list(range(len(rates))), units
    while open_:
        total = sum(rates[i] for i in open_)
        over = [i for i in open_ if left * rates[i] / total > most[i]]
        under = [i for i in open_ if left * rates[i] / total < least]
        fixed = over or under
        if not fixed or len(fixed) == len(open_):
            break
        for i in fixed:
            found[i] = most[i] if over else least
            left -= found[i]
        open_ = [i for i in open_ if i not in fixed]
    total = sum(rates[i] for i in open_)
    exact = [left * rates[i] / total for i in open_]
    ends = [0, *(round(end) for end in accumulate(exact))]
    for i, first, last in zip(open_, ends, ends[1:], strict=False):
        found[i] = last - first
    return found


def _evened(counts: Sequence[int], seconds: Callable[[int, int], float], least: int, most: Sequence[int]) -> list[int]:
    """The counts after single units have gone from the slowest to the one that is quickest with one more."""
    found = list(counts)
    for _ in range(_MOVES):
        slowest = max(range(len(found)), key=lambda i: seconds(i, found[i]))
        others = [i for i in range(len(found)) if i != slowest and found[i] < most[i]]
        if found[slowest] <= least or not others:
            break
        quickest = min(others, key=lambda i: seconds(i, found[i] + 1))
        if seconds(quickest, found[quickest] + 1) >= seconds(slowest, found[slowest]):
            break
        found[slowest] -= 1
        found[quickest] += 1
    return found
