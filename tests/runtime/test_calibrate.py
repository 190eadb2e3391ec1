"""Calibration: measurements become a valid cluster with full tables; the arithmetic is tested on made-up times."""

from __future__ import annotations

import os
from datetime import date
from math import prod

import pytest
import torch

from helixctl.errors import HelixError
from helixctl.spec import ClusterSpec
from helixctl.spec.load import load_cluster
from helixctl_runtime.calibrate.cluster_spec import build_cluster_spec
from helixctl_runtime.calibrate.collective_time import (
    TimedLoop,
    collective_load,
    collective_seconds,
    received_nbytes,
    sent_numel,
)
from helixctl_runtime.calibrate.points import COLLECTIVES, CPU, CUDA, QUICK, CollectivePoint, KernelPoint, Sizes
from helixctl_runtime.calibrate.run import Request, calibrate
from helixctl_runtime.calibrate.worker import Measurements
from tests.documents import LINKS, SMALL

DAY = date(2026, 11, 23)


def made_up(sizes: Sizes, ranks: int, cores: int | None = 2) -> Measurements:
    """A task starts in 1 us; a kernel takes 1 us and 1 ns per element, a message 0.1 ms and 1 ns per byte."""
    kernels = {p: 1e-6 if p.kernel == "task" else 1e-6 + prod(p.shape) * 1e-9 for p in sizes.kernels(("float32",))}
    collectives = {p: 1e-4 + received_nbytes(p) * 1e-9 for p in sizes.collectives(ranks)}
    return Measurements(1, ranks, cores, "a processor", "2.13.0", 4 * 2**30, kernels, collectives, 0.25)


def test_two_ranks_in_two_dtypes() -> None:
    request = Request.of("cpu", ranks=2, dtypes=("bfloat16", "float32"), base=None, quick=True)
    cluster = calibrate(request, None, timeout=60)
    assert cluster is not None
    calibration = cluster.calibration
    assert calibration is not None
    assert (cluster.hosts, cluster.devices_per_host, cluster.device.kind) == (1, 2, "cpu")
    assert cluster.cores_per_host == len(os.sched_getaffinity(0))
    assert set(cluster.device.peak) == set(calibration.matmul) == set(calibration.attention) == {"float32", "bfloat16"}
    assert set(calibration.elementwise) == {"norm", "activation", "add"}
    assert {(t.kind, t.ranks) for t in calibration.collectives} == {(kind, 2) for kind in COLLECTIVES}
    rates = [rate for table in calibration.matmul.values() for rate in table.rates]
    assert min(*rates, *calibration.elementwise.values(), cluster.device.memory_bandwidth) > 0
    assert all(0 < s < 60 for table in calibration.collectives for s in table.seconds)
    assert calibration.source.startswith("measured 20")
    assert "2 ranks sharing" in calibration.source


def test_one_rank_has_no_collectives() -> None:
    cluster = build_cluster_spec(made_up(QUICK["cpu"], 1), None, DAY)
    assert cluster.calibration is not None
    assert cluster.calibration.collectives == ()
    assert cluster.within_host.bandwidth == cluster.device.memory_bandwidth


def test_rates_are_per_second_beyond_the_start_of_a_task() -> None:
    calibration = build_cluster_spec(made_up(QUICK["cpu"], 4), None, DAY).calibration
    assert calibration is not None
    assert calibration.source == "measured 2026-11-23 on a processor, 4 ranks sharing 2 cores, torch 2.13.0"
    # 2 flops per nanosecond; 4 bytes in and 4 bytes out; an addition reads twice as many.
    assert set(calibration.matmul["float32"].rates) == {2e9}
    assert calibration.elementwise["activation"] == pytest.approx(8e9)
    assert calibration.elementwise["add"] == pytest.approx(12e9)
    assert calibration.task_overhead == pytest.approx(1e-6)
    assert calibration.attention["float32"].seq_len == QUICK["cpu"].seq_len
    assert calibration.attention["float32"].rates == pytest.approx([2e9 * (s + 1) for s in (8, 128) for _ in (8, 32)])


def test_a_kernel_faster_than_an_empty_task_has_a_rate() -> None:
    found = made_up(QUICK["cpu"], 2)
    fast = {p: 5e-7 if p.kernel == "add" else s for p, s in found.kernels.items()}
    noisy = Measurements(1, 2, 2, "a", "2", 1, fast, dict(found.collectives), 0.0)
    assert build_cluster_spec(noisy, None, DAY).calibration is not None


def test_the_link_is_that_of_a_ring() -> None:
    link = build_cluster_spec(made_up(CPU, 4), None, DAY).within_host
    assert link.bandwidth == pytest.approx(1e9, rel=1e-3)
    assert link.latency == pytest.approx(1e-4 / 3, rel=0.02)


def test_the_link_of_a_noisy_machine_is_positive() -> None:
    found = made_up(QUICK["cpu"], 2)
    for p in found.collectives:
        found.collectives[p] = 1e-3 / p.nbytes
    assert build_cluster_spec(found, None, DAY).within_host.bandwidth > 0


