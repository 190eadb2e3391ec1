"""Steps that can be followed by hand: computation takes 1 s a task, a collective what the test says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helixctl.dag import Dag
from helixctl.lower import lower
from helixctl.simulate import forecast, simulate
from helixctl.simulate.forecast import generated
from helixctl.simulate.shared import simulate_shared
from tests.cost.calibrated import calibrated
from tests.documents import SMALL, TINY, dag_of, plan_of
from tests.simulate.dags import interleaved, tasks_take

COMPUTE, COLLECTIVES = 10, 4  # of one rank in one layer: see docs/pipeline.md


def two_ranks(*sets: str, **axes: int | str) -> Dag:
    """One layer, groups 2 x 1, every rank with a device to itself."""
    return dag_of(SMALL, 2, 1, *TINY, "cores_per_host=null", *sets, **axes)


def test_one_microbatch_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks_take(monkeypatch, lambda task: 3.0 if task.is_collective else 1.0)
    found = forecast(two_ranks())
    assert found.step_s == COMPUTE + 3 * COLLECTIVES
    assert (found.exposed_s, found.hidden_s) == (3 * COLLECTIVES, 0)
    assert found.busy_share == pytest.approx(COMPUTE / found.step_s)
    assert found.latency_s == found.step_s
    assert found.tokens_per_s == pytest.approx(6 / 22)
    assert found.sync_overhead_per_token_ms == pytest.approx(12e3 / 3)  # of 3 tokens a sequence
    assert sum(found.levels.values()) == found.step_s
    assert found.levels["concat", "communication"] == 3


def test_microbatches_one_after_the_other_hide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks_take(monkeypatch, lambda task: 3.0 if task.is_collective else 1.0)
    found = forecast(two_ranks(microbatches=2))
    assert (found.step_s, found.hidden_s) == (44, 0)
    assert found.latency_s == (22 + 44) / 2  # of one sequence each


def test_interleaved_microbatches_hide_communication(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two collectives in a row the first is waited for; the second moves while the first microbatch computes."""
    tasks_take(monkeypatch, lambda task: 1.0)
    dag = interleaved(two_ranks(microbatches=2))
    found = forecast(dag)
    assert found.step_s == 2 * COMPUTE + COLLECTIVES
    assert (found.exposed_s, found.hidden_s) == (4, 4)
    assert found.latency_s == 23.5
    assert found.busy_share == pytest.approx(20 / 24)
    concat = next(k for k in found.kinds if k.level == "concat")
    # Both are issued at once; the second waits in the lane for the first.
    assert (concat.tasks, concat.busy_s, concat.transfer_s, concat.exposed_s) == (2, 1 + 2, 2, 1)
    attend = next(k for k in found.kinds if k.level == "attend")
    assert (attend.tasks, attend.busy_s, attend.exposed_s) == (4, 2, 0)


def test_the_lane_is_a_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks_take(monkeypatch, lambda task: 3.0 if task.is_collective else 1.0)
    timeline = simulate(interleaved(two_ranks(microbatches=2)))
    assert timeline.issued_s[0]["l0.concat.groups.s0.b1"] == 11
    assert (timeline.begin_s["l0.concat.groups.s0.b1"], timeline.end_s["l0.concat.groups.s0.b1"]) == (14, 17)
    assert timeline.step_s == 40


def test_a_collective_waits_for_its_last_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = "l0.attend.g1s0"
    tasks_take(monkeypatch, lambda task: 5.0 if task.id == slow else 1.0)
    timeline = simulate(two_ranks())
    gather = "l0.concat.groups.s0"
    assert (timeline.issued_s[0][gather], timeline.issued_s[1][gather]) == (4, 8)
    assert (timeline.begin_s[gather], timeline.end_s[gather]) == (8, 9)
    assert (timeline.waited_s[0][gather], timeline.waited_s[1][gather]) == (5, 1)
    kind = next(k for k in forecast(two_ranks()).kinds if k.level == "concat")
    assert (kind.transfer_s, kind.busy_s, kind.exposed_s) == (1, 3, 3)


