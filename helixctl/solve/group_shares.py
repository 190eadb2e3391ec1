"""Unequal shares of the groups of one team whose devices differ: weights that even out time, and fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd, inf
from operator import mul

from helixctl.plan import Layout
from helixctl.solve.differing import DifferingBounds
from helixctl.solve.places import Alike

_FINE = 64  # the weight of the group that has most, before it is reduced
_ROUNDS = 4  # of weights by the rates that groups have with the weights before
_ROOM = 0.95  # of a device's memory; what is live beside weights and the cache is not known yet

Kinds = frozenset[int]  # of hosts, on which the ranks of one group are


@dataclass(slots=True)
class GroupShares:
    """Layouts of one problem whose groups have shares by what their devices can do."""

    bounds: DifferingBounds
    _known: dict[object, tuple[str, ...]] = field(default_factory=dict, init=False)

    def of(self, layout: Layout, found: Sequence[Alike], times: Sequence[int]) -> Iterator[Layout]:
        """The layout with weights of its groups; none where these are on devices that are alike.

        Args:
            layout: with equal groups.
            found: its replicas.
            times: how often each step runs.
        """
        kinds = _kinds_of_groups(layout, found)
        apart = layout.groups > 1 and len(set(kinds)) > 1 and layout.expert_data == 1
        if not apart or (layout.slices > 1 and layout.strides["groups"] < layout.strides["slices"]):
            return
        # How a group's results come together changes what is exchanged, and hardly what is computed.
        sizes = tuple([min(its.sizes) for its in found])
        key = (tuple(kinds), sizes, layout.slices, layout.slicing, layout.experts, layout.pipeline, layout.stages)
        if key not in self._known:
            self._known[key] = tuple(dict.fromkeys(self._weights(layout, kinds, found, times)))
        for text in self._known[key]:
            yield layout.model_copy(update={"group_shares": text})

    def _weights(
        self, layout: Layout, kinds: Sequence[Kinds], found: Sequence[Alike], times: Sequence[int]
    ) -> Iterator[str]:
        """Weights by rates; and, where that is too much for some device, such as fit."""
        sequences = min(min(its.sizes) for its in found)
        one_each = dict.fromkeys(kinds, 1.0 / layout.groups)
        most = self._most(layout, kinds, found)
        for limits in (dict.fromkeys(kinds, 1.0), most):
            parts, best, text = one_each, inf, None
            for _ in range(_ROUNDS):
                seconds = self._seconds(layout, kinds, parts, sequences, times)
                fits = all(part <= limits[its] * (1 + 1e-9) for its, part in parts.items())
                if fits and max(seconds.values()) < best:
                    best, text = max(seconds.values()), _text(kinds, parts)
                parts = _dealt(kinds, {its: part / seconds[its] for its, part in parts.items()}, limits)
            if text and len(set(text.split("-"))) > 1:
                yield text

    def _seconds(
        self,
        layout: Layout,
        kinds: Sequence[Kinds],
        parts: Mapping[Kinds, float],
        sequences: int,
        times: Sequence[int],
    ) -> dict[Kinds, float]:
        """Seconds in which a group computes all layers in a microbatch, by the kinds of its devices."""
        one = layout.model_copy(update={"group_shares": _text(kinds, parts)})
        found = dict.fromkeys(parts, 0.0)
        for its in found:
            group = len(kinds) - 1 - kinds[::-1].index(its)
            for step, often in zip(self.bounds.steps, times, strict=True):
                counts, costs = step.kinds[0].counts(), [bounds.costs for bounds in step.kinds]
                layers = [costs[kind].on_any_rank(one, sequences, group) for kind in its]
                found[its] += often * max(sum(map(mul, counts, of_kinds)) for of_kinds in layers)
        return found

    def _most(self, layout: Layout, kinds: Sequence[Kinds], found: Sequence[Alike]) -> dict[Kinds, float]:
        """The part of all that a group may have, so that it fits in memory, by the kinds of its devices."""
        costs, model = self.bounds.costs, self.bounds.costs.model
        whole = costs.compute_only(Layout(groups=1, slices=1), 1)
        of_kind = {kind: its.weight_nbytes for kind, its in zip(model.kinds, whole.layers, strict=True)}
        alone = layout.model_copy(update={"groups": 1, "slices": 1, "experts": 1})
        cache = self.bounds.cache_nbytes(alone, max(sum(its.sizes) for its in found))
        nbytes = 0.0
        for stage in range(layout.pipeline):
            layers = sum(of_kind[model.kind(layer)] + cache[layer] for layer in layout.layers(stage, model))
            ends = whole.embed.weight_nbytes if stage == 0 else 0
            ends += whole.head.weight_nbytes if stage == layout.pipeline - 1 else 0
            nbytes = max(nbytes, layers + ends)
        device = self.bounds.cluster.kinds
        return {its: _ROOM * min(device[k].device.available for k in its) * layout.slices / nbytes for its in kinds}


def _kinds_of_groups(layout: Layout, found: Sequence[Alike]) -> list[Kinds]:
    """The kinds of hosts on which every group has ranks, of all stages and replicas."""
    kinds = [set[int]() for _ in range(layout.groups)]
    inner = layout.strides["groups"] < layout.strides["slices"]
    for place in {stage for its in found for stage in its.stages}:
        for at, kind in enumerate(place.of_ranks):
            kinds[at % layout.groups if inner else at // layout.slices].add(kind)
    return [frozenset(its) for its in kinds]


def _dealt(kinds: Sequence[Kinds], rates: Mapping[Kinds, float], most: Mapping[Kinds, float]) -> dict[Kinds, float]:
    """The part of all that each group has, by rates, within what fits."""
    found, left, open_ = dict[Kinds, float](), 1.0, [*rates]
    while open_:
        total = sum(rates[its] * kinds.count(its) for its in open_)
        over = [its for its in open_ if left * rates[its] / total > most[its]]
        for its in over or open_:
            found[its] = most[its] if over else left * rates[its] / total
        left = max(0.0, left - sum(found[its] * kinds.count(its) for its in over))
        open_ = [its for its in open_ if its not in found]
    return found


def _text(kinds: Sequence[Kinds], parts: Mapping[Kinds, float]) -> str:
    """Whole weights, as small as can be."""
    largest = max(parts.values())
    weights = [max(1, round(_FINE * parts[its] / largest)) for its in kinds]
    common = gcd(*weights)
    return "-".join(str(weight // common) for weight in weights)