def test_the_base_keeps_what_was_not_measured() -> None:
    base = load_cluster(SMALL[1])
    cluster = build_cluster_spec(made_up(QUICK["cpu"], 4), base, DAY)
    assert cluster.device.peak["float64"] == base.device.peak["float64"]
    assert cluster.device.peak["float32"] == 2e9
    assert cluster.cores_per_host == 2
    same = ("name", "hosts", "devices_per_host", "within_host", "between_hosts", "nics_per_host")
    assert [getattr(cluster, name) for name in same] == [getattr(base, name) for name in same]
    assert (cluster.device.name, cluster.device.memory) == (base.device.name, base.device.memory)


def test_a_base_keeps_its_links_inside_hosts() -> None:
    """Of a list with one kind of hosts, too; measured rates that come with helixctl give way."""
    base = load_cluster(str(LINKS / "l40sx8.cluster.yaml"))
    cluster = build_cluster_spec(made_up(CUDA, 8, cores=None), base, DAY)
    assert (cluster.hosts, cluster.devices_per_host, cluster.name) == (1, 8, "l40sx8")
    assert cluster.links == base.only.links
    assert cluster.only.device.memory == base.only.device.memory
    assert cluster.measured is None
    assert cluster.calibration is not None


def test_cuda_devices_share_no_cores() -> None:
    cluster = build_cluster_spec(made_up(CUDA, 8, cores=None), None, DAY)
    assert (cluster.device.kind, cluster.cores_per_host) == ("cuda", None)
    assert cluster.calibration is not None
    assert "8 ranks, torch" in cluster.calibration.source


def test_a_written_cluster_reads_back() -> None:
    cluster = build_cluster_spec(made_up(CPU, 4), None, DAY)
    assert ClusterSpec.model_validate(cluster.model_dump(mode="json")) == cluster


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize("kind", COLLECTIVES)
def test_a_message_is_about_as_large_as_asked_for(kind: str, ranks: int) -> None:
    point = CollectivePoint(kind, ranks, 2**17)  # type: ignore[arg-type]
    assert received_nbytes(point) == pytest.approx(2**17, rel=1e-3)
    assert sent_numel(CollectivePoint(kind, ranks, 4)) >= 1  # type: ignore[arg-type]


def test_groups_are_of_every_size_that_divides() -> None:
    points = list(CPU.collectives(6))
    assert {p.ranks for p in points} == {2, 3, 6}
    assert {p.ranks for p in points if p.kind == "send_receive"} == {2}
    assert list(CPU.collectives(1)) == []


def test_a_collective_takes_what_computation_does_not() -> None:
    """Two collectives in 30 ms, in which each of two ranks computes 5 ms on half a core: 10 ms each."""
    ranks = [[TimedLoop(1.0, 1.029, 0.005, 0.009)], [TimedLoop(1.001, 1.03, 0.005, 0.011)]]
    assert collective_seconds([ranks], 2, stretch=2.0) == pytest.approx(0.010)
    # Another group is slower, a third slower still: the median.
    slower = [[TimedLoop(1.0, 1.0 + s, 0.005, 0.009)] for s in (0.05, 0.07)]
    assert collective_seconds([ranks, [slower[0]], [slower[1]]], 2, stretch=2.0) == pytest.approx(0.020)
    # Cores in the 19 ms of each rank: 4 and 6 of them.
    assert collective_load([loop for loops in ranks for loop in loops], stretch=2.0) == pytest.approx(10 / 38)


def test_noise_makes_no_time_of_zero() -> None:
    assert collective_seconds([[[TimedLoop(0.0, 0.001, 0.002, 0.001)]]], 1, stretch=1.0) > 0
    assert collective_load([TimedLoop(0.0, 0.001, 0.002, 0.001)], stretch=1.0) == 0


def test_what_is_measured_takes_the_place_of_the_rates_that_come_with_helixctl() -> None:
    base = load_cluster("h100:8")
    cluster = build_cluster_spec(made_up(CUDA, 8, cores=None), base, DAY)
    assert base.measured is not None
    assert cluster.measured is None
    assert cluster.calibration is not None
    assert (cluster.device.sms, cluster.within_host) == (base.device.sms, base.within_host)


def test_what_is_left_open_follows_the_base_and_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    base = load_cluster(SMALL[1])
    assert Request.of("cpu", ranks=None, dtypes=(), base=None, quick=False).ranks == 4
    assert Request.of("cpu", ranks=None, dtypes=(), base=base, quick=False).ranks == 16
    for name, value in {"RANK": "0", "WORLD_SIZE": "6", "MASTER_ADDR": "x", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    request = Request.of("cpu", ranks=None, dtypes=("float32", "float32"), base=base, quick=False)
    assert (request.ranks, request.dtypes) == (6, ("float32",))
    with pytest.raises(HelixError, match="HX509 4 ranks were asked for, torchrun started 6"):
        Request.of("cpu", ranks=4, dtypes=(), base=None, quick=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda_device() -> None:
    with pytest.raises(HelixError, match="HX502 this machine has no CUDA device"):
        Request.of("cuda", ranks=None, dtypes=(), base=None, quick=False)


def test_every_measurement_has_a_name() -> None:
    names = Request("cpu", 4, ("float32",), quick=True).names
    assert len(set(names)) == len(names)
    assert str(KernelPoint("matmul", "float32", (8, 128, 512))) in names
    assert names[-1] == "reduce_scatter of 4 ranks, 1048576 bytes"
