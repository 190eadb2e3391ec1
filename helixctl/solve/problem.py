"""What a search asks of a layout: its bounds, its forecast, and how layouts compare under one objective."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import field, replace
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Final, NamedTuple, Self

from helixctl.plan import Layout, Plan
from helixctl.progress import at
from helixctl.records import record
from helixctl.solve.axes import Order
from helixctl.solve.bound import Bound, Bounds
from helixctl.solve.candidate import Candidate, simulated, size
from helixctl.solve.differing import DifferingBounds
from helixctl.solve.families import Family, Layouts, MeshLayouts
from helixctl.solve.generation import GenerationBounds
from helixctl.solve.limits import Limits
from helixctl.solve.objective import Key, Objective, key, least, simplicity
from helixctl.solve.proof import memory_nbytes
from helixctl.solve.verdict import unfit
from helixctl.solve.work import LayoutCosts
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec

_BOUNDED: Final = 64  # layouts from one report of progress to the next: a few milliseconds
# How much larger than estimated arenas may be, as a part of them. Most that was found is an eighth: of 16 microbatches,
# two in turn, forecast from those of fewer.
_GAPS: Final = 0.25
# What bounds are still to be worked out, the last first; 0: none.
_IN_TURNS: Final = 1
_EXCHANGING: Final = 2
_IN_ANY_ORDER: Final = 3
_QUICK: Final = 4

Bounded = tuple[Key, Layouts]  # a layout, or several, and a key that none of theirs is below
BoundedLayout = tuple[Key, Layout]
AnyBounds = Bounds | GenerationBounds | DifferingBounds


def may_fit(bound: Bound, nbytes: float) -> bool:
    """Whether a layout with this bound may fit in memory; ``nbytes``: as ``available`` says."""
    return bound.fits and bound.memory_nbytes <= nbytes


def available(cluster: ClusterSpec) -> float:
    """Bytes of every device; where hosts differ no number, as the bound of a layout says whether it fits."""
    return inf if cluster.differs else cluster.only.device.available


class Specs(NamedTuple):
    """What is planned, for which devices, and which step."""

    model: ModelSpec
    cluster: ClusterSpec
    workload: WorkloadSpec


@record
class LayoutProblem:
    """The layouts of one model on one cluster, compared by one objective.

    Attributes:
        specs: model, cluster and workload.
        objective: what is made as small (throughput: as large) as can be.
        bounds: lower bounds on a layout's step, latency and memory; they do not depend on the objective.
        only_fitting: a search ends where no layout that is left can be chosen, by its bound.
        limits: what a layout has to keep within to be chosen.
    """

    specs: Specs
    objective: Objective
    bounds: AnyBounds
    only_fitting: bool = True
    limits: Limits = Limits()
    _simulated: dict[Layout, Candidate] = field(default_factory=dict, repr=False, compare=False)
    _families: dict[MeshLayouts, list[tuple[Key, Layout | Family]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _keys: dict[Bound, Key] = field(default_factory=dict, init=False, repr=False, compare=False)
    _available: float = field(init=False, repr=False, compare=False)  # asked for with every bound

    def __post_init__(self) -> None:
        """Read the memory of a device."""
        object.__setattr__(self, "_available", available(self.specs.cluster))

    @classmethod
    def of(cls, specs: Specs, objective: Objective, limits: Limits | None = None) -> Self:
        """The problem of these specs, with no bound worked out yet."""
        exact = objective == "memory"
        if specs.cluster.differs:
            return cls(specs, objective, DifferingBounds.of(*specs), limits=limits or Limits())
        if specs.workload.output_len is not None:
            bounds = GenerationBounds.of(*specs, exact_memory=exact)
            return cls(specs, objective, bounds, limits=limits or Limits())
        return cls(specs, objective, Bounds(LayoutCosts(*specs), exact_memory=exact))

    def smallest(self, *, only_fitting: bool = True) -> Self:
        """The same layouts, compared by their memory; the bounds and forecasts are shared."""
        return replace(self, objective="memory", only_fitting=only_fitting)

    def bounded(self, layouts: Iterable[Layouts]) -> list[Bounded]:
        """Layouts with their first bounds; those of a mesh with the lowest of theirs."""
        every, found = list(layouts), list[Bounded]()
        for done, its in enumerate(every):
            if done % _BOUNDED == 0 or not isinstance(its, Layout):
                at("bounding the layouts", done, len(every))
            found.append((self.least_bound(its), its))
        return found

    def least_bound(self, its: Layouts | Family) -> Key:
        """A key that none of the quick bounds of some layouts is below; of a layout by itself it is its quick bound."""
        if isinstance(its, Layout):
            return self.quick_bound(its)
        if isinstance(its, MeshLayouts):
            return min([bound for bound, _ in self.opened(its)])
        return min(self._loose_bounds(its))

    def opened(
        self, its: MeshLayouts | Family, worth: Callable[[Key], bool] | None = None
    ) -> Iterable[tuple[Key, Layout | Family]]:
        """Those of a mesh by family, those of a family by size, and those of one size each, with least bounds.

        Args:
            its: the layouts.
            worth: whether those with a bound are asked for; by default all are.
        """
        if isinstance(its, MeshLayouts):
            if its not in self._families:
                self._families[its] = [(self.least_bound(family), family) for family in its.families]
            return self._families[its]
        if its.is_of_one_size:
            bound = self.quick_bound(its)
            return ((bound, layout) for layout in its.layouts())
        each = zip(self._loose_bounds(its), its.orders, strict=True)
        return ((bound, its.of_size(size)) for bound, size in each if worth is None or worth(bound))

    def _loose_bounds(self, family: Family) -> list[Key]:
        """By the number of microbatches."""
        return [self._key_of(bound) for bound in self.bounds.loose(family.first, family.sizes)]

    def ascending(self, layouts: Iterable[Bounded]) -> Iterator[BoundedLayout]:
        """Layouts with their quick bounds, the lowest first; of equals the first stays first, of a mesh the simplest.

        A quick bound is worked out where a looser one does not tell that others come before: of few where few are
        taken.

        Args:
            layouts: with their first bounds.
        """
        number = count()
        queue: list[tuple[Key, int, tuple[object, ...], int, bool, Layouts | Family]] = [
            (bound, place, (), next(number), False, its) for place, (bound, its) in enumerate(layouts)
        ]
        heapify(queue)
        while queue:
            bound, place, rank, _, is_quick, its = heappop(queue)
            if isinstance(its, MeshLayouts) or (isinstance(its, Family) and (is_quick or not its.is_of_one_size)):
                for found, part in self.opened(its):
                    heappush(queue, (found, place, _place(part), next(number), is_quick, part))
            elif is_quick and isinstance(its, Layout):
                yield bound, its
            else:
                heappush(queue, (self.quick_bound(its), place, rank, next(number), True, its))

    def narrowed(self, layouts: Iterable[Bounded], worth: Callable[[Key], bool]) -> Iterator[BoundedLayout]:
        """Layouts with the tightest of their bounds, the lowest first; of equals the simplest.

        Layouts of a family are not made before the lowest of their bounds with communication is known to be low enough.

        Args:
            layouts: with their first bounds.
            worth: whether layouts with a bound are asked for; none with a higher one are where they are not.
        """
        number, tightened = count(), count(1)
        # (bound, simplicity, a number of its own, how many tighter bounds there are, what is bounded): of equals
        # several layouts come before one, so that all that are equal to it are there when it is looked at.
        queue: list[tuple[Key, tuple[object, ...], int, int, Layouts | Family]] = [
            (bound, _place(its), next(number), _QUICK, its) for bound, its in layouts
        ]
        heapify(queue)
        while queue:
            bound, place, _, left, its = heappop(queue)
            if not worth(bound):
                return
            if isinstance(its, MeshLayouts) or (isinstance(its, Family) and not its.is_of_one_size):
                parts = self.opened(its, worth)
            elif isinstance(its, Family) and left == _IN_TURNS:
                parts = [(found, its.layout(order)) for found, order in self._of_orders(its) if worth(found)]
            elif left:
                at("bounding the best layouts more closely", next(tightened))
                heappush(queue, (max(bound, self._tighter(its, left)), place, next(number), left - 1, its))
                continue
            elif isinstance(its, Layout):
                yield bound, its
                continue
            for found, part in parts:
                if worth(found):
                    heappush(queue, (max(bound, found), _place(part), next(number), left, part))

    def _tighter(self, its: Layout | Family, which: int) -> Key:
        """A bound of a layout, or the lowest of a family of one size."""
        if which == _QUICK:
            return self.quick_bound(its)
        if isinstance(its, Layout):
            return self.bound_with_turns(its) if which == _IN_TURNS else self.bound(its)
        if which == _IN_ANY_ORDER:
            return self._key_of(self.bounds.in_any_order(its.first, its.size, its.orders[its.size]))
        return min([bound for bound, _ in self._of_orders(its)])

    def _of_orders(self, family: Family) -> Iterable[tuple[Key, Order]]:
        """The orders of a family of one size, each with the bound in which communication is."""
        (orders,) = family.orders.values()
        return zip(map(self._key_of, self.bounds.in_orders(family.first, orders)), orders, strict=True)

    def quick_bound(self, its: Layout | Family) -> Key:
        """A key that the layout's own is not below, as if nothing were exchanged: one for a family of one size."""
        quick = self.bounds.quick(its) if isinstance(its, Layout) else self.bounds.quick(its.first, its.size)
        return self._key_of(quick)

    def bound(self, layout: Layout) -> Key:
        """A tighter one, which takes longer: communication is in it."""
        return self._key_of(self.bounds(layout))

    def bound_with_turns(self, layout: Layout) -> Key:
        """The tightest: where microbatches take turns, the order of their tasks is in it.

        Memory does not depend on that order, and of the latency of one pass it bounds no more than the second one does.
        """
        one_pass = self.specs.workload.output_len is None
        if self.objective == "memory" or (self.objective == "latency" and one_pass):
            return self.bound(layout)
        return self._key_of(self.bounds.with_turns(layout))

    def simulate(self, layout: Layout) -> Candidate:
        """The layout with its forecast. Where nothing fits, several searches come to the same layouts."""
        if layout not in self._simulated:
            self._simulated[layout] = self._with_memory(simulated(*self.specs, layout))
        return self._simulated[layout]

    def _with_memory(self, candidate: Candidate) -> Candidate:
        """The candidate, with exact memory where a gap in its arena may decide whether it fits.

        A forecast only estimates gaps. The proof of a plan would refuse what the search has chosen for fitting. (Where
        hosts differ it still may.)
        """
        found = candidate.forecast
        if found is None or self.specs.cluster.differs:
            return candidate
        arenas = found.memory_nbytes - found.weight_nbytes - found.cache_nbytes
        if not found.memory_nbytes <= self._available < found.memory_nbytes + _GAPS * arenas:
            return candidate
        exact = memory_nbytes(Plan.sketch(*self.specs, candidate.layout))
        return replace(candidate, forecast=replace(found, memory_nbytes=exact))

    def know(self, candidates: Iterable[Candidate]) -> None:
        """Take forecasts that were worked out elsewhere: these layouts are not simulated again."""
        self._simulated.update({its.layout: its for its in candidates})

    def size(self, layout: Layout) -> int:
        """About how many tasks the simulation takes."""
        return size(*self.specs, layout)

    def key(self, candidate: Candidate) -> Key:
        """What candidates are compared by; less is better."""
        if candidate.forecast is None:
            raise TypeError  # only legal layouts are compared
        return key(self.objective, candidate.forecast)

    def fits(self, candidate: Candidate) -> bool:
        """Whether a candidate may be chosen."""
        return unfit(candidate, self.specs.cluster, self.limits) is None

    def is_hopeless(self, bound: Key) -> bool:
        """Whether no layout with this bound, or with a later one, may be chosen."""
        return self.only_fitting and bound[0] == inf

    def _key_of(self, bound: Bound) -> Key:
        """A layout that cannot be chosen, by its bound, comes after all that may."""
        found = self._keys.get(bound)
        if found is None:
            found = least(self.objective, bound)
            fits = may_fit(bound, self._available) and not self.limits.exclude(bound)
            self._keys[bound] = found = found if fits else (inf, *found)
        return found


def _place(its: Layouts | Family) -> tuple[object, ...]:
    return simplicity(its) if isinstance(its, Layout) else ()
