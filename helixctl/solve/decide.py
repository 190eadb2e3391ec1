"""The decision: the best layout of those asked for, with the reasons, and a verdict on the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, NamedTuple

from helixctl import collector
from helixctl.errors import Diagnostic, HelixError
from helixctl.plan import Layout, Plan, illegalities
from helixctl.plan.size import TASKS_OF_A_LAYER, tasks_of, too_large
from helixctl.simulate import Forecast, KindMemory
from helixctl.solve.beside import Table
from helixctl.solve.candidate import Candidate
from helixctl.solve.constraints import AxisConstraints, Request
from helixctl.solve.differing import DifferingBounds
from helixctl.solve.families import Layouts, MeshLayouts, by_mesh, each_of_kind, every, number_of
from helixctl.solve.generation import GenerationBounds
from helixctl.solve.limits import Limits
from helixctl.solve.near import other_orders
from helixctl.solve.objective import OF_A_GENERATION, Key, Objective, simplicity
from helixctl.solve.problem import Bounded, LayoutProblem, Specs
from helixctl.solve.reasons import Evidence, alone, beside_equal, reasons, searched
from helixctl.solve.refusals import cannot_fit, none_fits, none_legal, too_many_tasks, weights_do_not_fit
from helixctl.solve.search import BUDGET, SearchResult, search
from helixctl.solve.shares import UnequalShares
from helixctl.solve.space import FEW, MANY, combinations, families, space
from helixctl.solve.stages import dealt
from helixctl.solve.verdict import Row
from helixctl.spec import ClusterSpec, EqualHosts, ModelSpec, WorkloadSpec
from helixctl.units import human_seconds

# Nothing fits by any bound that could be told: at most this number of tasks is simulated, to name the smallest layouts
# in the error.
_BUDGET_OF_AN_ERROR: Final = 2_000
# Layouts that are compared by all that they need where nothing fits: a tenth of a second.
_NEAREST: Final = 32
# Rows that are only shown beside the choice may take the second part of what the search may.
_SHARE_OF_ROWS: Final = 2
_MOST_OF_TWO_LAYERS: Final = 1_000_000  # tasks of two layers: 38,000 devices, a minute's search


@dataclass(frozen=True)
class Decision:
    """What was chosen, with the reasons.

    Attributes:
        objective: what was made as small (throughput: as large) as can be.
        plan: the choice.
        rows: the most promising layout of every mesh (groups, slices, replicas, stages), the best first, then the pairs
            groups x slices that are not legal. The choice alone where every axis was fixed.
        reasons: why this one, in sentences.
        searched: how much of the space was simulated, and what is known of the rest, in a sentence.
        legal: how many legal layouts there were.
        simulated: how many of them were simulated.
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
    def forecast(self) -> Forecast:
        """The forecast of the plan."""
        return next(row.candidate.forecast for row in self.rows if row.chosen and row.candidate.forecast)

    @property
    def memory_nbytes(self) -> int:
        """Bytes that the plan's fullest device holds."""
        return int(self.forecast.memory_nbytes)


