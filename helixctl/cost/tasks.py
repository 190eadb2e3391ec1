"""What one task takes on one cluster: roofline for compute, start-up plus bytes over bandwidth for collectives."""

from __future__ import annotations

from collections import Counter

from helixctl.cost import constants as c
from helixctl.dag import Attention, Task
from helixctl.spec import ClusterSpec, Dtype


def seconds(task: Task, cluster: ClusterSpec, dtype: Dtype) -> float:
    """Predicted duration of a task."""
    return _collective(task, cluster) if task.is_collective else _compute(task, cluster, dtype)


def crosses_hosts(task: Task, cluster: ClusterSpec) -> bool:
    """Whether a collective's ranks sit on more than one host."""
    return len({cluster.host_of(rank) for rank in task.ranks}) > 1


def _compute(task: Task, cluster: ClusterSpec, dtype: Dtype) -> float:
    """The longer of arithmetic and memory traffic, plus what starting a kernel takes."""
    device = cluster.device
    share = c.MATMUL_SHARE.value
    if isinstance(task.op, Attention):
        wide = task.op.softmax_width > c.WIDEST_FUSED_HEAD
        share = (c.WIDE_ATTENTION_SHARE if wide else c.ATTENTION_SHARE).value
    # A dtype that the spec does not list runs at the slowest listed rate.
    peak = device.peak.get(dtype, min(device.peak.values()))
    arithmetic = task.flops / (peak * share)
    traffic = task.nbytes / (device.memory_bandwidth * c.MEMORY_SHARE.value)
    return max(arithmetic, traffic) + c.TASK_OVERHEAD_S.value


def _collective(task: Task, cluster: ClusterSpec) -> float:
    """``alpha + bytes received / bus bandwidth``; the slowest link that is crossed decides.

    A ring over several hosts runs once per rank that each host has in it, each over a NIC of its own, so the hosts
    exchange at (ranks per host) x (NIC rate).
    """
    per_host = Counter(cluster.host_of(rank) for rank in task.ranks)
    alpha_latencies, share = _within(task.kind, max(per_host.values()))
    bandwidth = cluster.within_host.bandwidth * share
    alpha = cluster.within_host.latency * alpha_latencies
    if len(per_host) > 1 and cluster.between_hosts is not None:
        nics = min(per_host.values())
        between = nics * cluster.between_hosts.bandwidth * c.NIC_SHARE.value
        bandwidth = between if max(per_host.values()) == 1 else min(bandwidth, between)
        alpha = cluster.between_hosts.latency * c.BETWEEN_HOSTS[task.kind]
    return alpha + task.nbytes / bandwidth


def _within(kind: str, ranks: int) -> tuple[float, float]:
    """The fitted constants for the nearest number of ranks."""
    table = c.WITHIN_HOST[kind]
    return table[min(table, key=lambda n: abs(n - ranks))]
