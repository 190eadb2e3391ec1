"""The decision: the best layout of those asked for, with its dag, and a verdict on the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from helixctl.errors import HelixError
from helixctl.plan import Layout, Plan, illegalities
from helixctl.plan.size import TASKS_OF_A_LAYER, tasks_of, too_large
from helixctl.solve.bound import Bound, Bounds
from helixctl.solve.candidate import Candidate, simulated, size
from helixctl.solve.objective import Key, Objective, key, least, simplicity
from helixctl.solve.reasons import Looked, reasons, searched
from helixctl.solve.refusals import cannot_fit, none_fits, none_legal, too_many_tasks, weights_do_not_fit
from helixctl.solve.search import BUDGET, Found, Problem, search
from helixctl.solve.space import FEW, MANY, pairs, space
from helixctl.solve.verdict import Row, row, too_big
from helixctl.solve.wish import OF_PAIRS, Wish, has, wish_text
from helixctl.solve.work import Works
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec

Bounded = tuple[Bound, Layout]  # a layout with its quick bound

_MOST_ROWS: Final = 10
_GLANCE: Final = 2_000  # tasks to simulate where not even the weights fit: enough to name the smallest
_MOST_ILLEGAL: Final = 5
_MOST_OF_TWO_LAYERS: Final = 1_000_000  # tasks of two layers: 38,000 devices, a minute's search


@dataclass(frozen=True)
class Decision:
    """What was chosen, with the reasons.

    Attributes:
        rows: the most promising layout of every mesh (groups, slices, replicas, stages), the best first, then the pairs
            groups x slices that are not legal.
        reasons: why this one, in sentences.
        searched: how much of the space was simulated, and what is known of the rest, in a sentence.
        legal, simulated: how many layouts there were, and how many of them were simulated.
        open_bound: what a layout that was not simulated could reach at best; None where none can be better.
        priced: every layout that was simulated, also those that are in no row.
    """

    objective: Objective
    plan: Plan
    rows: tuple[Row, ...]
    reasons: tuple[str, ...]
    searched: str
    legal: int
    simulated: int
    open_bound: Key | None
    priced: tuple[Candidate, ...]

    @property
    def memory_nbytes(self) -> int:
        """Bytes that the plan's fullest device holds."""
        return next(
            int(row.candidate.forecast.memory_nbytes) for row in self.rows if row.chosen and row.candidate.forecast
        )


def decide(
    model: ModelSpec,
    cluster: ClusterSpec,
    workload: WorkloadSpec,
    wish: Wish | None = None,
    objective: Objective = "throughput",
    *,
    defaults: bool = False,
    budget: int = BUDGET,
) -> Decision:
    """Choose a layout; ``wish`` fixes axes, the search has the others.

    Args:
        model: what is planned.
        cluster: for which devices.
        workload: and which step.
        wish: axes that are fixed.
        objective: what is made as small (throughput: as large) as can be.
        defaults: leave every axis that is not wished for, groups and slices apart, at its default: the paper's space.
        budget: tasks that the search may simulate; the best so far is taken where it ends early.

    Raises:
        HelixError: HX201 no layout is legal; HX202 the one asked for is not; HX203 none fits in memory; HX305 there are
            too many devices, or every layout that is asked for has too many tasks.
    """
    least = TASKS_OF_A_LAYER * min(model.layers, 2) * cluster.devices
    if large := too_large(least, f"any plan for {cluster.devices:,} devices", _MOST_OF_TWO_LAYERS):
        raise HelixError(large)
    solver = _Solver(model, cluster, workload, objective, budget)
    return solver.decide(wish or {}, defaults=defaults)


