"""The critical path: it takes the step, by hand and in many layouts, and each task waits for the one before it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from helixctl.cost.tasks import TaskCosts
from helixctl.dag import Dag, Task
from helixctl.simulate import critical_path, kinds_on_path, simulate
from helixctl.simulate.shared import simulate_shared
from helixctl.simulate.timeline import Timeline
from tests.documents import PAPER, PAPER_MOE, SMALL, TINY, dag_of
from tests.simulate.dags import interleaved, part_of, tasks_take

LAYOUTS: list[dict[str, int | str]] = [
    {"groups": 4, "slices": 4},
    {"groups": 4, "slices": 4, "combine": "reduce", "gather_order": "groups_first"},
    {"groups": 8, "slices": 1, "pipeline": 2, "microbatches": 4, "interleave": 2},
    {"groups": 2, "slices": 2, "pipeline": 4, "microbatches": 2},
    {"groups": 2, "slices": 2, "pipeline": 2, "data": 2, "microbatches": 2, "combine": "reduce"},
    {"groups": 4, "slices": 4, "microbatches": 4, "interleave": 4},
    {"groups": 1, "slices": 1, "data": 16},
]


def uneven(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Every task takes a length of its own, so that ranks wait for one another."""
    tasks_take(monkeypatch, lambda task: Random(f"{seed} {task.id}").uniform(0.1, 4))


def names(dag: Dag, timeline: Timeline) -> list[str]:
    return [task.id for task in critical_path(dag, timeline.seconds)]


def holds(dag: Dag, timeline: Timeline) -> None:
    """The path begins with the step, has no gap, and ends with the step."""
    path = names(dag, timeline)
    assert timeline.begin_s[path[0]] == 0
    assert all(timeline.end_s[a] == pytest.approx(timeline.begin_s[b], rel=1e-9) for a, b in pairwise(path))
    assert timeline.end_s[path[-1]] == pytest.approx(timeline.step_s, rel=1e-9)
    assert sum(timeline.seconds[name] for name in path) == pytest.approx(timeline.step_s, rel=1e-9)


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("axes", LAYOUTS, ids=str)
def test_it_takes_exactly_the_step(
    axes: dict[str, int | str], seed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seed is not None:
        uneven(monkeypatch, seed)
    dag = dag_of(PAPER, **axes)
    holds(dag, simulate(dag))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_order_of_issue(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Task by task in turn: collectives wait in the lane, and ranks stand still for one ahead of issuing another."""
    uneven(monkeypatch, seed)
    dag = interleaved(dag_of(PAPER, 8, 1, pipeline=2, microbatches=2))
    holds(dag, simulate(dag))


@pytest.mark.parametrize("cores", [1, 2])
def test_ranks_that_share_cores(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    uneven(monkeypatch, 4)
    dag = dag_of(SMALL, 4, 1, *TINY, "attention.heads=4", "layers=2", microbatches=2)
    holds(dag, simulate_shared(dag, cores))


def test_a_part_of_a_dag(monkeypatch: pytest.MonkeyPatch) -> None:
    uneven(monkeypatch, 5)
    part = part_of(dag_of(PAPER_MOE, 4, 4, experts=8), (0, 5))
    holds(part, simulate(part))


def test_the_chain_of_a_slow_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 1 attends late: the path is that of rank 1 until it, and the collective for which rank 0 then waits."""
    tasks_take(monkeypatch, lambda task: 5.0 if task.id == "l0.attend.g1s0" else 1.0)
    dag = dag_of(SMALL, 2, 1, *TINY, "cores_per_host=null")
    path = names(dag, simulate(dag))
    assert path[1:5] == ["l0.distribute.norm.g1s0", "l0.distribute.qkv.g1s0", "l0.attend.g1s0", "l0.concat.groups.s0"]


def test_a_task_off_the_path_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the path leaves out has slack: rank 0 attends sooner than rank 1, and a little more changes no step."""
    takes = {"l0.attend.g1s0": 5.0}
    tasks_take(monkeypatch, lambda task: takes.get(task.id, 1.0))
    dag = dag_of(SMALL, 2, 1, *TINY, "cores_per_host=null")
    step_s = simulate(dag).step_s
    takes["l0.attend.g0s0"] = 4.5
    assert simulate(dag).step_s == step_s
    takes["l0.attend.g1s0"] = 5.5
    assert simulate(dag).step_s == step_s + 0.5


def test_its_kinds_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks_take(monkeypatch, lambda task: 3.0 if task.is_collective else 1.0)
    dag = dag_of(SMALL, 2, 1, *TINY, "cores_per_host=null")
    timeline = simulate(dag)
    kinds = kinds_on_path(critical_path(dag, timeline.seconds), timeline.seconds)
    assert [(k.level, k.kind, k.tasks, k.seconds) for k in kinds][:3] == [
        ("distribute", "broadcast", 1, 3.0),
        ("distribute", "norm", 1, 1.0),
        ("distribute", "linear", 1, 1.0),
    ]
    assert sum(k.seconds for k in kinds) == timeline.step_s == 22
    assert sum(k.share for k in kinds) == pytest.approx(1)
    assert {k.lane for k in kinds if k.kind == "broadcast"} == {"communication"}


def test_tasks_that_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks_take(monkeypatch, lambda task: 0.0)
    dag = dag_of(SMALL, 2, 1, *TINY, "cores_per_host=null")
    assert critical_path(dag, simulate(dag).seconds) == ()
    assert kinds_on_path((), {}) == ()


def test_a_deadlock_has_no_path() -> None:
    dag = dag_of(SMALL, 2, 1, *TINY, "cores_per_host=null")
    crossed = list(dag.order[1])
    i, j = crossed.index("l0.concat.groups.s0"), crossed.index("l0.project.gather")
    crossed[i], crossed[j] = crossed[j], crossed[i]
    with pytest.raises(ValueError, match="deadlock"):
        critical_path(replace(dag, order=(dag.order[0], tuple(crossed))), TaskSeconds(dag))


class TaskSeconds(dict[str, float]):
    """What each task of a dag takes by its costs."""

    def __init__(self, dag: Dag) -> None:
        costs = TaskCosts(dag)
        super().__init__({task.id: costs.seconds(task) for task in dag.tasks})


def test_without_a_simulation_the_costs_give_the_same_path() -> None:
    dag = dag_of(PAPER, 4, 4)
    path: tuple[Task, ...] = critical_path(dag, TaskSeconds(dag))
    assert path == critical_path(dag, simulate(dag).seconds)
