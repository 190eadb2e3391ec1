"""Memory: what every device holds at its fullest fits."""

from __future__ import annotations

from collections.abc import Iterator

from helixctl.cost.memory import peak_nbytes
from helixctl.dag import Dag
from helixctl.errors import Diagnostic
from helixctl.units import human_bytes


def check_memory(dag: Dag) -> Iterator[Diagnostic]:
    """Weights and live values of each rank stay within its device's memory (HX410)."""
    device = dag.plan.cluster.device
    peaks = peak_nbytes(dag)
    worst = max(range(len(peaks)), key=peaks.__getitem__)
    if peaks[worst] > device.available:
        hint = "use more devices, a smaller batch or a smaller dtype"
        yield Diagnostic("HX410", f"rank {worst} needs {human_bytes(peaks[worst])}, {device.memory_text}", hint)
