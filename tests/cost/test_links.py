"""Prices of collectives where links inside a host differ: held against arithmetic by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from helixctl.cost import constants as c
from helixctl.cost.collectives import collective_cost
from helixctl.dag import AllGather, AllReduce, AllToAll, SendReceive
from helixctl.simulate import forecast, simulate
from helixctl.spec import ClusterSpec
from helixctl.spec.load import load_cluster
from tests.documents import LINKS, PAPER, SMALL, dag_of

# A megabyte over a link of 1 MB/s is a second, so that seconds are megabytes over the bandwidths below.
NBYTES = 10**6
PAIR = {"name": "pair", "devices": 2, "bandwidth": "400 MB/s", "latency": "100 us"}
SOCKET = {"name": "socket", "devices": 4, "bandwidth": "300 MB/s", "latency": "200 us"}
WITHIN = {"bandwidth": "100 MB/s", "latency": "400 us"}
BETWEEN = {"bandwidth": "80 MB/s", "latency": "800 us"}
SHARED = {"uplinks": 1}
GATHER = next(task for task in dag_of(SMALL, 2, 2).tasks if isinstance(task.op, AllGather))


def cluster(*links: dict[str, Any], kind: str = "cpu", hosts: int = 2, **fields: Any) -> ClusterSpec:
    """Two hosts of eight devices."""
    data = load_cluster(SMALL[1]).model_dump(mode="json", exclude_none=True)
    data |= {"hosts": hosts, "devices_per_host": 8, "within_host": WITHIN, "between_hosts": BETWEEN}
    data["device"] |= {"kind": kind}
    return ClusterSpec.model_validate({**data, "links": list(links), **fields})


def seconds(its: ClusterSpec, ranks: Sequence[int], op: Any = GATHER.op) -> float:
    return collective_cost(replace(GATHER, op=op, ranks=tuple(ranks), nbytes=NBYTES), its).seconds


@pytest.mark.parametrize(
    ("ranks", "latency_us", "megabytes_per_s"),
    [
        ((0, 1), 100, 400),
        ((6, 7), 100, 400),
        ((0, 1, 2, 3), 200, 300),
        # One rank of each pair: half of the uplink.
        ((0, 2), 200, 300 / 2),
        ((5, 7), 200, 300 / 2),
        # One rank of each socket: a quarter of the link between sockets; the half of a pair's uplink is more.
        ((0, 4), 400, 100 / 4),
        ((1, 2, 5, 6), 400, 2 * 100 / 4),
        ((0, 1, 4, 5), 400, 2 * 100 / 4),
        (range(8), 400, 100),
        # Between hosts a NIC each.
        ((0, 8), 800, 80),
        ((0, 2, 8, 10), 800, 80),
        (range(16), 800, 80),
    ],
)
def test_an_all_gather_goes_at_the_narrowest_link_and_shares_it(
    ranks: Sequence[int], latency_us: float, megabytes_per_s: float
) -> None:
    """On CPU ranks links are taken as they are: (ranks - 1) latencies of the widest, and the bytes."""
    its = cluster(PAIR | SHARED, SOCKET | SHARED)
    by_hand = (len(ranks) - 1) * latency_us * 1e-6 + NBYTES / (megabytes_per_s * 1e6)
    assert seconds(its, ranks) == pytest.approx(by_hand, rel=1e-12)


def test_devices_with_uplinks_of_their_own_share_nothing() -> None:
    its = cluster(PAIR, SOCKET)
    assert seconds(its, (0, 2)) == pytest.approx(200e-6 + 1 / 300, rel=1e-12)
    assert seconds(its, (0, 4)) == pytest.approx(400e-6 + 1 / 100, rel=1e-12)
    two = cluster(PAIR, SOCKET | {"uplinks": 2})
    assert seconds(two, (0, 4)) == pytest.approx(400e-6 + 1 / 50, rel=1e-12)
    many = cluster(PAIR, SOCKET | {"uplinks": 9})
    assert seconds(many, (0, 4)) == seconds(its, (0, 4))


def test_what_leaves_a_domain_goes_over_its_uplinks_however_far_it_goes() -> None:
    """Two ranks of two sockets: half of a pair's one uplink of 30 MB/s is less than a quarter of 100 MB/s."""
    its = cluster(PAIR | SHARED, SOCKET | {"bandwidth": "30 MB/s"} | SHARED)
    assert seconds(its, (0, 4)) == pytest.approx(400e-6 + 1 / 15, rel=1e-12)


