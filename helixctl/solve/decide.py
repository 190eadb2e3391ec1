"""The decision: the best layout of those asked for, with its dag, and a verdict on the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Final

from helixctl.dag import Dag
from helixctl.errors import HelixError
from helixctl.lower import lower
from helixctl.plan import Layout, Plan, illegalities
from helixctl.plan.size import TASKS_OF_A_LAYER, too_large
from helixctl.solve.bound import Bound, Bounds
from helixctl.solve.candidate import Candidate, simulated, size
from helixctl.solve.objective import Key, Objective, key, least, simplicity
from helixctl.solve.refusals import cannot_fit, none_fits, none_legal, weights_do_not_fit
from helixctl.solve.search import BUDGET, Found, search
from helixctl.solve.space import FEW, MANY, pairs, space
from helixctl.solve.verdict import Row, reasons, too_big, verdict
from helixctl.solve.wish import Wish, wish_text
from helixctl.solve.work import Works
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec

Bounded = tuple[Bound, Layout]  # a layout with its quick bound

_MOST_ROWS: Final = 10
_GLANCE: Final = 2_000  # tasks to simulate where not even the weights fit: enough to name the smallest
_MOST_ILLEGAL: Final = 5


@dataclass(frozen=True)
class Decision:
    """What was chosen, with the reasons.

    Attributes:
        rows: the most promising layout of every mesh (groups, slices, replicas, stages), the best first, then the pairs
            groups x slices that are not legal.
        reasons: why this one, in sentences.
        legal, simulated: how many layouts there were, and how many of them were simulated.
        open_bound: what a layout that was not simulated could reach at best; None where none can be better.
    """

    objective: Objective
    plan: Plan
    rows: tuple[Row, ...]
    reasons: tuple[str, ...]
    legal: int
    simulated: int
    open_bound: Key | None

    @property
    def memory_nbytes(self) -> int:
        """Bytes that the plan's fullest device holds."""
        return next(
            int(row.candidate.forecast.memory_nbytes) for row in self.rows if row.chosen and row.candidate.forecast
        )

    @cached_property
    def dag(self) -> Dag:
        """The plan, lowered."""
        return lower(self.plan)


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
            too many devices.
    """
    if large := too_large(
        TASKS_OF_A_LAYER * min(model.layers, 2) * cluster.devices, f"a plan for {cluster.devices:,} devices"
    ):
        raise HelixError(large)
    solver = _Solver(model, cluster, workload, objective, budget)
    return solver.decide(wish or {}, defaults=defaults)


class _Solver:
    def __init__(
        self, model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec, objective: Objective, budget: int
    ) -> None:
        self.specs = (model, cluster, workload)
        self.objective: Objective = objective
        self.budget = budget
        self.bounds = Bounds(Works(*self.specs))

    def decide(self, wish: Wish, *, defaults: bool) -> Decision:
        model, cluster, workload = self.specs
        if cannot := weights_do_not_fit(self.bounds.works.weights_nbytes(), cluster):
            raise HelixError(cannot)
        others = {name: field.default for name, field in Layout.model_fields.items()} if defaults else {}
        others.pop("slicing", None)  # the model says how it can be sliced
        free = {axis: value for axis, value in {**others, **wish}.items() if axis not in {"groups", "slices"}}
        found, layouts = self._found(wish, free)
        best = found.best
        if best is None:
            raise HelixError(none_fits(found, self.specs))
        shown = self._rows(best, found, layouts, wish)
        plan = Plan.of(model, cluster, workload, best.layout)
        return Decision(
            self.objective,
            plan,
            shown,
            reasons(best, [row.candidate for row in shown], self.objective, model, cluster),
            found.legal,
            len(found.tried),
            found.open_bound,
        )

    def _found(self, wish: Wish, free: Wish) -> tuple[Found, list[Bounded]]:
        """The outcome of the search among what is asked for, and all layouts with the wished axes but n and m."""
        wanted = self.objective
        for most in (FEW, MANY):  # many small microbatches where nothing else fits
            self.objective = wanted
            legal = sorted(space(*self.specs, free, most), key=simplicity)
            layouts = [(self.bounds.quick(layout), layout) for layout in legal]
            asked = [(b, x) for b, x in layouts if all(getattr(x, axis) == value for axis, value in wish.items())]
            if not asked:
                raise HelixError(none_legal(*self.specs, wish, free, legal))
            found = self._search(asked, self.budget, _cannot_fit)
            if found.best is None and found.open_bound:
                self.objective = "memory"  # nothing fitted before the budget was spent: the smallest then
                found = self._search(asked, self.budget, _cannot_fit)
            if found.best:
                return found, layouts
        self.objective = "memory"  # nothing fits: what comes nearest to it
        (_, smallest) = self._promising([(self._least(bound), layout) for bound, layout in asked])
        if cannot := cannot_fit(smallest, self.bounds(smallest), self.specs):
            raise HelixError(cannot)
        return self._search(asked, _GLANCE), layouts

    def _search(
        self, layouts: Iterable[Bounded], budget: int, hopeless: Callable[[Key], bool] = lambda _: False
    ) -> Found:
        return search(
            [(self._least(bound), layout) for bound, layout in layouts],
            lambda layout: self._least(self.bounds(layout)),
            lambda layout: simulated(*self.specs, layout),
            self._key,
            lambda candidate: too_big(candidate, self.specs[1]) is None,
            lambda layout: size(*self.specs, layout),
            budget,
            hopeless,
        )

    def _key(self, candidate: Candidate) -> Key:
        if candidate.forecast is None:
            raise TypeError  # only legal layouts are searched
        return key(self.objective, candidate.forecast)

    def _least(self, bound: Bound) -> Key:
        """A key that a layout with this bound is not below; one that cannot fit comes last."""
        found = least(self.objective, bound)
        return found if bound.memory_nbytes <= self.specs[1].device.available else (inf, *found)

    # --- the other layouts -------------------------------------------------------------------------------------------

    def _rows(self, best: Candidate, found: Found, layouts: Sequence[Bounded], wish: Wish) -> tuple[Row, ...]:
        meshes: dict[object, Candidate] = {}
        for candidate in sorted(found.tried, key=lambda c: (self._key(c), simplicity(c.layout))):
            meshes.setdefault(_mesh(candidate.layout), candidate)
        meshes[_mesh(best.layout)] = best
        groups: dict[object, list[tuple[Key, Layout]]] = {}
        for bound, layout in layouts:
            if _mesh(layout) not in meshes:
                groups.setdefault(_mesh(layout), []).append((self._least(bound), layout))
        always = self._always(best.layout)
        nearest = sorted(groups.items(), key=lambda item: (item[0] not in always, min(key for key, _ in item[1])))
        most = max(len(always), _MOST_ROWS - len(meshes))
        some = [self._promising(group) for _, group in nearest[: 2 * most]]
        some = sorted(some, key=lambda item: (_mesh(item[1]) not in always, item[0], simplicity(item[1])))
        others = [simulated(*self.specs, layout) for layout in self._within_budget(x for _, x in some[:most])]
        legal = sorted([*meshes.values(), *others], key=lambda c: (c is not best, self._key(c), simplicity(c.layout)))
        illegal = [c for c in self._pairs(wish) if c.reasons]
        kept = [c for i, c in enumerate(legal) if i < _MOST_ROWS or _mesh(c.layout) in always]
        shown = [*kept, *illegal[:_MOST_ILLEGAL]]
        return tuple(Row(c, c is best, verdict(c, best, wish_text(wish), self.objective, self.specs[1])) for c in shown)

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
