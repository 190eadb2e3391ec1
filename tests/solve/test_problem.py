"""What a search asks of its problem: bounds, and only as many of them as decide."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from helixctl.plan import Layout
from helixctl.solve import Objective, space
from helixctl.solve.objective import Key
from helixctl.solve.problem import LayoutProblem, Specs
from tests.documents import PAPER, specs

STEPS = ("hosts=1", "attention.softmax_slices=1", "workload.batch=16", "workload.seq_len=64", "workload.output_len=64")


@pytest.mark.parametrize("objective", ["throughput", "ttft", "tpot", "memory"])
def test_layouts_ascend_by_their_quick_bounds(objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a generation only some quick bounds are worked out: one step tells that others come later."""
    model, cluster, workload = specs(PAPER, *STEPS)
    problem, calls = LayoutProblem.of(Specs(model, cluster, workload), objective), Counter[Layout]()
    quick = LayoutProblem.quick_bound

    def counted(problem: LayoutProblem, layout: Layout) -> Key:
        calls[layout] += 1
        return quick(problem, layout)

    monkeypatch.setattr(LayoutProblem, "quick_bound", counted)
    layouts = list(space(model, cluster, workload, {}, objective=objective))
    bounded = problem.bounded(layouts)
    assert not calls
    first = list(islice(problem.ascending(bounded), 5))
    assert 5 <= len(calls) < len(layouts)
    every = sorted(((quick(problem, x), n, x) for n, x in enumerate(layouts)), key=lambda its: its[:2])
    assert first == [(bound, x) for bound, _, x in every[:5]]
    assert list(problem.ascending(bounded)) == [(bound, x) for bound, _, x in every]
    assert all(one <= quick(problem, x) for one, x in bounded)