def test_an_all_to_all_receives_from_outside_over_a_share() -> None:
    """Of three parts one comes from the own pair, so that two thirds go over half of the uplink."""
    its = cluster(PAIR | SHARED, SOCKET | SHARED)
    op = AllToAll("seq", "head")
    by_hand = 3 * 200e-6 + (2 / 3) / (300 / 2)
    assert seconds(its, range(4), op) == pytest.approx(by_hand, rel=1e-12)


def test_on_gpus_a_ring_for_every_rank_of_a_domain() -> None:
    """NVLink bridges in pairs, and an x16 for each card between them: two rings cross, each with a link of its own."""
    bridged = load_cluster(str(LINKS / "a100x4.cluster.yaml"))
    reduce = AllReduce()
    fit = c.WITHIN_HOST["all_reduce"][4]
    pair = fit.latencies * 5e-6 + NBYTES / (300e9 * fit.share)
    assert seconds(bridged, (0, 1), reduce) == pytest.approx(pair, rel=1e-12)
    across = fit.latencies * 5e-6 + NBYTES / (2 * 32e9 * fit.share)
    assert seconds(bridged, range(4), reduce) == pytest.approx(across, rel=1e-12)
    one = fit.latencies * 5e-6 + NBYTES / (32e9 * fit.share)
    assert seconds(bridged, (0, 2), reduce) == seconds(bridged, (1, 3), reduce) == pytest.approx(one, rel=1e-12)


def test_a_transfer_between_stages_has_its_share_as_well() -> None:
    its = cluster(PAIR | SHARED, SOCKET | SHARED, kind="cuda")
    fit = c.WITHIN_HOST["send_receive"][2]
    found = [seconds(its, ranks, SendReceive()) for ranks in ((0, 1), (0, 2), (0, 4))]
    shares = [(100e-6, 400), (200e-6, 150), (400e-6, 25)]
    assert found == [pytest.approx(fit.latencies * s + 1 / (mb * fit.share), rel=1e-12) for s, mb in shares]


def test_sources_name_the_links_that_are_crossed() -> None:
    its = cluster(PAIR | SHARED, SOCKET | SHARED)
    task = replace(GATHER, ranks=(0, 2), nbytes=NBYTES)
    names = [str(origin).partition(":")[0] for origin in collective_cost(task, its).origins]
    assert names[:3] == ["links.socket.bandwidth 300 MB/s", "links.socket.latency 200 us", "links.pair.uplinks 1"]
    assert not any(name.startswith("within_host") for name in names)


@pytest.mark.parametrize(
    ("ranks", "measured"),
    [
        ((0, 1), {"all_gather": 19.6, "all_reduce": 20.1, "all_to_all": 22.3}),
        (range(4), {"all_gather": 4.74, "all_reduce": 5.16, "all_to_all": 4.54}),
        (range(8), {"all_gather": 1.17, "all_reduce": 1.45, "all_to_all": 1.97}),
    ],
)
def test_eight_l40s_have_what_was_measured(ranks: Sequence[int], measured: dict[str, float]) -> None:
    """GB/s received in collectives of 268 to 940 MB (rates of the l40s, helixctl/spec/clusters): within 1.35 x."""
    its = load_cluster(str(LINKS / "l40sx8.cluster.yaml"))
    ops = {"all_gather": AllGather("head"), "all_reduce": AllReduce(), "all_to_all": AllToAll("head", "batch")}
    for kind, op in ops.items():
        nbytes = 400_000_000
        found = collective_cost(replace(GATHER, op=op, ranks=tuple(ranks), nbytes=nbytes), its).seconds
        assert nbytes / found / 1e9 == pytest.approx(measured[kind], rel=0.35), kind