class _Solver:
    def __init__(
        self, model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec, objective: Objective, budget: int
    ) -> None:
        self.specs = (model, cluster, workload)
        self.wanted: Final = objective
        self.objective: Objective = objective
        self.budget = budget
        self.bounds = Bounds(Works(*self.specs))

    def decide(self, wish: Wish, *, defaults: bool) -> Decision:
        model, cluster, workload = self.specs
        if cannot := weights_do_not_fit(self.bounds.works.weights_nbytes(), cluster):
            raise HelixError(cannot)
        others = {name: field.default for name, field in Layout.model_fields.items()} if defaults else {}
        others.pop("slicing", None)  # the model says how it can be sliced
        free = {axis: value for axis, value in {**others, **wish}.items() if axis not in OF_PAIRS}
        found, legal, layouts = self._found(wish, free)
        if found.best is None:
            raise HelixError(none_fits(found, self.specs, free=not (wish or defaults)))
        beside = self._others(found, layouts)
        best, open_bound = self._better(found, [c for c in beside if has(c.layout, wish)])
        bounds = [(self._least(bound), layout) for bound, layout in layouts]
        looked = Looked([*found.tried, *beside], legal, bounds, fixed=bool(free))
        left_out = sum(has(x, wish) for x in legal) - found.legal
        seen = {c.layout for c in looked.simulated if has(c.layout, wish)}
        counts = (found.legal, len(seen), left_out)
        return Decision(
            self.objective,
            Plan.of(model, cluster, workload, best.layout),
            self._rows(best, looked.simulated, wish, proved=open_bound is None),
            reasons(best, looked, self.objective, model, cluster),
            searched(best, *counts, open_bound, self.objective, wish_text(wish)),
            found.legal,
            len(seen),
            open_bound,
            tuple(sorted(looked.simulated, key=lambda c: (self._key(c), simplicity(c.layout)))),
        )

    def _better(self, found: Found, others: Sequence[Candidate]) -> tuple[Candidate, Key | None]:
        """The best of what was asked for, rows that are only shown among them; and the bound of the rest."""
        fitting = [c for c in others if not too_big(c, self.specs[1])]
        best = min([*filter(None, [found.best]), *fitting], key=lambda c: (self._key(c), simplicity(c.layout)))
        closed = found.open_bound is not None and found.open_bound > self._key(best)
        return best, None if closed else found.open_bound

    def _found(self, wish: Wish, free: Wish) -> tuple[Found, list[Layout], list[Bounded]]:
        """The outcome of the search among what is asked for, and all layouts with the wished axes but n and m.

        Those first, then those of them that are not too large, with their bounds.
        """
        for most in (FEW, MANY):  # many small microbatches where nothing else fits
            self.objective = self.wanted
            legal = sorted(space(*self.specs, free, most), key=simplicity)
            wished = [x for x in legal if has(x, wish)]
            if not wished:
                raise HelixError(none_legal(*self.specs, wish, free, legal))
            layouts = [(self.bounds.quick(x), x) for x in legal if not too_large(self._tasks(x), "")]
            asked = [(b, x) for b, x in layouts if has(x, wish)]
            if not asked and (large := too_many_tasks(min(wished, key=self._tasks), min(map(self._tasks, wished)))):
                raise HelixError(large)
            found = self._search(asked, self.budget, _cannot_fit)
            if found.best is None and found.open_bound:
                found = self._from_the_smallest(asked, found)
            if found.best:
                return found, legal, layouts
        self.objective = "memory"  # nothing fits: what comes nearest to it
        (_, smallest) = self._promising([(self._least(bound), layout) for bound, layout in asked])
        if cannot := cannot_fit(smallest, self.bounds(smallest), self.specs, free=not (wish or free)):
            raise HelixError(cannot)
        return self._search(asked, _GLANCE), legal, layouts

    def _from_the_smallest(self, asked: Sequence[Bounded], found: Found) -> Found:
        """Nothing fitted before the budget was spent: find the smallest, and what is better beside it."""
        self.objective = "memory"
        small = self._search(asked, self.budget, _cannot_fit)
        self.objective = self.wanted
        if small.best is None:
            return small
        known = {c.layout: c for c in (*found.tried, *small.tried)}
        return self._search(asked, self.budget, _cannot_fit, list(known.values()))

    def _tasks(self, layout: Layout) -> int:
        """About how many tasks a layout's dag has."""
        return tasks_of(layout, self.specs[0].layers)

    def _search(
        self,
        layouts: Iterable[Bounded],
        budget: int,
        hopeless: Callable[[Key], bool] = lambda _: False,
        known: Sequence[Candidate] = (),
    ) -> Found:
        problem = Problem(
            narrowed=lambda layout: self._least(self.bounds(layout)),
            simulate=lambda layout: simulated(*self.specs, layout),
            key=self._key,
            fits=lambda candidate: too_big(candidate, self.specs[1]) is None,
            size=lambda layout: size(*self.specs, layout),
            hopeless=hopeless,
        )
        return search([(self._least(bound), layout) for bound, layout in layouts], problem, budget, known)

    def _key(self, candidate: Candidate) -> Key:
        if candidate.forecast is None:
            raise TypeError  # only legal layouts are searched
        return key(self.objective, candidate.forecast)

    def _least(self, bound: Bound) -> Key:
        """A key that a layout with this bound is not below; one that cannot fit comes last."""
        found = least(self.objective, bound)
        return found if bound.memory_nbytes <= self.specs[1].device.available else (inf, *found)

    # --- the other layouts -------------------------------------------------------------------------------------------

    def _others(self, found: Found, layouts: Sequence[Bounded]) -> list[Candidate]:
        """Simulated only to be shown: the most promising layouts of meshes of which the search met none."""
        if found.best is None:
            raise TypeError  # others are shown beside a best
        meshes = {_mesh(candidate.layout) for candidate in found.tried}
        groups: dict[object, list[tuple[Key, Layout]]] = {}
        for bound, layout in layouts:
            if _mesh(layout) not in meshes:
                groups.setdefault(_mesh(layout), []).append((self._least(bound), layout))
        always = self._always(found.best.layout)
        nearest = sorted(groups.items(), key=lambda item: (item[0] not in always, min(key for key, _ in item[1])))
        most = max(len(always), _MOST_ROWS - len(meshes))
        some = [self._promising(group) for _, group in nearest[: 2 * most]]
        some = sorted(some, key=lambda item: (_mesh(item[1]) not in always, item[0], simplicity(item[1])))
        return [simulated(*self.specs, layout) for layout in self._within_budget(x for _, x in some[:most])]

    def _rows(self, best: Candidate, candidates: Sequence[Candidate], wish: Wish, *, proved: bool) -> tuple[Row, ...]:
        """The best layout of every mesh: the choice, then what fits, what does not, and what is not legal."""
        ordered = sorted(candidates, key=lambda c: (c is not best, self._key(c), simplicity(c.layout)))
        meshes: dict[object, Candidate] = {}
        for candidate in sorted(ordered, key=lambda c: bool(too_big(c, self.specs[1]))):
            meshes.setdefault(_mesh(candidate.layout), candidate)
        always = self._always(best.layout)
        kept = [c for i, c in enumerate(meshes.values()) if i < _MOST_ROWS or _mesh(c.layout) in always]
        illegal = [c for c in self._pairs(wish) if c.reasons]
        return tuple(
            row(c, best, wish_text(wish), self.objective, self.specs[1], proved=proved)
            for c in (*kept, *illegal[:_MOST_ILLEGAL])
        )

    def _within_budget(self, layouts: Iterable[Layout]) -> Iterator[Layout]:
        """The first of the layouts, as far as their simulation takes no longer than the search may."""
        spent = 0
        for layout in layouts:
            spent += size(*self.specs, layout)
            if spent > self.budget:
                return
            yield layout

    def _always(self, best: Layout) -> set[tuple[int, int, int, int]]:
        """Meshes that are shown whatever else is.

        What it would be not to partition; and beside more partitions than heads of keys and values, those that slice
        such a head and those that hold it several times.
        """
        keys = self.specs[0].attention.key_heads
        sliced = max(n for n in range(1, keys + 1) if best.partitions % n == 0)
        held = max((n for n in range(keys, best.partitions + 1, keys) if best.partitions % n == 0), default=sliced)
        teams = {(n, best.partitions // n, best.data, best.pipeline) for n in (sliced, held)}
        return {(1, 1, self.specs[1].devices, 1), *(teams if best.partitions > keys else ())}

    def _promising(self, group: Sequence[tuple[Key, Layout]]) -> tuple[Key, Layout]:
        """The layout with the lowest bound."""
        best: tuple[Key, Layout] | None = None
        for quick, layout in sorted(group, key=lambda item: item[0]):  # of equals the first stays first
            if best and quick > best[0]:
                break
            bound = self._least(self.bounds(layout))
            if best is None or bound < best[0]:
                best = (bound, layout)
        if best is None:
            raise ValueError  # a group has layouts
        return best

    def _pairs(self, wish: Wish) -> list[Candidate]:
        model, cluster, workload = self.specs
        found: dict[tuple[int, int], Candidate] = {}
        for layout in pairs(cluster.devices, wish):
            candidate = Candidate(layout, reasons=tuple(illegalities(layout, model, workload, cluster.devices)))
            # A pair is as legal as its best slicing.
            pair = (layout.groups, layout.slices)
            found[pair] = min(found.get(pair, candidate), candidate, key=lambda c: len(c.reasons))
        return list(found.values())


def _cannot_fit(key: Key) -> bool:
    """Whether a key is that of a layout whose bound is above the memory."""
    return key[0] == inf


def _mesh(layout: Layout) -> tuple[int, int, int, int]:
    return (layout.groups, layout.slices, layout.data, layout.pipeline)
