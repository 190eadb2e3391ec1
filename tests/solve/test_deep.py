"""Forecasts of deep models from shallow ones are those of the deep ones."""

from __future__ import annotations

import pytest

from helixctl.lower import lower
from helixctl.plan import Plan
from helixctl.simulate import forecast
from helixctl.solve import space
from helixctl.solve.candidate import representatives, simulated
from tests.documents import PAPER, PAPER_MOE, ROOT, specs

QWEN = (str(ROOT / "plans/models/Qwen2.5-7B/config.json"), PAPER[1])
PROBLEMS = [
    (PAPER, ("layers=12",)),
    (PAPER_MOE, ("layers=13", "workload.batch=24")),
    (QWEN, ("hosts=1",)),
    (QWEN, ("layers=27", "workload.batch=5")),
    (QWEN, ("layers=27", "workload.batch=5", "workload.logits=all")),
]


@pytest.mark.parametrize("number", range(len(PROBLEMS)))
def test_a_deep_forecast(number: int) -> None:
    paths, sets = PROBLEMS[number]
    model, cluster, workload = specs(paths, *sets)
    layouts = list(space(model, cluster, workload, {}))
    some = layouts[:: max(1, len(layouts) // 24)]
    assert {1, 2} == {x.interleave for x in some}
    assert max(x.pipeline for x in some) > 1
    for layout in some:
        ranks = representatives(layout, model, cluster, workload)
        whole = forecast(lower(Plan.sketch(model, cluster, workload, layout), ranks))
        found = simulated(model, cluster, workload, layout).forecast
        assert found is not None
        for name in ("step_s", "latency_s", "memory_nbytes", "weight_nbytes", "received_nbytes", "hidden_s"):
            assert getattr(found, name) == pytest.approx(getattr(whole, name), rel=1e-9), (layout, name)
        # The mean over the ranks of how long each waits shifts by the last turns of a pipeline.
        assert found.exposed_s == pytest.approx(whole.exposed_s, rel=0.01, abs=1e-9), layout
