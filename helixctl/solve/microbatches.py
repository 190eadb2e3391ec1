"""The work of the microbatches of layouts, worked out once for all layouts that share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from helixctl.plan import Layout
from helixctl.solve.axes import Order
from helixctl.solve.outlined import Communication
from helixctl.solve.work import LaneCosts, LayerCosts, LayoutCosts


class Sizes(NamedTuple):
    """Sequences of a layout's microbatches.

    Attributes:
        largest: of the smallest microbatch of the first replica, which has most.
        smallest: of the smallest of all.
        even: whether all microbatches of all replicas have as many.
    """

    largest: int
    smallest: int
    even: bool

    def both(self, work: Callable[[int], LayerCosts]) -> tuple[LayerCosts, LayerCosts]:
        """The work of the largest and of the smallest, by their sequences; asked for once where they are as large."""
        largest = work(self.largest)
        return largest, largest if self.smallest == self.largest else work(self.smallest)


@dataclass(slots=True)
class Microbatches:
    """The work of the microbatches of one problem's layouts in one step."""

    costs: LayoutCosts
    _narrowest: int = field(init=False)  # width of a feed-forward network, or of an expert
    _sizes: dict[object, Sizes] = field(default_factory=dict, init=False)
    _computing: dict[object, LayerCosts] = field(default_factory=dict, init=False)
    _exchanging: dict[object, LayerCosts] = field(default_factory=dict, init=False)
    _communicating: dict[object, Sequence[Communication]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Price nothing yet."""
        model = self.costs.model
        self._narrowest = min(model.alike(kind).feed_forward.intermediate_size for kind in model.kinds)

    def sizes(self, layout: Layout, parts: int) -> Sizes:
        """In so many microbatches."""
        key = (layout.data, parts, layout.expert_data)
        found = self._sizes.get(key)
        if found is None:
            smallest, larger = divmod(self.costs.workload.batch, layout.data * parts)
            found = Sizes(smallest + (larger > (parts - 1) * layout.expert_data), smallest, not larger)
            self._sizes[key] = found
        return found

    def with_communication(self, layout: Layout, sequences: int) -> LayerCosts:
        """The work of a microbatch. How experts are spread changes what is computed, not what is exchanged and live."""
        at = layout.strides
        wires = (at["groups"], at["slices"], at["data"] if layout.expert_data > 1 else 0)  # they follow from these
        even = layout.expert_data == 1 or self.sizes(layout, layout.microbatches).even
        key = (sequences, even, self.axes(layout), layout.gather_order, *wires)
        found = self._exchanging.get(key)
        if found is None:
            found = self._exchanging[key] = self._with_communication(layout, sequences)
        return found

    def _with_communication(self, layout: Layout, sequences: int) -> LayerCosts:
        if not self.is_spread_alike(layout):
            return self.costs.with_communication(layout, sequences)
        even = self.with_communication(layout.model_copy(update={"experts": 1}), sequences)
        mine = self.compute_only(layout, sequences)
        layers = [
            LaneCosts(
                its.compute_s,
                other.communication_s,
                its.compute_s + (other.alone_s - other.compute_s),
                its.weight_nbytes,
            )
            for its, other in zip(mine.layers, even.layers, strict=True)
        ]
        held = (even.values_nbytes, even.made_nbytes, even.output_nbytes)
        return LayerCosts(tuple(layers), even.embed, even.head, mine.least_compute_s, *held)

    def with_least_communication(
        self, layout: Layout, parts: int, orders: Sequence[Order], sequences: int
    ) -> LayerCosts:
        """The work of one of so many microbatches, none of which takes longer in any of these orders."""
        mine, one = self._computed(layout, parts, sequences, self.axes(layout)), layout
        if self.is_spread_alike(layout):
            one = layout.model_copy(update={"experts": 1})
        layers = [
            LaneCosts(its.compute_s, least.seconds, its.compute_s + least.exposed_s)
            for its, least in zip(mine.layers, self._least_communication(one, parts, orders, sequences), strict=True)
        ]
        return LayerCosts(tuple(layers), mine.embed, mine.head, mine.least_compute_s, 0, 0, 0)

    def _least_communication(
        self, layout: Layout, parts: int, orders: Sequence[Order], sequences: int
    ) -> Sequence[Communication]:
        """The collectives of a layer of every kind, in the order that has least of them."""
        places = {(order["gather_order"], order["placement"]): order for order in orders}
        even = self.sizes(layout, parts).even
        key = (layout.data, layout.pipeline, even, sequences, self.axes(layout), *places)
        found = self._communicating.get(key)
        if found is None:
            each = [self.costs.communication(layout.model_copy(update=its), sequences) for its in places.values()]
            found = self._communicating[key] = tuple(map(_least, zip(*each, strict=True)))
        return found

    def compute_only(self, layout: Layout, sequences: int) -> LayerCosts:
        """The work of a microbatch as if nothing were exchanged."""
        return self._computed(layout, layout.microbatches, sequences, self.axes(layout))

    def computed(self, layout: Layout, parts: int, axes: object) -> tuple[LayerCosts, LayerCosts]:
        """The same of the largest and of the smallest of so many microbatches.

        Args:
            layout: how a microbatch is cut.
            parts: the number of microbatches.
            axes: as ``axes`` has them.
        """
        return self.sizes(layout, parts).both(lambda sequences: self._computed(layout, parts, sequences, axes))

    def _computed(self, layout: Layout, parts: int, sequences: int, axes: object) -> LayerCosts:
        key = (axes, sequences, layout.expert_data == 1 or self.sizes(layout, parts).even)
        found = self._computing.get(key)
        if found is None:
            found = self._computing[key] = self.costs.compute_only(_in_parts(layout, parts), sequences)
        return found

    def feed_forward(self, layout: Layout, parts: int) -> tuple[LayerCosts, LayerCosts]:
        """The work of feed-forward networks alone, of the largest and of the smallest of so many microbatches."""
        return self.sizes(layout, parts).both(partial(self.costs.feed_forward_only, _in_parts(layout, parts)))

    def axes(self, layout: Layout) -> object:
        """Equal where a microbatch of as many sequences is the same computation."""
        return self.costs.new_tokens(layout), self.costs.axes.of(layout.__dict__)

    def is_spread_alike(self, layout: Layout) -> bool:
        """Whether what is exchanged and live would be the same if all devices held an equal share of every expert.

        Side by side experts compute while attention exchanges: how much of that they hide depends on their spread.
        """
        alike = layout.experts > 1 and self._narrowest >= layout.expert_devices and not layout.group_shares
        return alike and not self.costs.model.side_by_side


def _in_parts(layout: Layout, parts: int) -> Layout:
    """A layout in so many microbatches, where it matters how many of their sequences other replicas have."""
    alone = layout.expert_data == 1 or parts == layout.microbatches
    return layout if alone else layout.model_copy(update={"microbatches": parts})


def _least(each: Sequence[Communication]) -> Communication:
    """What none of some layers takes less than."""
    return Communication(min([its.seconds for its in each]), min([its.exposed_s for its in each]))
