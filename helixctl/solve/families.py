"""Layouts that are looked at together, so that most of them are never made: those of one mesh, and of one work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, Self

from helixctl.plan import Layout
from helixctl.solve.objective import simplicity

# Axes that say in which order a rank does its work, and where the ranks stand, with their values.
Order = Mapping[str, Any]


class Family(NamedTuple):
    """Layouts that differ only in the order in which a rank does its work, and in where the ranks stand.

    Attributes:
        first: the simplest of them: what it computes of a sequence is what all of them do.
        orders: of each layout gather order, placement, microbatches, and how many of these take turns.
    """

    first: Layout
    orders: Sequence[Order]

    @classmethod
    def of(cls, one: Layout, orders: Sequence[Order]) -> Self:
        """The family of a layout in these orders; there is at least one."""
        fewest = min([(order["microbatches"], order["interleave"]) for order in orders])
        simple = [x for x in orders if (x["microbatches"], x["interleave"]) == fewest]
        return cls(min([one.model_copy(update=order) for order in simple], key=simplicity), orders)

    def layouts(self) -> Iterator[Layout]:
        """All of them."""
        return (self.first.model_copy(update=order) for order in self.orders)

    @property
    def sizes(self) -> list[int]:
        """The numbers of microbatches."""
        return list(dict.fromkeys([order["microbatches"] for order in self.orders]))

    def of_size(self, microbatches: int) -> Self:
        """Those in so many microbatches; the first may be none of them, in an order in which none is tried."""
        orders = [order for order in self.orders if order["microbatches"] == microbatches]
        return self._replace(first=self.first.model_copy(update={"microbatches": microbatches}), orders=orders)

    def each(self, belongs: Callable[[Layout], bool]) -> Self | None:
        """Those that are of a kind; None where there are none."""
        orders = [order for order in self.orders if belongs(self.first.model_copy(update=order))]
        return self.of(self.first, orders) if orders else None


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
        return max([int(order["microbatches"]) for family in self.families for order in family.orders])

    def layouts(self) -> Iterator[Layout]:
        """All of them."""
        return chain.from_iterable(family.layouts() for family in self.families)

    def __len__(self) -> int:
        """How many there are."""
        return sum([len(family.orders) for family in self.families])


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
