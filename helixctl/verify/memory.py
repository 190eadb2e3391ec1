"""Memory: what every device holds at its fullest fits."""

from __future__ import annotations

from collections.abc import Iterator

from helixctl.cost.memory import peak_nbytes
from helixctl.dag import Dag
from helixctl.errors import Diagnostic
from helixctl.spec import DeviceSpec
from helixctl.units import human_bytes


def check_memory(dag: Dag) -> Iterator[Diagnostic]:
    """Weights and live values of each rank stay within its device's memory (HX410)."""
    peaks = peak_nbytes(dag)
    worst = max(range(len(peaks)), key=peaks.__getitem__)
    if found := exceeded(dag.plan.cluster.device, peaks[worst], f"rank {worst}"):
        yield found


def exceeded(device: DeviceSpec, nbytes: int, who: str = "the fullest device") -> Diagnostic | None:
    """HX410, where so many bytes are more than a device has; ``who`` needs them."""
    if nbytes <= device.available:
        return None
    hint = "use more devices, a smaller batch or a smaller dtype"
    return Diagnostic("HX410", f"{who} needs {human_bytes(nbytes)}, {device.memory_text}", hint)
