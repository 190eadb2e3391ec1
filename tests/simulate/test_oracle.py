"""The simulator against the second model, and its two ways of simulating against one another."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from helixctl.cost.tasks import TaskCosts
from helixctl.dag import Dag, Task
from helixctl.simulate import Timeline, forecast, simulate
from helixctl.simulate.dedicated import simulate_dedicated
from helixctl.simulate.shared import simulate_shared
from tests.documents import PAPER, ROOT, SMALL, dag_of
from tests.runtime.models import real
from tests.simulate.dags import interleaved, part_of
from tests.simulate.oracle import Oracle

LAYOUTS = [
    {"groups": 4, "slices": 4},
    {"groups": 4, "slices": 4, "gather_order": "groups_first"},
    {"groups": 4, "slices": 4, "combine": "reduce"},
    {"groups": 16, "slices": 1},
    {"groups": 8, "slices": 1, "pipeline": 2, "microbatches": 4},
    {"groups": 2, "slices": 2, "pipeline": 4, "microbatches": 2},
    {"groups": 2, "slices": 2, "pipeline": 2, "data": 2, "microbatches": 2, "combine": "reduce"},
    {"groups": 1, "slices": 4, "data": 4},
    {"groups": 1, "slices": 1, "data": 16},
    {"groups": 4, "slices": 4, "microbatches": 4, "interleave": 2},
    {"groups": 8, "slices": 1, "pipeline": 2, "microbatches": 4, "interleave": 4, "combine": "reduce"},
    {
        "groups": 4,
        "slices": 2,
        "data": 2,
        "microbatches": 2,
        "interleave": 2,
        "placement": "data-groups-slices-pipeline",
    },
]
MIXED = [
    {"groups": 4, "slices": 4, "microbatches": 2},
    {"groups": 8, "slices": 1, "pipeline": 2, "microbatches": 2},
    {"groups": 2, "slices": 2, "pipeline": 2, "data": 2, "microbatches": 2, "gather_order": "groups_first"},
]
DAGS = [
    *[(axes, False) for axes in LAYOUTS],
    *[(axes, True) for axes in MIXED],
]


def made(specs: tuple[str, str], axes: dict[str, int | str], *, mixed: bool) -> Dag:
    dag = dag_of(specs, **axes)
    return interleaved(dag) if mixed else dag


def first_of_every_stage(dag: Dag) -> tuple[int, ...]:
    layout = dag.plan.layout
    return tuple(layout.rank(0, 0, stage) for stage in range(layout.pipeline))


def spans(timeline: Timeline) -> dict[tuple[str, int], tuple[float, float]]:
    return {(s.task, s.rank): (s.begin_s, s.end_s) for s in timeline.spans}


def same(one: dict[tuple[str, int], tuple[float, float]], two: dict[tuple[str, int], tuple[float, float]]) -> bool:
    return one.keys() == two.keys() and all(one[key] == pytest.approx(two[key], rel=1e-9, abs=0) for key in one)


@pytest.fixture(params=[pytest.param(0, marks=pytest.mark.sweep), 1], ids=["even", "uneven"])
def durations(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every compute task of a length of its own, so that ranks wait for one another; in the sweep also as priced.

    Of the mixtures below the steps are as priced in each run.
    """
    if request.param:
        cost = TaskCosts.cost

        def uneven(self: TaskCosts, task: Task) -> float:
            return cost(self, task).seconds * Random(task.id).uniform(0.5, 4)

        monkeypatch.setattr(TaskCosts, "seconds", uneven)


@pytest.mark.usefixtures("durations")
@pytest.mark.parametrize(("axes", "mixed"), DAGS, ids=str)
def test_the_timeline_is_that_of_the_second_model(axes: dict[str, int | str], mixed: bool) -> None:
    dag = made(PAPER, axes, mixed=mixed)
    assert same(spans(simulate(dag)), Oracle(dag).run())


COPYING = [
    {"groups": 2, "slices": 2, "slicing": "batch"},
    {"groups": 1, "slices": 3, "slicing": "query"},
    {"groups": 2, "slices": 2, "slicing": "query", "combine": "reduce", "microbatches": 2, "interleave": 2},
    {"groups": 3, "slices": 1, "pipeline": 2, "microbatches": 2},
]


