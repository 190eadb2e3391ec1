"""The table of a decision: the choice, the best layouts of other meshes beside it, and the pairs that are not legal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain, islice
from typing import Final

from helixctl.plan import Layout, illegalities
from helixctl.records import record
from helixctl.solve.candidate import Candidate
from helixctl.solve.constraints import Request
from helixctl.solve.objective import simplicity
from helixctl.solve.problem import Bounded, BoundedLayout, LayoutProblem
from helixctl.solve.space import pairs
from helixctl.solve.verdict import Row, row

_MOST_ROWS: Final = 10  # a table that fits on a screen
_MOST_ILLEGAL: Final = 5
# Meshes are ranked by their quick bounds, which leave communication out; of twice as many as are shown the tighter
# bound is worked out, so that one whose communication is cheap is not missed.
_RANKED: Final = 2

Mesh = tuple[int, int, int, int]


@record
class Table:
    """What is shown of the layouts of one problem.

    Attributes:
        problem: compares them.
        request: which of them were asked for.
        budget: tasks that may be simulated for rows beside the choice.
    """

    problem: LayoutProblem
    request: Request
    budget: int

    def candidates(self, best: Candidate, tried: Sequence[Candidate], layouts: Sequence[Bounded]) -> list[Candidate]:
        """Simulated only to be shown: the most promising layouts of meshes that the search did not meet.

        Args:
            best: the best that was found.
            tried: all that were simulated.
            layouts: all layouts that may be shown, with their first bounds.
        """
        met = {candidate.layout.mesh for candidate in tried}
        groups: dict[Mesh, list[Bounded]] = {}
        for bound, layout in layouts:
            if (mesh := layout.mesh) not in met:
                groups.setdefault(mesh, []).append((bound, layout))
        always = self._always(best.layout)
        most = max(len(always), _MOST_ROWS - len(met))
        nearest = islice(self._nearest(groups, always), _RANKED * most)
        some = [promising(self.problem, groups[mesh]) for mesh in nearest]
        some = sorted(some, key=lambda item: (item[1].mesh not in always, item[0], simplicity(item[1])))
        return [self.problem.simulate(layout) for layout in self._within_budget(x for _, x in some[:most])]

    def _nearest(self, groups: Mapping[Mesh, Sequence[Bounded]], always: AbstractSet[Mesh]) -> Iterator[Mesh]:
        """Meshes by the lowest quick bound of their layouts; those that are always shown first."""
        for shown in (True, False):
            of_some = chain.from_iterable(its for mesh, its in groups.items() if (mesh in always) == shown)
            met = set[Mesh]()
            for _, layout in self.problem.ascending(of_some):
                if (mesh := layout.mesh) not in met:
                    met.add(mesh)
                    yield mesh

    def rows(
        self, best: Candidate, candidates: Sequence[Candidate], legal: AbstractSet[Mesh], *, proved: bool
    ) -> tuple[Row, ...]:
        """The best layout of every mesh: the choice, then what fits, what does not, and what is not legal.

        Args:
            best: the choice.
            candidates: all that were simulated, the choice among them.
            legal: meshes of which some layout that was asked for is legal, perhaps with other axes than the defaults.
            proved: whether no other layout that was asked for can be better.
        """
        problem = self.problem
        ordered = sorted(candidates, key=lambda c: (c is not best, problem.key(c), simplicity(c.layout)))
        meshes: dict[Mesh, Candidate] = {}
        for candidate in sorted(ordered, key=lambda c: not problem.fits(c)):
            meshes.setdefault(candidate.layout.mesh, candidate)
        always = self._always(best.layout)
        shown = [c for i, c in enumerate(meshes.values()) if i < _MOST_ROWS or c.layout.mesh in always]
        illegal = [c for c in self._pairs() if c.reasons and c.layout.mesh not in legal]
        return tuple(self.row(c, best, proved=proved) for c in (*shown, *illegal[:_MOST_ILLEGAL]))

    def row(self, candidate: Candidate, best: Candidate, *, proved: bool) -> Row:
        """A candidate and the verdict on it."""
        problem = self.problem
        return row(
            candidate,
            best,
            str(self.request),
            problem.objective,
            problem.specs.cluster,
            proved=proved,
            limits=problem.limits,
        )

    def _within_budget(self, layouts: Iterable[Layout]) -> Iterator[Layout]:
        """The first of the layouts, as far as their simulation takes no longer than the search may."""
        spent = 0
        for layout in layouts:
            spent += self.problem.size(layout)
            if spent > self.budget:
                return
            yield layout

    def _always(self, best: Layout) -> set[Mesh]:
        """Meshes that are shown whatever else is.

        They are: no partition at all; and where there are more partitions than KV heads, one that slices a KV head and
        one that holds it several times.
        """
        model, cluster, _ = self.problem.specs
        keys = model.attention.key_heads
        sliced = max(n for n in range(1, keys + 1) if best.partitions % n == 0)
        held = max((n for n in range(keys, best.partitions + 1, keys) if best.partitions % n == 0), default=sliced)
        teams = {(n, best.partitions // n, best.data, best.pipeline) for n in (sliced, held)}
        return {(1, 1, cluster.devices, 1), *(teams if best.partitions > keys else ())}

    def _pairs(self) -> list[Candidate]:
        """Every pair groups x slices, with the reasons of its slicing that has fewest of them."""
        model, cluster, workload = self.problem.specs
        found: dict[tuple[int, int], Candidate] = {}
        for layout in pairs(cluster.devices, self.request.given, workload):
            candidate = Candidate(
                layout, reasons=tuple(illegalities(layout, model, workload, cluster.devices, differs=cluster.differs))
            )
            pair = (layout.groups, layout.slices)
            found[pair] = min(found.get(pair, candidate), candidate, key=lambda c: len(c.reasons))
        return list(found.values())


def promising(problem: LayoutProblem, group: Sequence[Bounded]) -> BoundedLayout:
    """The layout with the lowest bound of a group that has some, each given with its first bound.

    Of equals it is the one with the lowest quick bound, of these the simplest.
    """
    found: list[BoundedLayout] = []
    for bound, layout in problem.narrowed(group, lambda bound: not found or bound <= found[0][0]):
        found.append((bound, layout))
    best = min([layout for _, layout in found], key=lambda x: (problem.quick_bound(x), simplicity(x)))
    return problem.bound_with_turns(best), best
