"""Best-first search: the layout with the lowest bound is simulated next, until no bound is below the best found.

Where a budget ends it before, more layouts are simulated: those beside the best found, which differ in one choice,
and the best by their bounds of those without turns, whose bounds are near to what they take.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from helixctl.plan import Layout
from helixctl.plan.layout import MESH_AXES
from helixctl.progress import at
from helixctl.records import record
from helixctl.solve.candidate import Candidate
from helixctl.solve.families import Family, Layouts, every, number_of
from helixctl.solve.objective import Key, simplicity
from helixctl.solve.problem import Bounded, BoundedLayout, LayoutProblem

# Tasks that a search may simulate before it settles for the best so far: about a second.
BUDGET: Final = 12_000
# As many more budgets are spent beside the best found where the budget ends a search.
_BESIDE: Final = 3
# Layouts without turns that are tried then.
_SERIAL: Final = 2
# Choices that only change together: how many microbatches, and of them how many take turns.
_TURNS: Final = frozenset({"microbatches", "interleave"})
# Choices that go together: which replicas share experts, and in how many ways these are spread over them.
_SHARED: Final = frozenset({"expert_data", "experts"})


@record
class SearchResult:
    """The outcome of a search.

    Attributes:
        best: the best that fits; None where nothing does.
        tried: all that were simulated, in that order.
        legal: how many layouts there were.
        open_bound: the lowest key that a layout which was not simulated could have; None where none can be better.
    """

    best: Candidate | None
    tried: tuple[Candidate, ...]
    legal: int
    open_bound: Key | None


def search(
    layouts: Sequence[Bounded],
    problem: LayoutProblem,
    budget: int,
    known: Sequence[Candidate] = (),
    first: Sequence[Layout] = (),
) -> SearchResult:
    """Find the layout with the least key.

    Args:
        layouts: what to search, with their first bounds; of equally good ones the simplest is found.
        problem: bounds and simulates layouts, and compares them.
        budget: tasks to simulate at most; at least one candidate is simulated, and where the budget ends the search
            up to three times as many more, beside the best found.
        known: of them candidates of an earlier search, for which the budget was spent: where one of them fits, only the
            neighbours of the best are simulated.
        first: layouts to begin with, which another search has found; those that are not among ``layouts`` are left out.
    """
    run = _Search(problem, layouts)
    for candidate in known:
        run.take(candidate)
    run.spent = budget if run.best else 0
    among = set(every(its for _, its in layouts)) if first else set[Layout]()
    for layout in first:
        if layout in among:
            run.take(problem.simulate(layout))
    return run.run(budget)


@dataclass(slots=True)
class _Search:
    problem: LayoutProblem
    layouts: Sequence[Bounded]
    tried: dict[Layout, Candidate] = field(default_factory=dict, init=False)
    best: Candidate | None = field(default=None, init=False)
    best_key: Key = field(default=(), init=False)
    _place_of_best: tuple[Key, tuple[object, ...]] = field(default=((), ()), init=False)
    legal: int = field(init=False)
    spent: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Count the layouts."""
        self.legal = number_of(its for _, its in self.layouts)

    def run(self, budget: int) -> SearchResult:
        ended = False
        for bound, layout in self.problem.narrowed(self.layouts, self._may_be_best):
            if layout in self.tried:
                continue
            beyond = ended or bool(self.tried and self.spent + self.problem.size(layout) > budget)
            if beyond and not ended and self.best:
                ended = True
                self._look_beside(self.spent + _BESIDE * budget)
                self._look_at_serial(self.spent + _BESIDE * budget)
                if not self._may_be_best(bound):
                    break
                if layout in self.tried:
                    continue
            if beyond:
                return SearchResult(self.best, tuple(self.tried.values()), self.legal, bound)
            self._try(layout)
        return SearchResult(self.best, tuple(self.tried.values()), self.legal, None)

    def _may_be_best(self, bound: Key) -> bool:
        """Whether a layout with this bound may be the best, and be chosen."""
        return (self.best is None or bound <= self.best_key) and not self.problem.is_hopeless(bound)

    def _try(self, layout: Layout) -> None:
        self.spent += self.problem.size(layout)
        at("simulating layouts", len(self.tried), self.legal)
        self.take(self.problem.simulate(layout))

    def take(self, candidate: Candidate) -> None:
        """Note a forecast: it may be the best."""
        self.tried[candidate.layout] = candidate
        place = (self.problem.key(candidate), simplicity(candidate.layout))
        if self.problem.fits(candidate) and (self.best is None or place < self._place_of_best):
            self.best, self.best_key, self._place_of_best = candidate, place[0], place

    def _look_at_serial(self, budget: int) -> None:
        """Simulate the best by their bounds of the layouts whose microbatches do not take turns.

        A bound with turns counts on communication that computation hides wholly, and many of them come before the
        first that does not.
        """
        nearest: list[BoundedLayout] = []
        for bound, layout in self.problem.ascending(self.layouts):
            if bound > self.best_key or (len(nearest) == _SERIAL and bound > nearest[-1][0]):
                break
            if layout.interleave == 1 and layout not in self.tried:
                nearest = sorted([*nearest, (self._bound(layout), layout)], key=_by_bound)[:_SERIAL]
        for bound, layout in nearest:
            if bound <= self.best_key and self.spent + self.problem.size(layout) <= budget:
                self._try(layout)

    def _look_beside(self, budget: int) -> None:
        """Simulate the neighbours of the best, and of what is better then, those with the lowest bounds first."""
        centre = None
        while self.best and centre is not self.best:
            centre = self.best
            neighbours = [(self._bound(layout), layout) for layout in self._neighbours(centre.layout, self.layouts)]
            for bound, layout in sorted(neighbours, key=_by_bound):
                if self.problem.is_hopeless(bound) or bound > self.best_key:
                    break
                if self.spent + self.problem.size(layout) > budget:
                    continue
                self._try(layout)
                if self.best is not centre:
                    break

    def _bound(self, layout: Layout) -> Key:
        return max(self.problem.quick_bound(layout), self.problem.bound_with_turns(layout))

    def _neighbours(self, centre: Layout, layouts: Iterable[tuple[Key, Layouts | Family]]) -> Iterator[Layout]:
        for bound, its in layouts:
            if bound > self.best_key:
                continue
            if not isinstance(its, Layout):
                yield from self._neighbours(centre, self.problem.opened(its))
            elif its not in self.tried and near(centre, its):
                yield its


def _by_bound(its: BoundedLayout) -> tuple[Key, tuple[object, ...]]:
    return its[0], simplicity(its[1])


def near(one: Layout, other: Layout) -> bool:
    """Whether two layouts differ in one choice: an axis, the turns of microbatches, or factors of two mesh axes."""
    a, b = one.__dict__, other.__dict__
    differ = {axis for axis in type(one).model_fields if a[axis] != b[axis]}
    mesh = differ & set(MESH_AXES)
    together = differ - _SHARED if "expert_data" in differ else differ
    two = len(mesh) == len(MESH_AXES) // 2
    return len(differ) == 1 or differ <= _TURNS or not together or (together == mesh and two)