def decide(
    model: ModelSpec,
    cluster: ClusterSpec,
    workload: WorkloadSpec,
    constraints: AxisConstraints | None = None,
    objective: Objective = "throughput",
    *,
    plain: bool = False,
    budget: int = BUDGET,
    limits: Limits | None = None,
    admitted: Callable[[Layout], bool] | None = None,
) -> Decision:
    """Choose a layout; ``constraints`` fix axes, the search has the others.

    Args:
        model: what is planned.
        cluster: for which devices.
        workload: and which step.
        constraints: axes that are fixed.
        objective: what is made as small (throughput: as large) as can be.
        plain: every axis that is not fixed, but groups and slices, keeps its default: the paper's n x m.
        budget: tasks that the search may simulate; the best so far is taken where it ends early.
        limits: what a generation may take at most.
        admitted: what else the choice must satisfy, such as the rules of an engine.

    Raises:
        ValueError: the objective is of a generation, and the workload has no ``output_len``.
        HelixError: HX201 no layout is legal; HX202 the one asked for is not; HX203 none fits in memory; HX305 there are
            too many devices, or every layout that is asked for has too many tasks.
    """
    if objective in OF_A_GENERATION and workload.output_len is None:
        raise ValueError(f"objective {objective} is of a generation: the workload has no output_len")
    least = TASKS_OF_A_LAYER * min(model.layers, 2) * cluster.devices
    if large := too_large(least, f"any plan for {cluster.devices:,} devices", _MOST_OF_TWO_LAYERS):
        raise HelixError(large)
    if limits and str(limits) and workload.output_len is None:
        raise ValueError(f"{limits} is of a generation: the workload has no output_len")
    problem = LayoutProblem.of(Specs(model, cluster, workload), objective, limits)
    request = Request(constraints or {}, plain, admitted)
    with collector.paused():
        return _only_layout(problem, request) or _best_layout(problem, request, budget)


def _only_layout(problem: LayoutProblem, request: Request) -> Decision | None:
    """The decision where there is no choice and the one layout can be planned: it alone is looked at; else None."""
    few = list(islice(combinations(*problem.specs, request.fixed, FEW, problem.objective), 2))
    if len(few) != 1 or not request.admits(few[0]):
        return None
    (layout,) = few
    if isinstance(problem.bounds, DifferingBounds) and any(UnequalShares(problem.bounds, request.fixed).of(layout)):
        return None
    model, cluster, workload = problem.specs
    if illegalities(layout, model, workload, cluster.devices, differs=cluster.differs) or too_large(
        _tasks(problem, layout), ""
    ):
        return None
    candidate = problem.simulate(layout)
    if not problem.fits(candidate):
        return None
    candidate = _with_stages_that_fit(problem, request, candidate, [candidate]) or candidate
    row = Table(problem, request, budget=0).row(candidate, candidate, proved=True)
    plan = Plan.of(*problem.specs, candidate.layout)
    return Decision(problem.objective, plan, (row,), (), alone(str(request)), 1, 1, None, (candidate,))


_PIPELINES = 3  # for which stages of other sizes are tried


class _Searched(NamedTuple):
    """The outcome of a search.

    Attributes:
        result: of the search among what is asked for; something fits.
        legal: all legal layouts with the fixed axes other than groups and slices.
        layouts: those of them that are not too large, with their first bounds.
    """

    result: SearchResult
    legal: Sequence[Layouts]
    layouts: list[Bounded]


