"""Layouts that are bounded and searched together: what is found is what a search of single layouts finds."""

from __future__ import annotations

from itertools import islice

import pytest

from helixctl.plan import Layout
from helixctl.solve import Objective, space
from helixctl.solve.axes import Order
from helixctl.solve.bound import Bound, Bounds
from helixctl.solve.families import Family, MeshLayouts, by_mesh, each_of_kind, every, number_of, of_kind
from helixctl.solve.microbatches import Microbatches
from helixctl.solve.objective import simplicity
from helixctl.solve.problem import LayoutProblem, Specs
from helixctl.solve.search import SearchResult, search
from helixctl.solve.space import families
from helixctl.solve.work import LaneCosts, LayerCosts, LayoutCosts
from tests.documents import BLOCKS, PAPER, PAPER_MOE, ROOT, SMALL_MOE, specs

STEPS = ("hosts=1", "attention.softmax_slices=1", "workload.batch=16", "workload.seq_len=64", "workload.output_len=64")
PROBLEMS = [
    (PAPER_MOE, ("workload.batch=96",), "throughput"),
    (PAPER, STEPS, "tpot"),
    (SMALL_MOE, ("workload.batch=6",), "throughput"),
]
# A model that is cut over hosts in several ways, and whose collectives hide in part.
DENSE = (
    (str(ROOT / "plans/models/Llama-3.1-70B"), "h100:2x8"),
    ("workload.batch=8", "workload.seq_len=2048"),
    "throughput",
)
# Other kinds of bounds and of budgets, which take longer.
MORE = [
    (PAPER, (), "throughput"),
    (PAPER_MOE, ("workload.batch=24", "workload.seq_len=8"), "latency"),
    (PAPER, STEPS, "ttft"),
    (PAPER, ("workload.batch=64",), "memory"),
    (BLOCKS, (), "latency"),
]


@pytest.fixture(params=[*PROBLEMS, *(pytest.param(its, marks=pytest.mark.sweep) for its in MORE)])
def problem(request: pytest.FixtureRequest) -> LayoutProblem:
    paths, sets, objective = request.param
    return problem_of(paths, sets, objective)


def problem_of(paths: tuple[str, str], sets: tuple[str, ...], objective: Objective) -> LayoutProblem:
    return LayoutProblem.of(Specs(*specs(paths, *sets)), objective)


def singles(problem: LayoutProblem) -> list[Layout]:
    """Every layout of its space, the simplest first."""
    return sorted(space(*problem.specs, {}, objective=problem.objective), key=simplicity)


def meshes(problem: LayoutProblem) -> list[MeshLayouts]:
    """The same by mesh."""
    return by_mesh(families(*problem.specs, {}, objective=problem.objective))


def test_meshes_have_every_layout_once_in_one_order(problem: LayoutProblem) -> None:
    single, grouped = singles(problem), meshes(problem)
    assert every(grouped) == single
    assert number_of(grouped) == len(single) == len(set(single))
    assert len({simplicity(layout) for layout in single}) == len(single)
    firsts = [min(simplicity(layout) for layout in its.layouts()) for its in grouped]
    assert firsts == sorted(firsts)
    for its in grouped:
        assert {(x.groups, x.slices, x.data, x.pipeline) for x in its.layouts()} == {its.mesh}
        assert its.most_microbatches == max(x.microbatches for x in its.layouts())
        for family in its.families:
            assert family.first == min(family.layouts(), key=simplicity)


def test_no_quick_bound_is_below_that_of_several(problem: LayoutProblem) -> None:
    """Those of a family in one number of microbatches have one quick bound, which comes behind the loose ones."""
    for its in meshes(problem):
        for family in its.families:
            assert problem.least_bound(its) <= problem.least_bound(family)
            parts = [family.of_size(size) for size in family.sizes]
            assert sorted(map(str, family.layouts())) == sorted(str(x) for part in parts for x in part.layouts())
            for part in parts:
                (quick,) = {problem.quick_bound(layout) for layout in part.layouts()}
                assert problem.least_bound(family) <= problem.least_bound(part) <= quick == problem.quick_bound(part)
        assert {problem.least_bound(its)} <= {problem.least_bound(family) for family in its.families}


def not_above(bound: Bound, other: Bound) -> bool:
    """Whether a looser bound is one of all that the other is one of."""
    pairs = zip(bound[:-1], other[:-1], strict=True)
    return all(one <= another for one, another in pairs) and bound.fits >= other.fits


@pytest.mark.parametrize(
    ("paths", "sets", "objective"), [*PROBLEMS, DENSE, *(pytest.param(*its, marks=pytest.mark.sweep) for its in MORE)]
)
def test_a_bound_in_any_order_is_one_of_each(
    paths: tuple[str, str], sets: tuple[str, ...], objective: Objective
) -> None:
    """The bounds of a family are those of its layouts; what they have in any order is less, and near the lowest."""
    problem, near = problem_of(paths, sets, objective), list[bool]()
    for its in islice(meshes(problem), 0, None, 3):
        for part in (family.of_size(size) for family in its.families for size in family.sizes):
            (orders,) = part.orders.values()
            exact = [problem.bounds(layout) for layout in part.layouts()]
            first = part.first.model_copy(update={"microbatches": part.size})
            assert problem.bounds.in_orders(part.first, orders) == exact
            (loose,) = problem.bounds.loose(part.first, part.sizes)
            found = problem.bounds.in_any_order(part.first, part.size, orders)
            assert all(not_above(found, one) for one in exact), first
            assert problem.bounds.quick(part.first, part.size) == problem.bounds.quick(first)
            assert not_above(loose, problem.bounds.quick(first)), first
            assert loose.step_s > 0
            near.append(found.step_s > 0.7 * min([one.step_s for one in exact]))
    assert sum(near) > len(near) / 2