def test_who_only_sends_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stages of one layer each: the first stage computes its second microbatch while the first is on its way."""
    tasks_take(monkeypatch, lambda task: 5.0 if task.is_collective else 1.0)
    dag = dag_of(SMALL, 1, 1, *TINY, "layers=2", "cores_per_host=null", pipeline=2, microbatches=2)
    timeline = simulate(dag)
    first, second = "l1.transfer.send.0.b0", "l1.transfer.send.0.b1"
    assert (timeline.begin_s[first], timeline.end_s[first]) == (10, 15)
    assert timeline.begin_s["l0.distribute.norm.g0s0.b1"] == 10
    # The second is sent at 20, but the second stage comes to it only when it has computed the first.
    assert (timeline.issued_s[0][second], timeline.issued_s[1][second]) == (20, 25)
    assert (timeline.begin_s[second], timeline.end_s[second]) == (25, 30)
    assert timeline.rank_end_s == [30, 40]  # at its end the sender waits for what is on its way
    assert timeline.waited_s[0] == {second: 10}
    found = forecast(dag)
    assert found.latency_s == (25 + 40) / 2
    assert found.received_nbytes == 2 * 3 * 8 * 4  # both microbatches of 3 tokens, 8 wide, float32


def test_a_deadlock_is_no_step() -> None:
    dag = two_ranks()
    crossed = list(dag.order[1])
    i, j = crossed.index("l0.concat.groups.s0"), crossed.index("l0.project.gather")
    crossed[i], crossed[j] = crossed[j], crossed[i]
    stuck = replace(dag, order=(dag.order[0], tuple(crossed)))
    with pytest.raises(ValueError, match="deadlock"):
        simulate(stuck)
    with pytest.raises(ValueError, match="deadlock"):
        simulate_shared(stuck, 1)


def test_four_ranks_on_two_cores_take_twice_as_long_to_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks_take(monkeypatch, lambda task: 3.0 if task.is_collective else 1.0)
    sets = (*TINY, "attention.heads=4")
    alone, shared = (dag_of(SMALL, 4, 1, *sets, f"cores_per_host={cores}") for cores in (4, 2))
    assert forecast(alone).step_s == COMPUTE + 3 * COLLECTIVES
    assert forecast(shared).step_s == 2 * COMPUTE + 3 * COLLECTIVES
    assert forecast(shared).exposed_s == forecast(alone).exposed_s


def test_who_is_done_leaves_the_cores_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four tasks on two cores, one of 5 s and three of 1 s: these end after 2 s, and the long one has 4 s left."""
    tasks_take(monkeypatch, lambda task: 5.0 if task.id == "l0.distribute.norm.g3s0" else 1.0)
    timeline = simulate(dag_of(SMALL, 4, 1, *TINY, "attention.heads=4"))
    # The others go on with their next tasks, 3 ranks on 2 cores with the long one.
    assert timeline.end_s["l0.distribute.norm.g0s0"] == 1 + 2
    assert timeline.end_s["l0.distribute.qkv.g0s0"] == 3 + 2
    assert timeline.end_s["l0.attend.g0s0"] == 5 + 2
    # After three times 2 s at half pace they wait for it: 3 s of it are done, the last 2 have a core to themselves.
    assert timeline.end_s["l0.distribute.norm.g3s0"] == 1 + 6 + 2


@pytest.mark.parametrize(("load", "takes"), [(0.0, 3), (0.5, 3), (1.0, 6)])
def test_a_collective_asks_for_its_load(load: float, takes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks_take(monkeypatch, lambda task: 3.0 if task.is_collective else 1.0)
    dag = calibrated(dag_of(SMALL, 4, 1, *TINY, "attention.heads=4"), collective_load=load)
    assert forecast(dag).step_s == pytest.approx(2 * COMPUTE + takes * COLLECTIVES)


def test_a_generation_is_busy_as_its_steps_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two replicas one takes twice as long: the other waits for nobody, and is busy half of the time."""
    tasks_take(monkeypatch, lambda task: float(task.ranks[0] + 1))
    sets = (*TINY, "cores_per_host=null", "vocabulary.size=13", "workload.output_len=5")
    exact = ("attention.softmax_slices=1", "attention.causal=true")
    plan = plan_of(SMALL, 1, 1, *sets, *exact, data=2)
    prefill, decode = (forecast(lower(plan, step=step)) for step in plan.steps)
    found = generated(prefill, decode, 1, plan.workload.batch, 5)
    assert found.step_s == prefill.step_s + 4 * decode.step_s
    assert (found.busy_share, found.exposed_s) == (pytest.approx(0.75), 0)
