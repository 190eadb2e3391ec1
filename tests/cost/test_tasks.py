"""Costs of tasks: held against arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helixctl.cost import constants as c
from helixctl.cost.compute import _Device
from helixctl.cost.memory import peak_nbytes, weight_nbytes
from helixctl.cost.tasks import TaskCosts, crosses_hosts, seconds
from helixctl.dag import AllGather, AllToAll, Dag, Packed
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.simulate import forecast
from helixctl.spec.load import load_specs
from helixctl.spec.rates import rates_of
from tests.documents import PAPER, SMALL, dag_of

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


def test_few_tiles_are_smaller() -> None:
    """1024 x 2048 outputs are 64 large tiles, which would leave half of the 132 SMs idle, or 128 small ones."""
    task = DAG.task["l0.feed_forward.up.g0s0"]
    assert task.flops == 2 * 1024 * 8192 * 2048
    wave = 132 * 2 * 128 * 128 * 8192 / (0.9 * 989e12 * c.MATMUL_SHARE.value)
    assert time_of(task.id) == pytest.approx(wave + c.TASK_OVERHEAD.value, rel=1e-9)


def test_very_few_tiles_split_the_depth() -> None:
    """128 x 256 outputs are two small tiles: eight parts of the depth keep 16 SMs busy, for their sums in memory."""
    cost = _Device(CLUSTER, "float16").matmul(128, 256, 65536, nbytes=0)
    wave = 132 * 2 * 128 * 128 * 65536 / (0.9 * 989e12 * c.MATMUL_SHARE.value)
    assert cost.seconds == pytest.approx(wave / 8 + 2 * 8 * 128 * 256 * 4 / (3.35e12 * 0.9), rel=1e-9)


def test_waves_are_of_the_sms_that_a_device_has_and_reach_its_share() -> None:
    """8 x 8 tiles of 128 x 256: one wave of 132, two of 60, at half of the peak."""
    for sms, waves in ((132, 1), (64, 1), (60, 2)):
        device = CLUSTER.device.model_copy(update={"sms": sms, "matmul_share": 0.5})
        cost = _Device(CLUSTER.model_copy(update={"device": device}), "float16").matmul(1024, 2048, 65536, nbytes=0)
        large = waves * sms * 2 * 128 * 256 * 65536 / (989e12 * 0.5)
        assert cost.seconds <= large * (1 + 1e-9)
        if sms == 64:
            assert cost.seconds == pytest.approx(large)
        assert {str(o) for o in cost.origins} >= {f"sms {sms}: cluster spec h100x16, device NVIDIA H100 80GB HBM3"}


def test_elementwise_work_runs_at_memory_bandwidth() -> None:
    task = DAG.task["l0.project.add.g0s0"]
    assert task.nbytes == 3 * 1024 * 8192 * 2
    assert time_of(task.id) == pytest.approx(task.nbytes / (3.35e12 * 0.9) + c.TASK_OVERHEAD.value, rel=1e-3)


GATED = ("feed_forward.gated=true", "feed_forward.activation=silu")


def test_an_activation_and_its_product_are_one_kernel_of_three_passes() -> None:
    dag = dag_of(PAPER, 4, 4, *GATED)
    activation, product = (dag.task[f"l0.feed_forward.{n}.g0s0"] for n in ("activation", "multiply"))
    assert product.nbytes == 3 * 1024 * 2048 * 2
    assert seconds(dag, activation) == 0
    both = product.nbytes / (3.35e12 * 0.9) + c.TASK_OVERHEAD.value
    assert seconds(dag, product) == pytest.approx(both, rel=1e-9)
    # An activation without a product behind it is a kernel of its own, of two passes.
    alone = DAG.task["l0.feed_forward.activation.g0s0"]
    by_hand = 2 * 1024 * 2048 * 2 / (3.35e12 * 0.9) + c.TASK_OVERHEAD.value
    assert time_of(alone.id) == pytest.approx(by_hand, rel=1e-9)


def on_one(cluster: str, dtype: str) -> Dag:
    document, its = load_specs(PAPER[0], cluster, [*GATED, "layers=1", f"dtype={dtype}"])
    return lower(Plan.of(document.model, its, document.workload, Layout(groups=1, slices=1)))


def test_it_has_the_measured_rate_of_activations() -> None:
    dag = on_one("h100:1", "float16")
    rates = rates_of(dag.plan.cluster.only)
    assert rates is not None
    product = dag.task["l0.feed_forward.multiply.g0s0"]
    by_hand = product.nbytes / rates.elementwise["activation"] + rates.task_overhead
    assert seconds(dag, product) == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize(("cluster", "dtype"), [(SMALL[1], "float32"), ("h100:1", "float64")])
def test_where_torch_computes_them_they_are_two_calls(cluster: str, dtype: str) -> None:
    """On CPU, and in float64, which Triton's kernels do not take; the time is all the product's."""
    dag = on_one(cluster, dtype)
    activation, product = (dag.task[f"l0.feed_forward.{n}.g0s0"] for n in ("activation", "multiply"))
    costs = TaskCosts(dag)
    apart = sum(costs.cost_with(task, "own").seconds for task in (activation, product))
    assert costs.seconds(activation) == 0
    assert costs.seconds(product) == pytest.approx(apart, rel=1e-9)


def test_a_gather_inside_a_host_follows_the_fitted_table() -> None:
    task = DAG.task["l0.concat.slices.g0"]
    size = 1024 * 8192 * 2 // 4
    assert task.nbytes == size * 3 // 4
    assert not crosses_hosts(task, CLUSTER)
    assert time_of(task.id) == pytest.approx(21.3e-6 + size / 347e9, rel=1e-6)


def test_a_packed_exchange_costs_what_one_collective_of_all_its_bytes_costs() -> None:
    """Of gathers a gather, else an all-to-all: one start-up."""
    gather = DAG.task["l0.concat.slices.g0"]
    both = replace(gather, op=Packed((AllGather("head_dim"), AllGather("head"))), nbytes=2 * gather.nbytes)
    assert seconds(DAG, both) == pytest.approx(21.3e-6 + 2 * gather.nbytes * 4 / 3 / 347e9, rel=1e-6)
    assert seconds(DAG, both) == seconds(DAG, replace(both, op=AllGather("head_dim")))
    exchange = AllToAll("head_dim", "key_lane")
    mixed = replace(both, op=Packed((exchange, AllGather("key_lane"))))
    assert seconds(DAG, mixed) == seconds(DAG, replace(mixed, op=exchange)) != seconds(DAG, both)


def test_a_gather_between_hosts_is_bound_by_its_nics() -> None:
    task = DAG.task["l0.concat.groups.s0"]
    size = 1024 * 8192 * 2
    assert task.ranks == (0, 4, 8, 12)
    assert crosses_hosts(task, CLUSTER)
    assert time_of(task.id) == pytest.approx(50e-6 + size * 3 / 4 / (2 * 46e9), rel=1e-6)


@pytest.mark.parametrize(("nics", "share"), [("null", 1), (16, 1), (8, 1), (4, 1 / 2), (1, 1 / 8)])
def test_groups_that_cross_share_the_nics(nics: int | str, share: float) -> None:
    """Four groups of two ranks a host cross at once, so each has a quarter of what the host can send."""
    dag = dag_of(PAPER, 4, 4, f"nics_per_host={nics}")
    task = dag.task["l0.concat.groups.s0"]
    assert seconds(dag, task) == pytest.approx(50e-6 + task.nbytes / (2 * share * 46e9), rel=1e-6)
    inside = dag.task["l0.concat.slices.g0"]
    assert seconds(dag, inside) == time_of(inside.id)


def test_gloo_goes_by_the_links_of_the_spec() -> None:
    dag = dag_of(SMALL, 4, 4)
    latency, bandwidth = 500e-6, 200e6
    for name, steps in (("l0.concat.slices.g0", 3), ("l0.project.gather", 15), ("l0.feed_forward.reduce", 30)):
        task = dag.task[name]
        assert seconds(dag, task) == pytest.approx(steps * latency + task.nbytes / bandwidth)
    task = dag.task["l0.distribute.broadcast"]
    assert seconds(dag, task) == pytest.approx(4 * (latency + task.nbytes / bandwidth))


def test_gloo_crosses_hosts_over_one_link_at_a_time() -> None:
    sets = ("hosts=2", "devices_per_host=8", "between_hosts.bandwidth=100 MB/s", "between_hosts.latency=1 ms")
    for nics, pair, whole in (("null", 100e6, 100e6), (1, 25e6, 100e6)):
        dag = dag_of(SMALL, 4, 4, *sets, f"nics_per_host={nics}")
        for name, ranks, bandwidth in (("l0.concat.groups.s0", 4, pair), ("l0.project.gather", 16, whole)):
            task = dag.task[name]
            assert seconds(dag, task) == pytest.approx((ranks - 1) * 1e-3 + task.nbytes / bandwidth)


def test_groups_first_crosses_hosts_with_a_quarter_of_the_bytes() -> None:
    moved = {}
    for order in ("slices_first", "groups_first"):
        found = forecast(dag_of(PAPER, 4, 4, gather_order=order))
        (concat,) = (k for k in found.kinds if k.level == "concat")
        moved[order] = (concat.received_nbytes, concat.between_hosts_nbytes)
    layers, whole = 4, 1024 * 8192 * 2
    assert moved["slices_first"] == (layers * whole * 15 // 16, layers * whole * 3 // 4)
    assert moved["groups_first"] == (layers * whole * 15 // 16, layers * whole * 3 // 16)


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
