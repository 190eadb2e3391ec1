"""What one collective takes with its links to itself and to the groups that communicate beside it."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from math import ceil, inf, log2
from typing import NamedTuple

from helixctl.cost import constants as c
from helixctl.cost.interpolate import seconds_of_size
from helixctl.cost.origin import Constant, Cost, Rule
from helixctl.dag import Task
from helixctl.dag.ops import wire_kind
from helixctl.spec import ClusterSpec, EqualHosts, LinkSpec
from helixctl.spec.calibration import CalibrationSpec, CollectiveTable
from helixctl.spec.rates import rates_of


class Spread(NamedTuple):
    """How the ranks of a collective are spread.

    Attributes:
        hosts: how many of them are on each host.
        domains: how many are in each domain of links, from the innermost outwards, of those on hosts of one kind; last
            how many of these are on each host.
    """

    hosts: Counter[int]
    domains: tuple[Counter[int], ...]


class _Wire(NamedTuple):
    """A link that a collective goes over, inside hosts or between them.

    Attributes:
        name: its key in the cluster's spec.
        link: its figures.
        fewest: ranks of the collective in that of the domains it joins which has fewest: one of single devices.
        share: of a link, for every device of such a domain: they share its uplinks.
        origins: of the share.
    """

    name: str
    link: LinkSpec
    fewest: int
    share: float
    origins: tuple[Constant, ...]


def collective_cost(task: Task, cluster: ClusterSpec) -> Cost:
    """Seconds of a collective: calibrated where there is a table that fits, else start-up plus bytes over bandwidth.

    A packed exchange costs what one collective of all its bytes costs. The slowest link that is crossed decides. In an
    all-to-all every rank receives from each other host what its ranks have for it, over its own share of a NIC. A ring
    over several hosts runs once per rank that each host has in it, each over a share of a NIC, so the hosts exchange at
    (ranks per host) x (share) x (NIC rate). The share is min(1, NICs / devices of a host): all groups of a level cross
    at the same time, and together they are all devices of the host, so that every device has an equal part of the NICs
    whichever group it is in. It is the same between domains of links inside a host, with their uplinks as the NICs.

    Where hosts differ it goes as fast as the slowest kind of host that has a rank in it lets it. Where there are tables
    of collectives inside a host, one over several hosts takes at least as long as its part inside one.
    """
    if not cluster.differs:
        hosts = cluster.kinds[0]
        return _on_hosts(task, hosts, _spread(task.ranks, hosts.domain_sizes))
    per_host = Counter(map(cluster.host_of, task.ranks))
    kinds = sorted(set(map(cluster.kind_of, task.ranks)))
    return max((_on_kind(task, cluster, kind, per_host) for kind in kinds), key=lambda cost: cost.seconds)


def _on_kind(task: Task, cluster: ClusterSpec, kind: int, per_host: Counter[int]) -> Cost:
    """Seconds of a collective if all its hosts were of one kind; in their domains are the ranks that are there."""
    ranks = [rank for rank in task.ranks if cluster.kind_of(rank) == kind]
    levels = zip(*[(*cluster.domains_of(rank), cluster.host_of(rank)) for rank in ranks], strict=True)
    return _on_hosts(task, cluster.kinds[kind], Spread(per_host, tuple(map(Counter, levels))))


def _on_hosts(task: Task, cluster: EqualHosts, spread: Spread) -> Cost:
    """Seconds of a collective if all its hosts were of one kind."""
    calibration = rates_of(cluster)
    if calibration and (table := _table(task, cluster, calibration, spread)):
        return _by_table(table, task.nbytes, calibration)
    found = (_nccl if cluster.device.torch_kind == "cuda" else _gloo)(task, cluster, spread)
    inside = _inside_hosts(task, cluster, calibration, spread) if calibration else None
    return found if inside is None or inside.seconds <= found.seconds else inside


def _by_table(table: CollectiveTable, nbytes: float, calibration: CalibrationSpec) -> Cost:
    rule = Rule(f"{table.kind} of {table.ranks} ranks: times by size", f"calibrated: {calibration.source}")
    return Cost(seconds_of_size(table.nbytes, table.seconds, nbytes), (rule,))


def _inside_hosts(task: Task, cluster: EqualHosts, calibration: CalibrationSpec, spread: Spread) -> Cost | None:
    """What a collective over several hosts takes inside one of them at least, by the table of its ranks there.

    A rank receives as many bytes over the links of its host as in a collective of those ranks; of an all-to-all only
    what they send to each other.
    """
    near, ranks, kind = max(spread.hosts.values()), len(task.ranks), wire_kind(task.op)
    if len(spread.hosts) == 1 or near == 1 or cluster.links:
        return None
    share = (near - 1) / (ranks - 1) if kind == "all_to_all" else 1.0
    tables = [t for t in _inside_a_host(cluster, calibration) if (t.kind, t.ranks) == (kind, near)]
    return _by_table(tables[0], task.nbytes * share, calibration) if tables else None


@lru_cache(maxsize=4096)
def _spread(ranks: tuple[int, ...], sizes: tuple[int, ...]) -> Spread:
    """The spread of some ranks over equal hosts; ``sizes``: of their domains, the last is that of a host."""
    domains = tuple([Counter([rank // size for rank in ranks]) for size in sizes])
    return Spread(domains[-1], domains)


def _wires(cluster: EqualHosts, spread: Spread) -> list[_Wire]:
    """The links inside hosts that a collective goes over, from the innermost outwards; none with one rank a host.

    It crosses a link where some domain outside it has ranks in several domains inside. What leaves a domain goes over
    its uplinks, where its devices share them, however far it goes.
    """
    source, found = f"cluster spec {cluster.name}", []
    links = [*((f"links.{link.name}", link) for link in cluster.links), ("within_host", cluster.within_host)]
    inside = spread.domains[-1].total()  # how many domains there are inside the link: single devices at first
    hosts = len(spread.domains[-1])
    fewest, share, shared, origins = 1, 1.0, False, tuple[Constant, ...]()
    for place, (name, link) in enumerate(links):
        domains = spread.domains[place]
        if inside > len(domains) or (shared and inside > hosts):
            found.append(_Wire(name, link, fewest, share, origins))
        inside, fewest, share, shared, origins = len(domains), min(domains.values()), 1.0, False, ()
        if place < len(cluster.links) and (uplinks := cluster.links[place].uplinks) is not None:
            share, shared = min(1.0, uplinks / cluster.links[place].devices), True
            origins = (Constant(f"{name}.uplinks", uplinks, source),)
    return found


def _between(cluster: EqualHosts, spread: Spread) -> _Wire | None:
    """The link between hosts, with the NICs that the devices of one share; None where all ranks are on one."""
    if len(spread.hosts) == 1 or cluster.between_hosts is None:
        return None
    share, origins, nics = 1.0, tuple[Constant, ...](), cluster.nics_per_host
    if nics is not None:
        share = min(1.0, nics / cluster.devices_per_host)
        origins = (Constant("nics_per_host", nics, f"cluster spec {cluster.name}"),)
    return _Wire("between_hosts", cluster.between_hosts, min(spread.hosts.values()), share, origins)


def _at_once(kind: str, wire: _Wire, ranks: int) -> float:
    """How many times the bandwidth of a link one rank of a collective receives at."""
    return wire.share * (_outside(ranks, wire.fewest) if kind == "all_to_all" else wire.fewest)


def _table(task: Task, cluster: EqualHosts, calibration: CalibrationSpec, spread: Spread) -> CollectiveTable | None:
    """The calibrated table of the nearest number of ranks; between hosts only that of exactly this number.

    A table that does not say over how many hosts its ranks were spread, and has more ranks than a host has devices, was
    measured between hosts. A group of another size has another number of NICs, so its time cannot be told from that
    table. Nor can it where links inside a host differ: there a table is of so many ranks that are neighbours.
    """
    ranks, devices, hosts = len(task.ranks), cluster.devices_per_host, len(spread.hosts)
    kind = wire_kind(task.op)
    if hosts > 1:
        tables = [t for t in calibration.collectives if t.kind == kind and t.ranks == ranks]
        tables = [t for t in tables if (t.hosts == hosts if t.hosts else ranks > devices)]
    else:
        tables = [t for t in _inside_a_host(cluster, calibration) if t.kind == kind]
        if cluster.links:
            near = _counts(spread) == _counts(_spread(tuple(range(ranks)), cluster.domain_sizes))
            tables = [t for t in tables if near and t.ranks == ranks]
    return min(tables, key=lambda t: (abs(log2(t.ranks / ranks)), t.ranks), default=None)


def _inside_a_host(cluster: EqualHosts, calibration: CalibrationSpec) -> list[CollectiveTable]:
    """The tables that were measured inside one host."""
    devices = cluster.devices_per_host
    return [t for t in calibration.collectives if (t.hosts == 1 if t.hosts else t.ranks <= devices)]


def _counts(spread: Spread) -> list[list[int]]:
    return [sorted(domains.values()) for domains in spread.domains]


def _nccl(task: Task, cluster: EqualHosts, spread: Spread) -> Cost:
    """``alpha + bytes received / bus bandwidth``."""
    per_host, kind = spread.hosts, wire_kind(task.op)
    most = max(per_host.values())
    fits = c.WITHIN_HOST[kind]
    ranks = min(fits, key=lambda n: abs(n - most))
    fit, wires = fits[ranks], _wires(cluster, spread)
    bandwidth, alpha, origins = inf, 0.0, list[Constant | Rule]()
    for wire in wires:
        rate = _bandwidth(kind, wire, cluster)
        bandwidth = min(bandwidth, rate.value * fit.share * _at_once(kind, wire, len(task.ranks)))
        alpha = wire.link.latency * fit.latencies
        origins += [rate, _latency(wire, cluster), *wire.origins]
    if wires:
        origins.append(fit.origin(f"{kind} of {ranks} ranks inside a host"))
    if between := _between(cluster, spread):
        latencies = c.BETWEEN_HOSTS[kind]
        nics, rate = _at_once(kind, between, len(task.ranks)), _bandwidth(kind, between, cluster)
        bandwidth = min(bandwidth, nics * rate.value * c.NIC_SHARE.value)
        alpha = between.link.latency * latencies.value
        origins += [rate, _latency(between, cluster), *between.origins, c.NIC_SHARE, latencies]
    return Cost(alpha + task.nbytes / bandwidth, tuple(origins))


def _gloo(task: Task, cluster: EqualHosts, spread: Spread) -> Cost:
    """The spec's links as they are: a ring of single steps, or for a broadcast a binomial tree of whole messages.

    A ring, and every path of a tree, crosses from host to host, or from one domain of links to another, over one link
    of one device.
    """
    ranks, kind = len(task.ranks), wire_kind(task.op)
    bandwidth, latency, origins = inf, 0.0, list[Constant | Rule]()
    inside = _wires(cluster, spread) or [_Wire("within_host", cluster.within_host, 1, 1.0, ())]
    between = _between(cluster, spread)
    for wire in (*inside, *([between] if between else [])):
        rate = _bandwidth(kind, wire, cluster)
        bandwidth = min(bandwidth, rate.value * min(1.0, _at_once(kind, wire, ranks)))
        latency = max(latency, wire.link.latency)
        origins += [rate, _latency(wire, cluster), *wire.origins]
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


def _outside(ranks: int, near: int) -> float:
    """How many bytes a rank receives in an all-to-all for each that comes from a rank that is not near it."""
    return (ranks - 1) / (ranks - near)


def _bandwidth(kind: str, wire: _Wire, cluster: EqualHosts) -> Constant:
    """What a device sends over a link in a collective of that kind."""
    its, source = wire.link.all_to_all, f"cluster spec {cluster.name}"
    if kind == "all_to_all" and its is not None:
        return Constant(f"{wire.name}.all_to_all", its, source, "B/s")
    return Constant(f"{wire.name}.bandwidth", wire.link.bandwidth, source, "B/s")


def _latency(wire: _Wire, cluster: EqualHosts) -> Constant:
    return Constant(f"{wire.name}.latency", wire.link.latency, f"cluster spec {cluster.name}", "s")
