"""Memory: what every device holds at its fullest fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from helixctl.cost.memory import peaks_below_fullest
from helixctl.dag import Dag
from helixctl.errors import Diagnostic
from helixctl.spec import ClusterSpec, DeviceSpec
from helixctl.units import human_bytes


def check_memory(dag: Dag) -> Iterator[Diagnostic]:
    """Weights and live values of each rank stay within the memory of its own device (HX410)."""
    if found := fullest(dag.plan.cluster, peaks_below_fullest(dag)):
        yield found


def fullest(cluster: ClusterSpec, peaks: Sequence[int]) -> Diagnostic | None:
    """HX410, of the rank that has most on devices of a kind that has less: one kind after the other.

    Args:
        cluster: whose devices the ranks have.
        peaks: bytes that every rank needs.
    """
    worst: dict[int, int] = {}
    for rank, nbytes in enumerate(peaks):
        kind = cluster.kind_of(rank)
        if nbytes > peaks[worst.setdefault(kind, rank)]:
            worst[kind] = rank
    found = (exceeded(cluster.device_of(rank), peaks[rank], f"rank {rank}") for rank in worst.values())
    return next(filter(None, found), None)


def exceeded(device: DeviceSpec, nbytes: int, who: str = "the fullest device") -> Diagnostic | None:
    """HX410, where the bytes are more than a device has; ``who`` needs them."""
    if nbytes <= device.available:
        return None
    hint = "use more devices, a smaller batch or a smaller dtype"
    return Diagnostic("HX410", f"{who} needs {human_bytes(nbytes)}, {device.memory_text}", hint)
