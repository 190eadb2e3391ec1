"""Lower bounds on a layout's step: what lets the search leave most layouts unsimulated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from helixctl.plan import Layout
from helixctl.solve.work import Parts, Work, Works


class Bound(NamedTuple):
    """What a layout takes at least; ``memory_nbytes`` on its fullest device."""

    step_s: float
    latency_s: float
    memory_nbytes: float


@dataclass(slots=True)
class Bounds:
    """Lower bounds for the layouts of one problem; what layouts share is worked out once."""

    works: Works
    _quick: dict[object, Bound] = field(default_factory=dict, init=False)
    _tight: dict[Layout, Bound] = field(default_factory=dict, init=False)
    _silent: dict[object, Parts] = field(default_factory=dict, init=False)

    def __call__(self, layout: Layout) -> Bound:
        """Bounds that no simulation of this layout is below.

        A layer of a microbatch takes what it takes alone: almost every task waits for the one before. Any stage, in
        turn: the first microbatch comes to it through the layers before, then all of them pass it, then the last goes
        through the layers behind. Microbatches that take turns can hide the shorter lane behind the longer, no more.
        Where ranks share cores, these have all the work to do. Of unequal microbatches all are taken to be as small as
        the smallest, of the fullest replica or of all.
        """
        if layout not in self._tight:
            self._tight[layout] = self._bound(layout, self.works.full)
        return self._tight[layout]

    def quick(self, layout: Layout) -> Bound:
        """Looser bounds: as if nothing were exchanged, so that neither placement nor gather order matter."""
        key = (layout.data, layout.pipeline, layout.microbatches, layout.interleave, *_computed(layout))
        if key not in self._quick:
            self._quick[key] = self._bound(layout, self._compute_only)
        return self._quick[key]

    def _compute_only(self, layout: Layout, sequences: int) -> Parts:
        key = (sequences, *_computed(layout))
        if key not in self._silent:
            self._silent[key] = self.works.silent(layout, sequences)
        return self._silent[key]

    def _bound(self, layout: Layout, work: Callable[[Layout, int], Parts]) -> Bound:
        largest, smallest = self._sizes(layout)
        full = work(layout, largest)
        least = full if smallest == largest else work(layout, smallest)
        step, latency = self._times(layout, full)
        if least is not full:
            _, latency = self._times(layout, least)
        first, last = (len(layout.layers(stage, self.works.model)) for stage in (0, layout.pipeline - 1))
        if self.works.cluster.cores_per_host is not None:
            parts = layout.microbatches * layout.partitions * layout.data
            cores = (
                min(self.works.cluster.cores_per_host, self.works.cluster.devices_per_host) * self.works.cluster.hosts
            )
            step = max(step, self.works.model.layers * parts * least.least_compute_s / cores)
        return Bound(step, latency, self._memory(layout, full, first, last))

    def _sizes(self, layout: Layout) -> tuple[int, int]:
        """Sequences of the smallest microbatch of the first replica, which has most, and of the smallest of all."""
        start, stop = layout.batch(0, layout.microbatches - 1, self.works.workload)
        return stop - start, self.works.workload.batch // (layout.data * layout.microbatches)

    def _times(self, layout: Layout, work: Parts) -> tuple[float, float]:
        """Seconds of a step, and until a sequence is done (mean), with microbatches of this work."""
        stages, parts, layers = layout.pipeline, layout.microbatches, self.works.model.layers
        first, last = (len(layout.layers(stage, self.works.model)) for stage in (0, stages - 1))
        layer, embed, head = work.layer, work.embed, work.head

        def passing(*works: tuple[int, Work]) -> float:
            """What a microbatch takes of a stage's time."""
            if layout.interleave == 1:
                return sum(n * w.alone_s for n, w in works)
            return max(sum(n * w.compute_s for n, w in works), sum(n * w.communication_s for n, w in works))

        turn = self._mean_turn(layout)
        whole = embed.alone_s + layers * layer.alone_s + head.alone_s
        if stages == 1:
            slowest = passing((layers, layer), (1, embed), (1, head))
            step, latency = parts * slowest, turn * slowest
        else:
            into, out = passing((first, layer), (1, embed)), passing((last, layer), (1, head))
            behind = (layers - first) * layer.alone_s + head.alone_s
            before = (layers - last) * layer.alone_s + embed.alone_s
            step = max(parts * into + behind, before + parts * out)
            # When the i-th part is done, the first stage has passed i parts.
            latency = turn * into + behind
        return step, max(whole, latency)

    def _mean_turn(self, layout: Layout) -> float:
        """The place of a sequence's microbatch among those of its replica, from 1; mean over the sequences.

        Of unequal microbatches the larger go first; the replica with some of either has the lowest mean.
        """
        parts = layout.microbatches
        size, larger = divmod(self.works.workload.batch, layout.data * parts)
        larger %= parts
        return (size * parts * (parts + 1) + larger * (larger + 1)) / 2 / (size * parts + larger)

    def _memory(self, layout: Layout, work: Parts, first: int, last: int) -> float:
        """The first stage holds most layers; the last keeps all of the output, and the input if it is the first."""
        layer, embed, head = (w.weight_nbytes for w in (work.layer, work.embed, work.head))
        kept = (layout.microbatches - 1) * work.output_nbytes
        if layout.pipeline == 1:
            given = 0 if self.works.model.vocabulary else layout.microbatches * work.output_nbytes
            return work.live_nbytes + last * layer + self.works.ends_nbytes(work) + kept + given
        return work.live_nbytes + max(first * layer + embed, last * layer + head + kept)


def _computed(layout: Layout) -> tuple[object, ...]:
    """The axes that decide what each rank computes in a layer of a microbatch."""
    slices = (layout.groups, layout.slices, layout.slicing, layout.experts)
    return (*slices, layout.combine, layout.reduction_dtype)
