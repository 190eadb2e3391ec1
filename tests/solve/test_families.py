"""Layouts that are bounded and searched together: what is found is what a search of single layouts finds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest

from helixctl.plan import Layout
from helixctl.solve import Objective, space
from helixctl.solve.families import Family, MeshLayouts, by_mesh, each_of_kind, every, number_of, of_kind
from helixctl.solve.objective import simplicity
from helixctl.solve.problem import LayoutProblem, Specs
from helixctl.solve.search import SearchResult, search
from helixctl.solve.space import families
from tests.documents import BLOCKS, PAPER, PAPER_MOE, SMALL_MOE, specs

STEPS = ("hosts=1", "attention.softmax_slices=1", "workload.batch=16", "workload.seq_len=64", "workload.output_len=64")
PROBLEMS = [
    (PAPER_MOE, ("workload.batch=96",), "throughput"),
    (PAPER, STEPS, "tpot"),
    (SMALL_MOE, ("workload.batch=6",), "throughput"),
]
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


def test_a_bound_of_several_is_the_lowest_of_theirs(problem: LayoutProblem) -> None:
    """Also where one stands for those of its size: first bounds are the same for all of them."""
    for its in meshes(problem):
        lowest = []
        for family in its.families:
            single = [problem.first_bound(layout) for layout in family.layouts()]
            assert problem.least_bound(family) == min(single)
            lowest.append(min(single))
            parts = [(bound, part) for bound, part in problem.opened(family) if isinstance(part, Family)]
            for bound, part in parts:
                assert {bound} == {problem.first_bound(layout) for layout in part.layouts()}
            assert not parts or sorted(x for _, part in parts for x in map(str, part.layouts())) == sorted(
                map(str, family.layouts())
            )
        assert problem.least_bound(its) == min(lowest)


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
    made, layouts = [], Family.layouts

    def counted(family: Family) -> Iterator[Layout]:
        for layout in layouts(family):
            made.append(layout)
            yield layout

    monkeypatch.setattr(Family, "layouts", counted)
    bounded = problem.bounded(meshes(problem))
    assert not made
    result = search(bounded, problem, 12_000)
    assert result.open_bound is None
    assert 0 < len(made) < result.legal / 20


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