def _best_layout(problem: LayoutProblem, request: Request, budget: int) -> Decision:
    specs = problem.specs
    if cannot := weights_do_not_fit(problem.bounds.costs.weights_nbytes(), specs.cluster):
        raise HelixError(cannot)
    part = _largest_part(problem, budget // _SHARE_OF_ROWS) if specs.cluster.differs else None
    if part and part.comes_first:
        problem.know(on_the_first(part.priced, specs.cluster, specs.workload))
    result, legal, layouts = _searched(problem, request, budget, part)
    if result.best is None:
        raise TypeError  # it would have been refused
    table = Table(problem, request, budget // _SHARE_OF_ROWS)
    beside = table.candidates(result.best, result.tried, layouts)
    if specs.cluster.has_domains:
        beside = [*beside, *(problem.simulate(x) for x in other_orders(result.best.layout, layouts))]
    best, open_bound = _better(problem, result, [c for c in beside if request.admits(c.layout)])
    simulated = [*result.tried, *beside]
    if other := _with_stages_that_fit(problem, request, best, simulated):
        best, simulated = other, [*simulated, other]
    cached = problem.bounds.cache_nbytes if isinstance(problem.bounds, GenerationBounds) else None
    fixed = bool(request.fixed_beside_pairs)
    evidence = Evidence(
        simulated,
        legal,
        layouts,
        fixed=fixed,
        limits=problem.limits,
        cache_nbytes=cached,
        ascending=problem.ascending,
    )
    admitted = [found for its in legal if (found := request.admitted_of(its))]
    left_out = number_of(admitted) - result.legal
    seen = {c.layout for c in simulated if request.admits(c.layout)}
    counts = (result.legal, len(seen), left_out)
    return Decision(
        problem.objective,
        Plan.of(*specs, best.layout),
        table.rows(best, simulated, {its.mesh for its in admitted}, proved=open_bound is None),
        (
            *reasons(best, evidence, problem.objective, specs.model, specs.cluster),
            *(_beside_equals(problem, request, best, layouts, part, budget) if part else ()),
        ),
        searched(best, *counts, open_bound, problem.objective, str(request)),
        result.legal,
        len(seen),
        open_bound,
        tuple(sorted(simulated, key=lambda c: (problem.key(c), simplicity(c.layout)))),
    )


def _better(problem: LayoutProblem, result: SearchResult, others: Sequence[Candidate]) -> tuple[Candidate, Key | None]:
    """The best of what was asked for, rows that are only shown among them; and the bound of the rest."""
    fitting = [c for c in others if problem.fits(c)]
    best = min([*filter(None, [result.best]), *fitting], key=lambda c: (problem.key(c), simplicity(c.layout)))
    closed = result.open_bound is not None and result.open_bound > problem.key(best)
    return best, None if closed else result.open_bound


def _with_stages_that_fit(
    problem: LayoutProblem, request: Request, best: Candidate, simulated: Sequence[Candidate]
) -> Candidate | None:
    """Where layers differ: what is better than the best if layers are dealt to the stages so that work is even.

    It is tried with the best of the pipelines that were simulated. What is proved of all other layouts is of equal
    stages.
    """
    if not problem.specs.model.pattern or "stages" in request.fixed or isinstance(problem.bounds, DifferingBounds):
        return None
    bounds = problem.bounds
    pipelines = [c for c in simulated if c.layout.pipeline > 1 and request.admits(c.layout)]
    pipelines = sorted(pipelines, key=lambda c: (problem.key(c), simplicity(c.layout)))[:_PIPELINES]
    others = {layout: dealt(layout, *bounds.seconds(layout)) for layout in (c.layout for c in pipelines)}
    found = [best, *(problem.simulate(other) for layout, other in others.items() if other != layout)]
    first = min(filter(problem.fits, found), key=lambda c: (problem.key(c), c is not best))
    return first if first is not best else None


class _Part(NamedTuple):
    """The largest part of a cluster whose hosts are equal.

    Attributes:
        hosts: it alone.
        comes_first: whether a layout of it is one of the whole cluster, where all other devices idle.
        best: the best layout on it; None where nothing fits.
        priced: all that were simulated on it.
    """

    hosts: ClusterSpec
    comes_first: bool
    best: Candidate | None
    priced: tuple[Candidate, ...]


def _searched(problem: LayoutProblem, request: Request, budget: int, part: _Part | None) -> _Searched:
    """Search what is asked for; many small microbatches are tried where nothing else fits in memory.

    Where hosts differ, the best layout of the largest equal part is there to begin with: all other devices idle.
    """
    specs = problem.specs
    first = [part.best] if part and part.comes_first and part.best and request.admits(part.best.layout) else []
    within = min((_step_s(c) for c in first), default=None) if problem.objective == "throughput" else None
    for most in (FEW, MANY):
        fixed = request.fixed_beside_pairs
        legal = _legal(problem, fixed, most, within)
        wanted = [found for its in legal if (found := request.admitted_of(its))]
        if not wanted:
            raise HelixError(none_legal(specs, request, every(legal)))
        layouts = problem.bounded(found for its in legal if (found := _not_too_large(problem, its)))
        asked = [
            (bound if found is its else problem.least_bound(found), found)
            for bound, its in layouts
            if (found := request.admitted_of(its))
        ]
        if not asked:
            smallest = min(every(wanted), key=lambda x: _tasks(problem, x))
            raise HelixError(too_many_tasks(smallest, specs.model))
        result = search(asked, problem, budget, first=[c.layout for c in first])
        if result.best is None and result.open_bound:
            result = _from_the_smallest(problem, asked, result, budget)
        if result.best:
            return _Searched(result, legal, layouts)
    single = every(its for _, its in asked)
    if str(problem.limits) and (beyond := _beyond_limits(problem, single, budget)):
        raise HelixError(beyond)
    raise HelixError(_nothing_fits(problem.smallest(only_fitting=False), request, single))


def _legal(problem: LayoutProblem, fixed: AxisConstraints, most: int, within: float | None) -> Sequence[Layouts]:
    """The layouts that ``every_layout`` has, the simplest first: those of a mesh together where hosts do not differ."""
    if isinstance(problem.bounds, DifferingBounds):
        return sorted(every_layout(problem, fixed, most, within), key=simplicity)
    return by_mesh(families(*problem.specs, fixed, most, problem.objective))


def _not_too_large(problem: LayoutProblem, its: Layouts) -> Layouts | None:
    """Those of some layouts that have no more tasks than can be worked with; None where there are none."""
    if isinstance(its, MeshLayouts):
        largest = its.families[0].first.model_copy(update={"microbatches": its.most_microbatches})
        if not too_large(_tasks(problem, largest), ""):
            return its
    return each_of_kind(its, lambda layout: not too_large(_tasks(problem, layout), ""))


def _beside_equals(
    problem: LayoutProblem, request: Request, best: Candidate, layouts: Sequence[Bounded], part: _Part, budget: int
) -> tuple[str, ...]:
    """Where hosts differ: what is idle, and how much is gained over equal shares and over the largest equal part."""
    cluster = problem.specs.cluster
    found = []
    if (some := best.layout.devices) < cluster.devices:
        rest = Counter(cluster.device_of(rank).name for rank in range(some, cluster.devices))
        names = " and ".join(f"{count} x {name}" for name, count in rest.items())
        found.append(f"idle: {cluster.devices - some} of {cluster.devices} devices, {names}")
    equal = [
        (bound, x)
        for bound, its in layouts
        for x in every([its])
        if request.admits(x) and _has_equal_shares(x, cluster)
    ]
    if equal and not _has_equal_shares(best.layout, cluster):
        its = search(equal, problem, budget // _SHARE_OF_ROWS).best
        what = f"with equal shares on all {cluster.devices} devices"
        found.append(beside_equal(f"the best {what}", its, best, problem.objective) or f"nothing {what} fits in memory")
    what = f"{part.hosts.devices_text} alone"
    found.append(beside_equal(f"the best of {what}", part.best, best, problem.objective) or f"nothing fits on {what}")
    return tuple(found)


def _largest_part(problem: LayoutProblem, budget: int) -> _Part:
    """The equal hosts that compute most, and the best layout on them."""
    model, cluster, workload = problem.specs
    kind = max(range(len(cluster.kinds)), key=lambda kind: _peak(cluster.kinds[kind], model))
    hosts, best = cluster.of_kind(kind), None
    priced: tuple[Candidate, ...] = ()
    try:
        found = decide(model, hosts, workload, objective=problem.objective, budget=budget, limits=problem.limits)
        best, priced = next(row.candidate for row in found.rows if row.chosen), found.priced
    except HelixError:
        pass
    return _Part(hosts, kind == 0, best, priced)


def on_the_first(candidates: Iterable[Candidate], cluster: ClusterSpec, workload: WorkloadSpec) -> Iterator[Candidate]:
    """Candidates of the first kind of hosts alone, as the whole cluster would forecast them: all others are idle.

    Left out are those whose replicas differ: of these one is simulated on equal hosts, and each where hosts differ.
    """
    idle = (KindMemory(0, 0, 0),) * (len(cluster.kinds) - 1)
    for its in candidates:
        if its.forecast and workload.batch % (its.layout.data * its.layout.microbatches) == 0:
            yield replace(its, forecast=replace(its.forecast, memory_of_kinds=(its.forecast.fullest, *idle)))


def _step_s(candidate: Candidate) -> float:
    if candidate.forecast is None:
        raise TypeError  # it was simulated
    return candidate.forecast.step_s


def _has_equal_shares(layout: Layout, cluster: ClusterSpec) -> bool:
    unequal = (layout.stages, layout.batch_shares, layout.group_shares)
    return layout.devices == cluster.devices and unequal == (None, None, None)


def _peak(hosts: EqualHosts, model: ModelSpec) -> float:
    return hosts.devices * hosts.device.peak[model.dtype]


def every_layout(
    problem: LayoutProblem, fixed: AxisConstraints, most: int = FEW, within: float | None = None
) -> Iterator[Layout]:
    """The legal layouts that are searched; where hosts differ, those of the space come with unequal shares as well.

    Args:
        problem: what they are compared for.
        fixed: axes that have one value.
        most: microbatches per stage.
        within: seconds of a step; unequal shares are left out where no such shares can keep within it.
    """
    layouts = space(*problem.specs, fixed, most, problem.objective)
    if not isinstance(problem.bounds, DifferingBounds):
        yield from layouts
        return
    model, cluster, workload = problem.specs
    shares = UnequalShares(problem.bounds, fixed, within)
    for layout in layouts:
        yield layout
        for one in shares.of(layout):
            if not illegalities(one, model, workload, cluster.devices, differs=True):
                yield one


def _from_the_smallest(
    problem: LayoutProblem, asked: Sequence[Bounded], result: SearchResult, budget: int
) -> SearchResult:
    """Nothing fitted before the budget was spent: find the smallest, and what is better beside it."""
    smallest = problem.smallest()
    small = search(smallest.bounded(its for _, its in asked), smallest, budget)
    if small.best is None:
        return small
    known = {c.layout: c for c in (*result.tried, *small.tried)}
    return search(asked, problem, budget, list(known.values()))


def _beyond_limits(problem: LayoutProblem, asked: Sequence[Layout], budget: int) -> Diagnostic | None:
    """HX203, with what comes nearest to the limits of what fits in memory; None where nothing fits."""
    texts = []
    asks: tuple[tuple[Objective, str], ...] = (("ttft", "first token after"), ("tpot", "time per output token"))
    for objective, what in asks:
        free = replace(problem, objective=objective, limits=Limits())
        best = search(free.bounded(asked), free, budget).best
        if best is None or best.forecast is None or best.forecast.generation is None:
            return None
        its = best.forecast.generation
        seconds = its.ttft_s if objective == "ttft" else its.time_per_output_token_s
        texts.append(f"{what} {human_seconds(seconds)} ({best.layout})")
    hint = (
        f"the shortest that were found: {'; '.join(texts)}; raise the limit, or use more devices or a smaller --batch"
    )
    return Diagnostic("HX203", f"no layout that fits in memory has {problem.limits}", hint)


def _nothing_fits(problem: LayoutProblem, request: Request, asked: Sequence[Layout]) -> list[Diagnostic]:
    """HX203, with the layouts that come nearest to it; ``problem`` compares by memory."""
    bounded = problem.bounded(asked)
    # How much is live of what cannot fit without it is told where it is said: of those that need least.
    exact = LayoutProblem.of(problem.specs, "memory", problem.limits)
    nearest = islice(problem.narrowed(bounded, lambda _: True), _NEAREST)
    smallest = min([layout for _, layout in nearest], key=lambda layout: (exact.bound(layout), simplicity(layout)))
    if cannot := cannot_fit(smallest, exact.bounds(smallest), problem.specs, free=request.is_free):
        return [cannot]
    return none_fits(search(bounded, problem, _BUDGET_OF_AN_ERROR), problem.specs, free=request.is_free)


def _tasks(problem: LayoutProblem, layout: Layout) -> int:
    """About how many tasks a layout's dag has."""
    return tasks_of(layout, problem.specs.model.layers)
