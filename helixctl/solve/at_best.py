"""Whether a layout could take no longer than another with any unequal shares: else none of them is worked out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from helixctl.plan import Layout
from helixctl.plan.layout import share
from helixctl.solve.axes import layer_axes
from helixctl.solve.differing import DifferingBounds, StepBounds
from helixctl.solve.places import Alike, Place

Stages = tuple[Place, ...]
_AXES: Final = layer_axes(None, experts=True)


@dataclass(slots=True)
class AtBest:
    """What the replicas of one problem's layouts compute in so many seconds at most, as if nothing were exchanged.

    Attributes:
        bounds: of the layouts.
        seconds: of all steps.
    """

    bounds: DifferingBounds
    seconds: float
    _known: dict[object, float] = field(default_factory=dict, init=False)

    def reachable(self, layout: Layout, found: Sequence[Alike], times: Sequence[int], least: int) -> bool:
        """Whether some stages and some sequences of the replicas may take no longer than the seconds.

        Every replica is asked for one sequence more than a share by which all sequences but one are dealt. Where that
        takes all of them longer, so does any other deal: who has less than it leaves more to another.

        Args:
            layout: with equal shares.
            found: its replicas.
            times: how often each step runs.
            least: sequences that every replica has at least.
        """
        batch = self.bounds.costs.workload.batch
        replicas: dict[Stages, int] = {}
        even: dict[Stages, int] = {}
        for its in found:
            replicas[its.stages] = replicas.get(its.stages, 0) + len(its.replicas)
            even[its.stages] = min(even.get(its.stages, batch), sum(its.sizes))
        takes = {at: self._least(layout, at, size, times) for at, size in even.items()}
        if len(replicas) == 1 or layout.batch_shares:
            return min(takes.values()) <= self.seconds
        rates = {at: even[at] / takes[at] for at in even}
        total = sum(rates[at] * count for at, count in replicas.items())
        dealt = {at: int((batch - 1) * rates[at] / total) for at in even}
        # What rounding left goes to whom it costs most; the sum stays below the batch.
        left = batch - 1 - sum(dealt[at] * count for at, count in replicas.items())
        for at in sorted(even, key=lambda at: rates[at]):
            dealt[at] += left // replicas[at]
            left %= replicas[at]
        more = {at: max(size + 1, least) for at, size in dealt.items()}
        return any(self._least(layout, at, size, times) <= self.seconds for at, size in more.items())

    def _least(self, layout: Layout, stages: Stages, sequences: int, times: Sequence[int]) -> float:
        """Seconds that a replica computes at least in all steps, whatever layers its stages have."""
        parts = [share(sequences, layout.microbatches, part) for part in range(layout.microbatches)]
        sizes = [last - first for first, last in parts]
        key = (stages, min(sizes), len(sizes), layout.interleave, *_AXES.of(layout.__dict__))
        if key not in self._known:
            self._known[key] = sum(
                often * self._of_step(step, layout, stages, sizes)
                for step, often in zip(self.bounds.steps, times, strict=True)
            )
        return self._known[key]

    def _of_step(self, step: StepBounds, layout: Layout, stages: Stages, sizes: Sequence[int]) -> float:
        if len({stage.kinds for stage in stages}) == 1:
            return step.of_replica(layout, stages, sizes, exchanged=False)[0]
        works = [step.work(layout, stage, min(sizes), exchanged=False) for stage in stages]
        first = [lane.compute_s for lane in works[0].layers]
        # How much longer a stage takes for a layer than the first: of several kinds of layers the least.
        slower = [
            min((lane.compute_s / one for lane, one in zip(its.layers, first, strict=True) if one), default=1.0)
            for its in works
        ]
        model = sum(n * one for n, one in zip(step.kinds[0].counts(), first, strict=True))
        return len(sizes) * model / sum(1 / one for one in slower)