@pytest.mark.parametrize(("turns", "step_s"), [((1,), 8.0), ((2,), 20.0), ((1, 2), 8.0)])
def test_collectives_that_hide_count_where_microbatches_take_turns(
    turns: tuple[int, ...], step_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight times a layer that computes for a second beside 2.5 of collectives, which none of its tasks waits for."""
    bounds = Bounds(LayoutCosts(*specs(PAPER, "layers=4")))
    nothing = LaneCosts()
    work = LayerCosts((LaneCosts(1.0, 2.5, 1.0),), nothing, nothing, (1.0,), 0, 0, 0)
    monkeypatch.setattr(Microbatches, "with_least_communication", lambda *_: work)
    layout = Layout(groups=8, slices=1, data=2, microbatches=2)
    orders = [{"gather_order": "slices_first", "placement": layout.placement, "interleave": its} for its in turns]
    assert bounds.in_any_order(layout, 2, orders).step_s == pytest.approx(step_s, rel=1e-8)


def test_layouts_are_narrowed_in_the_order_of_their_bounds(problem: LayoutProblem) -> None:
    """That of single layouts, whatever is known of several at once; no layout that is not worth it is made."""
    single = singles(problem)
    some = single[:: max(1, len(single) // 300)]
    bounds = {x: max(problem.quick_bound(x), problem.bound(x), problem.bound_with_turns(x)) for x in some}
    worst = sorted(bounds.values())[len(bounds) // 10]
    found = list(problem.narrowed(problem.bounded(meshes(problem)), lambda bound: bound <= worst))
    assert found == sorted(found, key=lambda its: (its[0], simplicity(its[1])))
    expected = {x: its for x, its in bounds.items() if its <= worst}
    assert {x: bound for bound, x in found if x in bounds} == expected
    assert len({x for _, x in found}) == len(found)


@pytest.mark.parametrize("budget", [300, *(pytest.param(n, marks=pytest.mark.sweep) for n in (1, 3000))])
def test_a_search_by_mesh_is_that_of_single_layouts(problem: LayoutProblem, budget: int) -> None:
    """The same layouts are simulated, in the same order, and what is proved of the rest is the same."""

    def found(result: SearchResult) -> tuple[object, ...]:
        return result.best, [c.layout for c in result.tried], result.legal, result.open_bound

    single, grouped = problem.bounded(singles(problem)), problem.bounded(meshes(problem))
    alone = search(single, problem, budget)
    assert found(search(grouped, problem, budget)) == found(alone)
    if alone.best:
        first = [alone.tried[-1].layout, alone.best.layout.model_copy(update={"key_block": 32})]  # not among them
        assert found(search(grouped, problem, budget, first=first)) == found(
            search(single, problem, budget, first=first)
        )
        known = alone.tried[::2]
        assert found(search(grouped, problem, budget, known)) == found(search(single, problem, budget, known))


def test_meshes_ascend_as_single_layouts_do(problem: LayoutProblem) -> None:
    """Of equal bounds the mesh that is given first comes first, and of a mesh the simplest layout."""
    grouped = problem.bounded(meshes(problem)[::-1])
    place = {(x.groups, x.slices, x.data, x.pipeline): n for n, (_, its) in enumerate(grouped) for x in every([its])}
    expected = sorted(
        (problem.quick_bound(x), place[x.groups, x.slices, x.data, x.pipeline], simplicity(x), str(x))
        for x in singles(problem)
    )
    assert [(bound, str(x)) for bound, x in problem.ascending(grouped)] == [(its[0], its[3]) for its in expected]


def test_few_layouts_of_many_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Families whose bound is above the best that was found are never opened."""
    problem = problem_of(PAPER_MOE, ("hosts=8", "workload.batch=1024", "workload.seq_len=128"), "throughput")
    made, layout_of = [], Family.layout

    def counted(family: Family, order: Order) -> Layout:
        made.append(layout_of(family, order))
        return made[-1]

    monkeypatch.setattr(Family, "layout", counted)
    bounded = problem.bounded(meshes(problem))
    assert not made
    result = search(bounded, problem, 12_000)
    assert result.open_bound is None
    assert len(result.tried) <= len(made) < result.legal / 200


def test_kinds_of_layouts(problem: LayoutProblem) -> None:
    """What all of a family are can be asked of one; what some are is asked of each."""
    for its in islice(meshes(problem), 3, None, 5):
        reduced = of_kind(its, lambda x: x.combine == "reduce")
        assert every([reduced] if reduced else []) == [x for x in every([its]) if x.combine == "reduce"]
        parts = each_of_kind(its, lambda x: x.microbatches == 2)
        assert every([parts] if parts else []) == [x for x in every([its]) if x.microbatches == 2]
        for layout in islice(its.layouts(), 2):
            assert of_kind(layout, lambda x: x.data > 0) == each_of_kind(layout, lambda x: x.data > 0) == layout
            assert of_kind(layout, lambda x: x.data == 0) is each_of_kind(layout, lambda x: x.data == 0) is None
