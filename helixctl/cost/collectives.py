"""What one collective takes with its links to itself and to the groups that communicate beside it."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from math import ceil, log2

from helixctl.cost import constants as c
from helixctl.cost.interpolate import seconds_of_size
from helixctl.cost.origin import Constant, Cost, Rule
from helixctl.dag import Task
from helixctl.dag.ops import wire_kind
from helixctl.spec import ClusterSpec, EqualHosts, LinkSpec
from helixctl.spec.calibration import CalibrationSpec, CollectiveTable
from helixctl.spec.rates import rates_of


def collective_cost(task: Task, cluster: ClusterSpec) -> Cost:
    """Seconds of a collective: calibrated where there is a table that fits, else start-up plus bytes over bandwidth.

    A packed exchange costs what one collective of all its bytes costs. The slowest link that is crossed decides. In an
    all-to-all every rank receives from each other host what its ranks have for it, over its own share of a NIC. A ring
    over several hosts runs once per rank that each host has in it, each over a share of a NIC, so the hosts exchange at
    (ranks per host) x (share) x (NIC rate). The share is min(1, NICs / devices of a host): all groups of a level cross
    at the same time, and together they are all devices of the host, so that every device has an equal part of the NICs
    whichever group it is in.

    Where hosts differ it goes as fast as the slowest kind of host that has a rank in it lets it.
    """
    if not cluster.differs:
        hosts = cluster.kinds[0]
        return _on_hosts(task, hosts, _per_host(task.ranks, hosts.devices_per_host))
    per_host = Counter(map(cluster.host_of, task.ranks))
    kinds = sorted(set(map(cluster.kind_of, task.ranks)))
    return max((_on_hosts(task, cluster.kinds[kind], per_host) for kind in kinds), key=lambda cost: cost.seconds)


def _on_hosts(task: Task, cluster: EqualHosts, per_host: Counter[int]) -> Cost:
    """Seconds of a collective if all its hosts were of one kind."""
    calibration = rates_of(cluster)
    table = _table(task, cluster, calibration, hosts=len(per_host)) if calibration else None
    if table and calibration:
        name = f"{table.kind} of {table.ranks} ranks: times by size"
        rule = Rule(name, f"calibrated: {calibration.source}")
        return Cost(seconds_of_size(table.nbytes, table.seconds, task.nbytes), (rule,))
    return (_nccl if cluster.device.torch_kind == "cuda" else _gloo)(task, cluster, per_host)


@lru_cache(maxsize=4096)
def _per_host(ranks: tuple[int, ...], devices_per_host: int) -> Counter[int]:
    """How many of the ranks are on each host."""
    return Counter(rank // devices_per_host for rank in ranks)


def _table(task: Task, cluster: EqualHosts, calibration: CalibrationSpec, hosts: int) -> CollectiveTable | None:
    """The calibrated table of the nearest number of ranks; between hosts only that of exactly this number.

    A table that does not say over how many hosts its ranks were spread, and has more ranks than a host has devices, was
    measured between hosts. A group of another size has another number of NICs, so its time cannot be told from that
    table.
    """
    ranks, devices = len(task.ranks), cluster.devices_per_host
    tables = [t for t in calibration.collectives if t.kind == wire_kind(task.op)]
    if hosts > 1:
        tables = [t for t in tables if t.ranks == ranks and (t.hosts == hosts if t.hosts else ranks > devices)]
    else:
        tables = [t for t in tables if (t.hosts == 1 if t.hosts else t.ranks <= devices)]
    return min(tables, key=lambda t: (abs(log2(t.ranks / ranks)), t.ranks), default=None)


def _nccl(task: Task, cluster: EqualHosts, per_host: Counter[int]) -> Cost:
    """``alpha + bytes received / bus bandwidth``."""
    most, kind = max(per_host.values()), wire_kind(task.op)
    fits = c.WITHIN_HOST[kind]
    ranks = min(fits, key=lambda n: abs(n - most))
    fit, link = fits[ranks], cluster.within_host
    bandwidth, alpha = link.bandwidth * fit.share, link.latency * fit.latencies
    origins = [*_link("within_host", link, cluster), fit.origin(f"{kind} of {ranks} ranks inside a host")]
    if len(per_host) > 1 and cluster.between_hosts is not None:
        link, latencies = cluster.between_hosts, c.BETWEEN_HOSTS[kind]
        nics = min(per_host.values()) * _nic_share(cluster)
        if kind == "all_to_all":
            nics = _nic_share(cluster) * _crossing(per_host)
        between = nics * link.bandwidth * c.NIC_SHARE.value
        alpha = link.latency * latencies.value
        own = [*_link("between_hosts", link, cluster), *_nics(cluster), c.NIC_SHARE, latencies]
        # With one rank a host nothing moves inside it.
        origins = own if most == 1 else [*origins, *own]
        bandwidth = between if most == 1 else min(bandwidth, between)
    return Cost(alpha + task.nbytes / bandwidth, tuple(origins))


def _gloo(task: Task, cluster: EqualHosts, per_host: Counter[int]) -> Cost:
    """The spec's links as they are: a ring of single steps, or for a broadcast a binomial tree of whole messages.

    A ring, and every path of a tree, crosses from host to host over one link of one device.
    """
    ranks, bandwidth, latency = len(task.ranks), cluster.within_host.bandwidth, cluster.within_host.latency
    kind = wire_kind(task.op)
    origins = _link("within_host", cluster.within_host, cluster)
    if len(per_host) > 1 and cluster.between_hosts is not None:
        share = min(1.0, min(per_host.values()) * _nic_share(cluster))
        if kind == "all_to_all":
            share = min(1.0, _nic_share(cluster) * _crossing(per_host))
        between = cluster.between_hosts
        bandwidth, latency = min(bandwidth, between.bandwidth * share), max(latency, between.latency)
        origins = [*origins, *_link("between_hosts", between, cluster), *_nics(cluster)]
    moved = task.nbytes / bandwidth
    steps = ceil(log2(ranks))
    seconds = {
        "broadcast": steps * (latency + moved),
        "send_receive": latency + moved,
        "all_gather": (ranks - 1) * latency + moved,
        "all_to_all": (ranks - 1) * latency + moved,
        "all_reduce": 2 * (ranks - 1) * latency + moved,
        # torch's gloo backend sums all of it on every rank, and keeps a share (ProcessGroupGloo.cpp).
        "reduce_scatter": 2 * (ranks - 1) * latency + 2 * moved,
    }[kind]
    return Cost(seconds, (*origins, c.GLOO))


def _nic_share(cluster: EqualHosts) -> float:
    nics = cluster.nics_per_host
    return 1.0 if nics is None else min(1.0, nics / cluster.devices_per_host)


def _crossing(per_host: Counter[int]) -> float:
    """How many bytes a rank receives in an all-to-all for each that comes from another host (the fewest on its own)."""
    ranks = per_host.total()
    return (ranks - 1) / (ranks - min(per_host.values()))


def _nics(cluster: EqualHosts) -> list[Constant | Rule]:
    nics = cluster.nics_per_host
    return [] if nics is None else [Constant("nics_per_host", nics, f"cluster spec {cluster.name}")]


def _link(name: str, link: LinkSpec, cluster: EqualHosts) -> list[Constant | Rule]:
    source = f"cluster spec {cluster.name}"
    return [
        Constant(f"{name}.bandwidth", link.bandwidth, source, "B/s"),
        Constant(f"{name}.latency", link.latency, source, "s"),
    ]
