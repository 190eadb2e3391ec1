"""Layouts that are looked at together, so that most of them are never made: those of one mesh, and of one work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, Self

from helixctl.plan import Layout
from helixctl.solve.axes import Order
from helixctl.solve.objective import simplicity, simplicity_of

Orders = Mapping[int, Sequence[Order]]  # by their number of microbatches


class Family(NamedTuple):
    """Layouts that differ only in the order in which a rank does its work, and in where the ranks stand.

    Attributes:
        first: the simplest of them: what it computes of a sequence is what all of them do.
        orders: of each layout gather order, placement, microbatches, and how many of these take turns.
    """

    first: Layout
    orders: Orders

    @classmethod
    def of(cls, one: Layout, orders: Orders) -> Self:
        """The family of a layout in these orders; there is at least one."""
        return cls.beginning(one, simplest(one, orders), orders)

    @classmethod
    def beginning(cls, one: Layout, first: Order, orders: Orders) -> Self:
        """The same where it is known in which of the orders a layout is simplest."""
        values = one.__dict__
        return cls(one if {**values, **first} == values else one.model_copy(update=first), orders)

    def layout(self, order: Order) -> Layout:
        """That of one of the orders."""
        return self.first.model_copy(update=order)

    def layouts(self) -> Iterator[Layout]:
        """All of them."""
        return map(self.layout, chain.from_iterable(self.orders.values()))

    @property
    def sizes(self) -> Sequence[int]:
        """The numbers of microbatches."""
        return list(self.orders)

    @property
    def is_of_one_size(self) -> bool:
        """Whether all of them are in as many microbatches."""
        return len(self.orders) == 1

    def of_size(self, microbatches: int) -> Self:
        """Those in so many microbatches; the first may be none of them."""
        return type(self)(self.first, {microbatches: self.orders[microbatches]})

    @property
    def size(self) -> int:
        """The number of microbatches of those that are of one size."""
        (size,) = self.orders
        return size

    def each(self, belongs: Callable[[Layout], bool]) -> Self | None:
        """Those that are of a kind; None where there are none."""
        orders = by_size(x for its in self.orders.values() for x in its if belongs(self.layout(x)))
        return self.of(self.first, orders) if orders else None


def by_size(orders: Iterable[Order]) -> Orders:
    """Orders of work and of ranks by their number of microbatches."""
    found: dict[int, list[Order]] = {}
    for order in orders:
        found.setdefault(order["microbatches"], []).append(order)
    return found


def simplest(one: Layout, orders: Orders) -> Order:
    """The order in which a layout, and any other, is simplest."""
    some = orders[min(orders)]
    fewest = min([order["interleave"] for order in some])
    return min(
        [order for order in some if order["interleave"] == fewest],
        key=lambda order: simplicity_of({**one.__dict__, **order}),
    )


@dataclass(frozen=True, slots=True, eq=False)
class MeshLayouts:
    """Layouts of one mesh, with as many groups, slices, replicas and stages; told apart by their identity.

    Attributes:
        families: of the layouts; at least one.
    """

    families: Sequence[Family]

    @property
    def mesh(self) -> tuple[int, int, int, int]:
        """As of each of the layouts."""
        return self.families[0].first.mesh

    @property
    def most_microbatches(self) -> int:
        """Microbatches of the layout that has most."""
        return max([max(family.orders) for family in self.families])

    def layouts(self) -> Iterator[Layout]:
        """All of them."""
        return chain.from_iterable(family.layouts() for family in self.families)

    def __len__(self) -> int:
        """How many there are."""
        return sum([len(its) for family in self.families for its in family.orders.values()])


Layouts = Layout | MeshLayouts  # one, or those of a mesh


def by_mesh(families: Iterable[Family]) -> list[MeshLayouts]:
    """Families, those of one mesh together; meshes in the order of their simplest layouts."""
    found: dict[tuple[int, int, int, int], list[Family]] = {}
    for family in families:
        found.setdefault(family.first.mesh, []).append(family)
    simplest = {mesh: min([simplicity(family.first) for family in its]) for mesh, its in found.items()}
    return [MeshLayouts(found[mesh]) for mesh in sorted(found, key=lambda mesh: simplest[mesh])]


def number_of(layouts: Iterable[Layouts]) -> int:
    """How many layouts there are."""
    return sum([1 if isinstance(its, Layout) else len(its) for its in layouts])


def every(layouts: Iterable[Layouts]) -> list[Layout]:
    """All layouts, the simplest first."""
    several = ([its] if isinstance(its, Layout) else its.layouts() for its in layouts)
    return sorted(chain.from_iterable(several), key=simplicity)


def of_kind(its: Layouts, belongs: Callable[[Layout], bool]) -> Layouts | None:
    """Those that are of a kind, to which all layouts of a family belong, or none; None where there are none."""
    if isinstance(its, Layout):
        return its if belongs(its) else None
    families = [family for family in its.families if belongs(family.first)]
    return MeshLayouts(families) if families else None


def each_of_kind(its: Layouts, belongs: Callable[[Layout], bool]) -> Layouts | None:
    """Those that are of a kind, to which some layouts of a family may belong; None where there are none."""
    if isinstance(its, Layout):
        return its if belongs(its) else None
    families = [found for family in its.families if (found := family.each(belongs))]
    return MeshLayouts(families) if families else None
