"""What a search asks of its problem: bounds, and only as many of them as decide."""

from __future__ import annotations

from itertools import islice

import pytest

from helixctl.plan import Layout
from helixctl.solve import Objective
from helixctl.solve.families import Family, by_mesh, every
from helixctl.solve.objective import Key, simplicity
from helixctl.solve.problem import LayoutProblem, Specs
from helixctl.solve.space import families
from tests.documents import PAPER, specs

STEPS = ("hosts=1", "attention.softmax_slices=1", "workload.batch=16", "workload.seq_len=64", "workload.output_len=64")


@pytest.mark.parametrize("objective", ["throughput", "ttft", "tpot", "memory"])
def test_layouts_ascend_by_their_quick_bounds(objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only some quick bounds are worked out: looser ones tell that others come later, but where memory is compared."""
    problem, calls = LayoutProblem.of(Specs(*specs(PAPER, *STEPS)), objective), list[str]()
    quick = LayoutProblem.quick_bound

    def counted(problem: LayoutProblem, its: Layout | Family) -> Key:
        calls.append(str(its))
        return quick(problem, its)

    monkeypatch.setattr(LayoutProblem, "quick_bound", counted)
    meshes = by_mesh(families(*problem.specs, {}, objective=objective))
    bounded, sizes = problem.bounded(meshes), sum(len(family.sizes) for its in meshes for family in its.families)
    few = [family for its in meshes for family in its.families if family.is_of_one_size]
    assert len(calls) <= len(few)
    first = list(islice(problem.ascending(bounded), 5))
    assert len(calls) >= 5
    assert objective == "memory" or len(calls) < 0.6 * sizes
    expected = sorted(
        (quick(problem, x), n, simplicity(x), str(x)) for n, its in enumerate(meshes) for x in every([its])
    )
    assert [(bound, str(x)) for bound, x in first] == [(its[0], its[3]) for its in expected[:5]]
    assert all(one <= quick(problem, x) for one, its in bounded for x in every([its]))