def test_a_part_of_an_all_to_all_has_its_share_of_the_whole() -> None:
    """What a card sends to another socket when two, or all, of each exchange: 4 of 7 of what it receives, or 2 of 3."""
    its = load_cluster(str(LINKS / "l40sx8.cluster.yaml"))
    one, two, all_ = (seconds(its, ranks, AllToAll("head", "batch")) for ranks in ((0, 4), (0, 1, 4, 5), range(8)))
    assert one == pytest.approx(two * 3 / 2, rel=0.01)
    assert one == pytest.approx(all_ * 7 / 4, rel=0.2)  # the share of a link that it reaches is another of 8 ranks


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_link_may_have_a_bandwidth_of_its_own_for_all_to_all(kind: str) -> None:
    """Whichever link it is, and for nothing else."""
    more = {"all_to_all": "1 GB/s"}
    plain, own = cluster(PAIR, kind=kind), cluster(PAIR | more, kind=kind, within_host=WITHIN, between_hosts=BETWEEN)
    wide = cluster(PAIR, kind=kind, within_host=WITHIN | more, between_hosts=BETWEEN | more)
    op = AllToAll("head", "batch")
    assert seconds(own, (0, 1), op) < seconds(plain, (0, 1), op)
    assert seconds(own, (0, 2), op) == seconds(plain, (0, 2), op)
    assert seconds(wide, (0, 1), op) == seconds(plain, (0, 1), op)
    for ranks in ((0, 2), (0, 8)):
        assert seconds(wide, ranks, op) < seconds(plain, ranks, op)
    for its in (own, wide):
        assert [seconds(its, ranks) for ranks in ((0, 1), (0, 2), (0, 8))] == [
            seconds(plain, ranks) for ranks in ((0, 1), (0, 2), (0, 8))
        ]
    names = [str(o) for o in collective_cost(replace(GATHER, op=op, ranks=(0, 2), nbytes=NBYTES), wide).origins]
    assert names[0].startswith("within_host.all_to_all 1 GB/s")


def test_calibrated_times_are_of_neighbours() -> None:
    """A table of two ranks was measured on two neighbours, and says nothing of two cards of two pairs."""
    table = {"kind": "all_gather", "ranks": 2, "nbytes": [1000, NBYTES], "seconds": ["1 ms", "7 ms"]}
    calibration = {"source": "by hand", "task_overhead": "1 us", "collectives": [table]}
    its = cluster(PAIR, calibration=calibration)
    assert seconds(its, (0, 1)) == seconds(its, (4, 5)) == pytest.approx(7e-3)
    assert seconds(its, (0, 2)) == seconds(cluster(PAIR), (0, 2))
    assert seconds(its, (1, 2)) == seconds(cluster(PAIR), (1, 2))
    assert seconds(its, range(4)) == seconds(cluster(PAIR), range(4))
    assert seconds(cluster(calibration=calibration), (0, 2)) == pytest.approx(7e-3)


def test_the_simulation_takes_the_prices_and_counts_bytes_by_link() -> None:
    """Groups in pairs, slices across sockets: every collective lasts as long as it is priced."""
    sets = ("layers=1", "hosts=1", "devices_per_host=8")
    dag = dag_of(SMALL, 2, 4, *sets, placement="groups-slices-data-pipeline")
    its = cluster(PAIR, SOCKET, hosts=1)
    dag = replace(dag, plan=dag.plan.model_copy(update={"cluster": its}))
    timeline = simulate(dag)
    collectives = [task for task in dag.tasks if task.is_collective]
    assert collectives
    for task in collectives:
        took = timeline.end_s[task.id] - timeline.begin_s[task.id]
        assert took == pytest.approx(collective_cost(task, its).seconds)
    found = forecast(dag)
    by_link = dict(found.link_nbytes)
    assert list(by_link) == ["pair", "socket", "within_host"]
    assert by_link["pair"] > 0
    assert by_link["within_host"] > 0
    assert {kind.link for kind in found.kinds if kind.lane == "communication"} <= {"pair", "socket", "within_host"}
    assert sum(by_link.values()) == found.received_nbytes
    assert not forecast(dag_of(SMALL, 2, 2, "layers=1")).link_nbytes


def test_old_prices_are_as_they_were() -> None:
    """The link inside a host of equal links: no number of the paper's plans changes."""
    its = load_cluster(PAPER[1])
    fit = c.WITHIN_HOST["all_gather"][8]
    inside = fit.latencies * 5e-6 + NBYTES / (450e9 * fit.share)
    assert seconds(its, range(8)) == pytest.approx(inside, rel=1e-12)
    between = c.BETWEEN_HOSTS["all_gather"].value * 10e-6 + NBYTES / (50e9 * c.NIC_SHARE.value)
    assert seconds(its, (0, 8)) == pytest.approx(between, rel=1e-12)
