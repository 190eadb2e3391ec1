"""Best-first search: the layout with the lowest bound is simulated next, until no bound is below the best found.

Where a budget ends it before, more layouts are simulated: those beside the best found, which differ in one choice,
and the best by their bounds of those without turns, whose bounds are near to what they take.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Final

from helixctl.plan import Layout
from helixctl.plan.layout import MESH_AXES
from helixctl.progress import at
from helixctl.solve.candidate import Candidate
from helixctl.solve.objective import Key
from helixctl.solve.problem import Bounded, LayoutProblem

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


@dataclass(frozen=True, slots=True)
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
        layouts: what to search, with their first bounds; of equally good ones the first is found.
        problem: bounds and simulates layouts, and compares them.
        budget: tasks to simulate at most; at least one candidate is simulated, and where the budget ends the search
            up to three times as many more, beside the best found.
        known: candidates of an earlier search, for which the budget was spent: where one of them fits, only the
            neighbours of the best are simulated.
        first: layouts to begin with, which another search has found; those that are not among ``layouts`` are left out.
    """
    run = _Search(problem, layouts)
    position = {layout: n for n, (_, layout) in enumerate(layouts)} if known or first else {}
    for candidate in known:
        run.take(candidate, position[candidate.layout])
    run.spent = budget if run.best else 0
    for layout in first:
        if layout in position:
            run.take(problem.simulate(layout), position[layout])
    return run.run(budget)


@dataclass(slots=True)
class _Search:
    problem: LayoutProblem
    layouts: Sequence[Bounded]
    tried: dict[Layout, Candidate] = field(default_factory=dict, init=False)
    best: Candidate | None = field(default=None, init=False)
    best_key: Key = field(default=(), init=False)
    best_place: int = field(default=0, init=False)
    spent: int = field(default=0, init=False)
    bounded: int = field(default=0, init=False)

    def run(self, budget: int) -> SearchResult:
        problem, legal = self.problem, len(self.layouts)
        # (bound, place, how many narrower ones there are, layout); no two have one place: layouts are never compared.
        quick = (problem.quick_bound,) if problem.first_is_looser else ()
        narrower = (problem.bound_with_turns, problem.bound, *quick)
        queue = [(bound, place, len(narrower), layout) for place, (bound, layout) in enumerate(self.layouts)]
        heapify(queue)
        ended = False
        while queue:
            bound, place, left, layout = heappop(queue)
            if (self.best and bound > self.best_key) or problem.is_hopeless(bound):
                break
            if layout in self.tried:
                continue
            if left:
                at("bounding the best layouts more closely", self.bounded)
                self.bounded += 1
                heappush(queue, (max(bound, narrower[left - 1](layout)), place, left - 1, layout))
                continue
            if ended or (self.tried and self.spent + problem.size(layout) > budget):
                if ended or self.best is None:
                    return SearchResult(self.best, tuple(self.tried.values()), legal, bound)
                ended = True
                self._look_beside(self.spent + _BESIDE * budget)
                self._look_at_serial(self.spent + _BESIDE * budget)
                heappush(queue, (bound, place, left, layout))
                continue
            self._try(layout, place)
        return SearchResult(self.best, tuple(self.tried.values()), legal, None)

    def _try(self, layout: Layout, place: int) -> None:
        self.spent += self.problem.size(layout)
        at("simulating layouts", len(self.tried), len(self.layouts))
        self.take(self.problem.simulate(layout), place)

    def take(self, candidate: Candidate, place: int) -> None:
        """Note a forecast: it may be the best."""
        self.tried[candidate.layout] = candidate
        its_key = self.problem.key(candidate)
        if self.problem.fits(candidate) and (self.best is None or (its_key, place) < (self.best_key, self.best_place)):
            self.best, self.best_key, self.best_place = candidate, its_key, place

    def _look_at_serial(self, budget: int) -> None:
        """Simulate the best by their bounds of the layouts whose microbatches do not take turns.

        A bound with turns counts on communication that computation hides wholly, and many of them come before the
        first that does not.
        """
        nearest: list[tuple[Key, int, Layout]] = []
        places = {layout: place for place, (_, layout) in enumerate(self.layouts)}
        for bound, layout in self.problem.ascending(self.layouts):
            place = places[layout]
            if bound > self.best_key or (len(nearest) == _SERIAL and bound > nearest[-1][0]):
                break
            if layout.interleave == 1 and layout not in self.tried:
                nearest = sorted([*nearest, (*self._bound(place, layout), layout)], key=lambda its: its[:2])[:_SERIAL]
        for bound, place, layout in nearest:
            if bound <= self.best_key and self.spent + self.problem.size(layout) <= budget:
                self._try(layout, place)

    def _look_beside(self, budget: int) -> None:
        """Simulate the neighbours of the best, and of what is better then, those with the lowest bounds first."""
        centre = None
        while self.best and centre is not self.best:
            centre = self.best
            for place, layout in sorted(self._neighbours(centre.layout), key=lambda item: self._bound(*item)):
                bound, _ = self._bound(place, layout)
                if self.problem.is_hopeless(bound) or bound > self.best_key:
                    break
                if self.spent + self.problem.size(layout) > budget:
                    continue
                self._try(layout, place)
                if self.best is not centre:
                    break

    def _bound(self, place: int, layout: Layout) -> tuple[Key, int]:
        return max(self.layouts[place][0], self.problem.bound_with_turns(layout)), place

    def _neighbours(self, centre: Layout) -> Iterator[tuple[int, Layout]]:
        for place, (bound, layout) in enumerate(self.layouts):
            if bound <= self.best_key and layout not in self.tried and near(centre, layout):
                yield place, layout


def near(one: Layout, other: Layout) -> bool:
    """Whether two layouts differ in one choice: an axis, the turns of microbatches, or factors of two mesh axes."""
    a, b = one.__dict__, other.__dict__
    differ = {axis for axis in type(one).model_fields if a[axis] != b[axis]}
    mesh = differ & set(MESH_AXES)
    together = differ - _SHARED if "expert_data" in differ else differ
    two = len(mesh) == len(MESH_AXES) // 2
    return len(differ) == 1 or differ <= _TURNS or not together or (together == mesh and two)
