"""Forecasts of deep models from shallow ones are those of the deep ones."""

from __future__ import annotations

import pytest

from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.program import program_of
from helixctl.simulate import forecast
from helixctl.solve import space
from helixctl.solve.candidate import representatives, simulated
from helixctl.solve.deep import depths, rounds, shallow
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec
from tests.documents import PAPER, PAPER_MOE, ROOT, specs

QWEN = (str(ROOT / "plans/models/Qwen2.5-7B/config.json"), PAPER[1])
PROBLEMS = [
    (PAPER, ("layers=12",)),
    (PAPER_MOE, ("layers=13", "workload.batch=24")),
    (QWEN, ("hosts=1",)),
    (QWEN, ("layers=27", "workload.batch=5")),
    (QWEN, ("layers=27", "workload.batch=5", "workload.logits=all")),
]


@pytest.mark.parametrize(
    ("number", "count"),
    [(1, 8), (3, 2), *(pytest.param(n, 24, marks=pytest.mark.sweep) for n in range(len(PROBLEMS)))],
)
def test_a_deep_forecast(number: int, count: int) -> None:
    paths, sets = PROBLEMS[number]
    model, cluster, workload = specs(paths, *sets)
    layouts = list(space(model, cluster, workload, {}))
    some = layouts[:: max(1, len(layouts) // count)]
    assert {1, 2} == {x.interleave for x in some}
    assert max(x.pipeline for x in some) > 1
    for layout in some:
        ranks = representatives(layout, model, cluster, workload)
        whole = forecast(lower(Plan.sketch(model, cluster, workload, layout), ranks))
        found = simulated(model, cluster, workload, layout).forecast
        assert found is not None
        for name in ("step_s", "latency_s", "weight_nbytes", "received_nbytes", "hidden_s"):
            assert getattr(found, name) == pytest.approx(getattr(whole, name), rel=1e-9), (layout, name)
        if found.memory_nbytes != whole.memory_nbytes:
            # An estimate, where the arena of the shallow model has gaps that the deep one's has not.
            assert found.memory_nbytes == pytest.approx(whole.memory_nbytes, rel=0.01), layout
            assert _has_gaps(model, cluster, workload, layout, ranks), layout
        # The mean over the ranks of how long each waits shifts by the last turns of a pipeline.
        assert found.exposed_s == pytest.approx(whole.exposed_s, rel=0.01, abs=1e-9), layout


def _has_gaps(
    model: ModelSpec, cluster: ClusterSpec, work: WorkloadSpec, layout: Layout, ranks: frozenset[int]
) -> bool:
    """Whether the shallower of the models that are simulated takes more than the largest sum of what is live."""
    fewer = shallow(model, layout, depths(model, layout, work)[-1])
    dag = lower(Plan.sketch(fewer[0], cluster, work, fewer[1]), ranks)
    return any(its.arena.nbytes > its.live_nbytes for its in (program_of(dag, rank) for rank in ranks))


ROUNDS = [
    (PAPER, ("workload.batch=128",)),
    (PAPER_MOE, ("layers=6", "workload.batch=96")),
    (QWEN, ("layers=7", "workload.batch=64", "workload.logits=all")),
    (QWEN, ("layers=9", "hosts=3", "devices_per_host=4", "workload.batch=72")),
]


@pytest.mark.parametrize(
    "number", [n if n < 2 else pytest.param(n, marks=pytest.mark.sweep) for n in range(len(ROUNDS))]
)
def test_a_forecast_of_many_microbatches(number: int) -> None:
    """Extrapolated from two and three rounds of them, it is that of all."""
    paths, sets = ROUNDS[number]
    model, cluster, workload = specs(paths, *sets)
    every = space(model, cluster, workload, {}, objective="latency")
    layouts = [x for x in every if rounds(x, workload, replicas=False) == (2, 3) and x.microbatches < 50]
    some = layouts[:: max(1, len(layouts) // 8)]
    assert {1, 2} == {x.interleave for x in some}
    assert {1} < {x.pipeline for x in some}
    for layout in some:
        ranks = representatives(layout, model, cluster, workload)
        whole = forecast(lower(Plan.sketch(model, cluster, workload, layout), ranks))
        found = simulated(model, cluster, workload, layout).forecast
        assert found is not None
        for name in ("step_s", "latency_s", "busy_share", "tokens_per_s"):
            assert getattr(found, name) == pytest.approx(getattr(whole, name), rel=1e-9), (layout, name)
        for name in ("weight_nbytes", "received_nbytes", "between_hosts_nbytes", "tokens"):
            assert getattr(found, name) == getattr(whole, name), (layout, name)
        # An estimate where blocks of the arena have gaps between them, as docs/formats.md says: these come with rounds.
        if whole.memory_nbytes == whole.least_nbytes:
            assert found.memory_nbytes == pytest.approx(whole.memory_nbytes, rel=1e-3), layout
        else:
            assert 0.999 * whole.least_nbytes <= found.memory_nbytes <= 1.001 * whole.memory_nbytes, layout
        for level in whole.levels:
            assert found.levels[level] == pytest.approx(whole.levels[level], abs=1e-9 * whole.step_s), (layout, level)
        # How long a send is on its way beside the computation grows with the queue in front of a slow stage.
        assert found.exposed_s == pytest.approx(whole.exposed_s, abs=0.05 * whole.step_s), layout
        assert found.hidden_s <= whole.step_s
