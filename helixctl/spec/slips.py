"""What people type wrong of a GPU: figures that are well-formed, and are not what the datasheet means.

A sparse rate for the dense one, a link in both directions together, bytes for bits. Each makes another layout win, and
none is an error: a GPU may be one that is not known here. Sentences name the key and the right value. Nothing is said
of clusters of CPUs, nor of what a calibration has measured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final

from helixctl.spec.cluster import ClusterSpec, EqualHosts, LinkSpec
from helixctl.spec.load import load_cluster
from helixctl.spec.named import NamedCluster, cluster_names

Known = EqualHosts | None  # the cluster of ours whose GPU it is
Rule = Callable[[EqualHosts, Known], Iterator[str]]

_SAME: Final = 1.02  # figures that differ by less are one figure, rounded
_SPARSE: Final = 2.0
_LOW: Final = 20.0  # no GPU has so much less than its datasheet says
_LEAST_RATE: Final = 1e12  # of the fastest dtype: CUDA devices are reckoned in TFLOP/s
# Drivers show up to 1.069 of the datasheet's GB, for the chips hold GiB; all of those GiB would be 1.074.
_MEMORY: Final = (0.9, 1.07)
_FASTEST_NIC: Final = 100e9  # 800 Gb/s
_QUICKEST: Final = 100e-9
_USUAL_INSIDE: Final = "5 us"
_USUAL_BETWEEN: Final = "10 us"


def slips(cluster: ClusterSpec) -> tuple[str, ...]:
    """Sentences on the figures of a cluster that are likely slips, each with its key and the right value."""
    return tuple(
        f"hosts[{place}].{sentence}" if isinstance(cluster.hosts, tuple) else sentence
        for place, kind in enumerate(cluster.kinds)
        if kind.device.kind != "cpu"
        for rule in _RULES
        for sentence in rule(kind, _known(kind.device.name))
    )


def _peaks(cluster: EqualHosts, known: Known) -> Iterator[str]:
    measured = cluster.calibration.matmul if cluster.calibration else {}
    peak = {dtype: rate for dtype, rate in cluster.device.peak.items() if dtype not in measured}
    if known is None:
        if peak and not measured and max(peak.values()) < _LEAST_RATE:
            dtype, rate = max(peak.items(), key=lambda item: item[1])
            yield f"device.peak.{dtype}: {_rate(rate)}: did you mean {rate / 1e9:g} TFLOP/s?"
        return
    for dtype, rate in peak.items():
        dense = known.device.peak.get(dtype)
        if dense is None:
            continue
        key, right = f"device.peak.{dtype}: {_rate(rate)}", f"{_rate(dense)} ({known.device.name})"
        if _is(rate, _SPARSE * dense):
            yield f"{key} is the rate with 2:4 sparsity; the dense rate is {right}"
        elif rate > _SAME * dense:
            yield f"{key} is above the dense rate of the datasheet, {right}"
        elif _is(rate, dense / 1e3) or _is(rate, _SPARSE * dense / 1e3):
            yield f"{key}: did you mean TFLOP/s? The dense rate is {right}"
        elif rate < dense / _LOW:
            yield f"{key} is less than a {_LOW:g}th of the dense rate of the datasheet, {right}"


def _memory(cluster: EqualHosts, known: Known) -> Iterator[str]:
    device = cluster.device
    if known is None or cluster.calibration or _other_size(device.name, known.device.memory):
        return
    least, most = _MEMORY
    if not least <= device.memory / known.device.memory <= most:
        size = known.device.memory / 1e9
        binary = f"{size:g} GiB are " if _is(device.memory, size * 2**30) else ""
        yield f"device.memory: {binary}{_giga(device.memory, 'GB')}; {known.device.name} has {size:g} GB"


def _within_host(cluster: EqualHosts, known: Known) -> Iterator[str]:
    if known is None or cluster.calibration or cluster.devices_per_host == 1:
        return
    for name, link in _links_of_a_host(cluster):
        found, right = link.bandwidth, known.within_host.bandwidth
        key, its = f"{name}.bandwidth: {_giga(found)}", f"{_giga(right)} ({known.device.name})"
        if _is(found, 2 * right):
            yield f"{key} is both directions together; in one direction it is {its}"
        elif found > _SAME * right:
            yield f"{key} is more than the links of one GPU carry in one direction, {its}"


def _inner_links(cluster: EqualHosts, known: Known) -> Iterator[str]:  # noqa: ARG001  a rule like the others
    for (name, inner), (around, outer) in pairwise(_links_of_a_host(cluster)):
        if _SAME * inner.bandwidth < outer.bandwidth:
            yield (
                f"{name}.bandwidth: {_giga(inner.bandwidth)} is less than {around}.bandwidth, "
                f"{_giga(outer.bandwidth)}: a link further inside is the faster"
            )


def _links_of_a_host(cluster: EqualHosts) -> list[tuple[str, LinkSpec]]:
    """The links inside a host by their keys, the innermost first."""
    return [*((f"links.{link.name}", link) for link in cluster.links), ("within_host", cluster.within_host)]


def _between_hosts(cluster: EqualHosts, known: Known) -> Iterator[str]:
    if cluster.between_hosts is None:
        return
    found = cluster.between_hosts.bandwidth
    name, inside = max(_links_of_a_host(cluster), key=lambda its: its[1].bandwidth)
    within = inside.bandwidth
    key = f"between_hosts.bandwidth: {_giga(found)}"
    # Equal to the link inside: hosts that are one domain of NVLink.
    if found > _SAME * _FASTEST_NIC and not _is(found, within):
        bits = found / 1e9 if found < _FASTEST_NIC * 8 * _SAME else 400
        yield f"{key} is {_giga(found * 8, 'Gb/s')}, and a NIC has 800 Gb/s at most: did you mean {bits:g} Gb/s?"
    elif found > _SAME * within and cluster.devices_per_host > 1 and not cluster.calibration:
        its = f"; {known.device.name} has {_giga(known.within_host.bandwidth)} there" if known else ""
        yield f"{key} is more than {name}.bandwidth, {_giga(within)}: a link inside a host is the faster{its}"


def _latencies(cluster: EqualHosts, known: Known) -> Iterator[str]:  # noqa: ARG001  a rule like the others
    links = [*([] if cluster.calibration else _links_of_a_host(cluster)), ("between_hosts", cluster.between_hosts)]
    for name, link in links:
        if link is not None and link.latency < _QUICKEST:
            usual = _USUAL_BETWEEN if name == "between_hosts" else _USUAL_INSIDE
            yield f"{name}.latency: {link.latency * 1e9:g} ns is less than a link takes; {usual} is usual"


_RULES: Final[tuple[Rule, ...]] = (_memory, _peaks, _within_host, _inner_links, _between_hosts, _latencies)


_VARIANT: Final = r"nvl|mig|\dg\.|laptop|\d d\b"


def _known(name: str) -> Known:
    """The cluster of ours that a device's name is of; of its variants, a card or a part of a GPU, nothing is known."""
    lower = name.lower()
    for gpu in cluster_names():
        word = re.sub(r"(?<=[a-z])(?=[0-9])", " ?", gpu)
        if re.search(rf"(?<![a-z0-9]){word}(?![a-z0-9])", lower) and not re.search(_VARIANT, lower):
            found = NamedCluster(gpu, 1, 1)
            return None if "pcie" in lower and "PCIe" not in found.text else load_cluster(str(found)).only
    return None


def _other_size(name: str, nbytes: float) -> bool:
    """Whether the name says another size: ``NVIDIA A100-SXM4-40GB``."""
    return any(float(size) * 1e9 != nbytes for size in re.findall(r"(?i)(\d+) ?GB\b", name))


def _is(found: float, right: float) -> bool:
    return right / _SAME <= found <= right * _SAME


def _giga(number: float, unit: str = "GB/s") -> str:
    return f"{number / 1e9:.4g} {unit}"


def _rate(flops: float) -> str:
    return f"{flops / 1e12:g} TFLOP/s" if flops >= _LEAST_RATE else f"{flops / 1e9:g} GFLOP/s"