@pytest.mark.usefixtures("durations")
@pytest.mark.parametrize("axes", COPYING, ids=str)
def test_copies_take_time_in_both(axes: dict[str, int | str]) -> None:
    """Packed ahead of a collective, unpacked ahead of a computation, on ranks with a core each and on shared ones."""
    dag = real(**axes)
    one, two, second = simulate_dedicated(dag), simulate_shared(dag, cores=32), Oracle(dag)
    assert any(any(copies.values()) for copies in second.copies)
    assert same(spans(one), spans(two))
    assert same(spans(one), second.run())
    assert one.rank_end_s == pytest.approx(two.rank_end_s)
    for rank, copied in enumerate(one.copied_s):
        assert copied == pytest.approx(two.copied_s[rank])
    found = forecast(dag)
    assert sum(found.levels.values()) == pytest.approx(found.step_s, rel=1e-9)


@pytest.mark.usefixtures("durations")
@pytest.mark.parametrize(("axes", "mixed"), DAGS[2::2], ids=str)
def test_shared_cores_that_suffice_change_nothing(axes: dict[str, int | str], mixed: bool) -> None:
    dag = made(SMALL, axes, mixed=mixed)
    one, two = simulate_dedicated(dag), simulate_shared(dag, cores=32)
    assert same(spans(one), spans(two))
    assert one.rank_end_s == pytest.approx(two.rank_end_s)
    for here, there in zip(one.waited_s, two.waited_s, strict=True):
        assert sum(here.values()) == pytest.approx(sum(there.values()), rel=1e-9)


@pytest.mark.usefixtures("durations")
@pytest.mark.parametrize("cores", [2, 3, None])
def test_the_spans_of_a_lane_follow_one_another(cores: int | None) -> None:
    dag = interleaved(dag_of(SMALL, 4, 2, microbatches=2))
    timeline = simulate_shared(dag, cores) if cores else simulate_dedicated(dag)
    lanes: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for span in timeline.spans:
        lanes.setdefault((span.rank, span.lane), []).append((span.begin_s, span.end_s))
    for found in lanes.values():
        assert all(a[1] <= b[0] for a, b in pairwise(found))
        assert all(begin < end for begin, end in found)


def test_a_part_of_a_host_asks_for_the_cores_of_all_of_it() -> None:
    dag = dag_of(SMALL, 4, 4)
    assert simulate(part_of(dag, [0])).step_s == pytest.approx(simulate(dag).step_s, rel=1e-9)


@pytest.mark.parametrize("axes", [*LAYOUTS, *MIXED], ids=str)
def test_the_forecast_of_a_part_is_that_of_the_whole(axes: dict[str, int | str]) -> None:
    """One rank of every stage tells the step of all."""
    dag = dag_of(PAPER, **axes)
    stages = first_of_every_stage(dag)
    its = part_of(dag, stages)
    assert simulate(its).ranks == stages
    whole, part = forecast(dag), forecast(its)
    for name in ("step_s", "latency_s", "exposed_s", "hidden_s", "busy_share", "tokens_per_s", "received_nbytes",
                 "sync_overhead_per_token_ms", "between_hosts_nbytes", "memory_nbytes", "weight_nbytes"):  # fmt: skip
        assert getattr(part, name) == pytest.approx(getattr(whole, name), rel=1e-9), name
    assert part.levels == pytest.approx(whole.levels)
    for one, other in zip(part.kinds, whole.kinds, strict=True):
        assert (one.level, one.kind, one.received_nbytes) == (other.level, other.kind, other.received_nbytes)
        assert (one.busy_s, one.exposed_s) == pytest.approx((other.busy_s, other.exposed_s), rel=1e-9)


@pytest.mark.parametrize("axes", [{"experts": 8}, {"experts": 4, "microbatches": 2, "interleave": 2}], ids=str)
def test_a_mixture_of_experts(axes: dict[str, int | str]) -> None:
    dag = dag_of((str(ROOT / "plans/paper/moe.model.yaml"), PAPER[1]), 4, 4, "devices_per_host=8", **axes)
    assert same(spans(simulate(dag)), Oracle(dag).run())
    assert {k.kind for k in forecast(dag).kinds} >= {"route", "experts"}
