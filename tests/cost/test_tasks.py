"""Costs of tasks: held against arithmetic by hand."""

from __future__ import annotations

import pytest

from helixctl.cost import constants as c
from helixctl.cost.memory import peak_nbytes, weight_nbytes
from helixctl.cost.tasks import crosses_hosts, seconds
from tests.documents import PAPER, dag_of

DAG = dag_of(PAPER, 4, 4)
CLUSTER = DAG.plan.cluster


def time_of(task_id: str) -> float:
    return seconds(DAG, DAG.task[task_id])


def test_the_product_that_was_measured_takes_what_it_took() -> None:
    sets = ("hidden_size=8192", "feed_forward.intermediate_size=32768", "workload.batch=8192")
    dag = dag_of(PAPER, 4, 1, *sets, data=4)
    task = dag.task["l0.feed_forward.up.g0s0r0"]
    assert task.flops == 2 * 2048 * 8192 * 8192
    # 16 x 32 tiles are 3.88 waves: the fourth is as long as the others.
    by_hand = 4 * 132 / 512 / (2048 / 2112) ** -1
    assert seconds(dag, task) == pytest.approx(task.flops / 798e12 * by_hand + c.TASK_OVERHEAD.value, rel=1e-9)


def test_few_tiles_split_the_depth() -> None:
    """1024 x 2048 outputs are 64 tiles: alone they would leave half of the 132 SMs idle."""
    task = DAG.task["l0.feed_forward.up.g0s0"]
    assert task.flops == 2 * 1024 * 8192 * 2048
    wave = 132 * 2 * 128 * 256 * 8192 / (989e12 * c.MATMUL_SHARE.value)
    partial = 2 * 2 * 1024 * 2048 * 4 / (3.35e12 * 0.9)
    assert time_of(task.id) == pytest.approx(wave / 2 + partial + c.TASK_OVERHEAD.value, rel=1e-9)


def test_elementwise_work_runs_at_memory_bandwidth() -> None:
    task = DAG.task["l0.project.add.g0s0"]
    assert task.nbytes == 3 * 1024 * 8192 * 2
    assert time_of(task.id) == pytest.approx(task.nbytes / (3.35e12 * 0.9) + c.TASK_OVERHEAD.value, rel=1e-3)


def test_a_gather_inside_a_host_follows_the_fitted_table() -> None:
    task = DAG.task["l0.concat.slices.g0"]
    size = 1024 * 8192 * 2 // 4
    assert task.nbytes == size * 3 // 4
    assert not crosses_hosts(task, CLUSTER)
    assert time_of(task.id) == pytest.approx(21.3e-6 + size / 347e9, rel=1e-6)


def test_a_gather_between_hosts_is_bound_by_its_nics() -> None:
    task = DAG.task["l0.concat.groups.s0"]
    size = 1024 * 8192 * 2
    assert task.ranks == (0, 4, 8, 12)
    assert crosses_hosts(task, CLUSTER)
    assert time_of(task.id) == pytest.approx(50e-6 + size * 3 / 4 / (2 * 46e9), rel=1e-6)


def test_every_rank_holds_a_sixteenth_of_the_matrices() -> None:
    matrices = 4 * (4 * 8192 * 8192 + 2 * 8192 * 32768) * 2
    norms = 4 * 2 * 8192 * 2
    assert weight_nbytes(DAG) == [matrices // 16 + norms] * 16
    assert all(peak > matrices // 16 for peak in peak_nbytes(DAG))


def test_the_wide_head_is_priced_without_a_fast_kernel() -> None:
    sets = ("workload.seq_len=2048", "workload.batch=1")
    sliced, whole = dag_of(PAPER, 16, 1, *sets), dag_of(PAPER, 16, 1, *sets, "attention.softmax_slices=1")
    times = [seconds(d, d.task["l0.attend.g0s0"]) for d in (sliced, whole)]
    assert times[1] > 2.5 * times[0]
