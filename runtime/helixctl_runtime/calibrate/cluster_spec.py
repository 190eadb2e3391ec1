"""From measurements to a cluster spec: rates instead of times, with four digits and units."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

from helixctl.spec import ClusterSpec, Dtype
from helixctl_runtime.calibrate.collective_time import received_nbytes
from helixctl_runtime.calibrate.kernel_time import kernel_work
from helixctl_runtime.calibrate.points import COLLECTIVES, ELEMENTWISE, Kernel, KernelPoint
from helixctl_runtime.calibrate.worker import Measurements

_LARGE: Final = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL: Final = ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"))
# At least this share of a measured time counts as the kernel's, even if it hardly exceeds the start of a task.
_OWN_SHARE: Final = 0.5
_LONGEST_NAME: Final = 100


def build_cluster_spec(found: Measurements, base: ClusterSpec | None, day: date) -> ClusterSpec:
    """The cluster spec that holds the measurements.

    Args:
        found: the measurements.
        base: the spec that gives what was not measured: links, numbers of hosts and devices, names, memory. Its
            measured rates that come with helixctl give way. None gives one host as it was measured, with a link worked
            out from the all-gathers of all its ranks.
        day: the day of the measurement.
    """
    rates = _Rates(found)
    calibration = _calibration(found, rates, day)
    peak = {dtype: _quantity(max(table), "FLOP/s") for dtype, table in rates.matmul.items()}
    bandwidth = _quantity(rates.streaming, "B/s")
    if base is None:
        data: dict[str, Any] = {
            "name": "calibrated",
            "hosts": 1,
            "devices_per_host": found.ranks_per_host,
            "cores_per_host": found.cores,
            "device": {
                "kind": "cuda" if found.cores is None else "cpu",
                "name": found.device[:_LONGEST_NAME],
                "memory": _quantity(found.memory_nbytes, "B"),
                "memory_bandwidth": bandwidth,
                "peak": peak,
            },
            "within_host": _link(found) if found.collectives else _no_link(rates),
        }
    else:
        base = base.of_kind(0)  # of a list with one kind of hosts the fields are in its item
        data = base.model_dump(mode="json", exclude_none=True, exclude={"measured"})
        data["device"] |= {"memory_bandwidth": bandwidth, "peak": data["device"]["peak"] | peak}
        data["cores_per_host"] = found.cores or base.cores_per_host
    return ClusterSpec.model_validate(data | {"calibration": calibration})


class _Rates:
    """The rates of kernels: work per second, without the time to start a task."""

    def __init__(self, found: Measurements) -> None:
        self._kernels = found.kernels
        self.overhead = next(s for p, s in found.kernels.items() if p.kernel == "task")
        self.matmul = {d: [self._rate(p) for p in self.points("matmul", d)] for d in self.dtypes}
        self.attention = {d: [self._rate(p) for p in self.points("attention", d)] for d in self.dtypes}

    @property
    def dtypes(self) -> list[Dtype]:
        return list(dict.fromkeys(p.dtype for p in self._kernels if p.kernel == "matmul"))

    def points(self, kernel: Kernel, dtype: Dtype) -> list[KernelPoint]:
        return [p for p in self._kernels if (p.kernel, p.dtype) == (kernel, dtype)]

    @property
    def streaming(self) -> float:
        """The memory bandwidth: bytes per second of the faster of two kernels that hardly compute.

        The copy may be the slower one: a CUDA graph runs copies on the device's copy engine, which on an H200 reaches
        two thirds of the rate of an addition.
        """
        return max(self.rate("copy"), self.rate("add"))

    def rate(self, kernel: Kernel) -> float:
        """The rate of a kernel that is measured at one size."""
        return next(self._rate(p) for p in self._kernels if p.kernel == kernel)

    def _rate(self, point: KernelPoint) -> float:
        seconds = self._kernels[point]
        return kernel_work(point) / max(seconds - self.overhead, _OWN_SHARE * seconds)


def _calibration(found: Measurements, rates: _Rates, day: date) -> dict[str, Any]:
    matmul = {d: [p.shape for p in rates.points("matmul", d)] for d in rates.dtypes}
    attention = {d: [p.shape for p in rates.points("attention", d)] for d in rates.dtypes}
    return {
        "source": _source(found, day),
        "task_overhead": _quantity(rates.overhead, "s"),
        "matmul": {
            d: {
                "rows": _axis(shapes, 0),
                "columns": _axis(shapes, 1),
                "depth": _axis(shapes, 2),
                "rates": [_quantity(r, "FLOP/s") for r in rates.matmul[d]],
            }
            for d, shapes in matmul.items()
        },
        "attention": {
            d: {
                "seq_len": _axis(shapes, 1),
                "width": _axis(shapes, 3),
                "rates": [_quantity(r, "FLOP/s") for r in rates.attention[d]],
            }
            for d, shapes in attention.items()
        },
        "elementwise": {kernel: _quantity(rates.rate(kernel), "B/s") for kernel in ELEMENTWISE},
        "collectives": [
            {
                "kind": kind,
                "ranks": ranks,
                "nbytes": [received_nbytes(p) for p in points],
                "seconds": [_quantity(found.collectives[p], "s") for p in points],
            }
            for ranks in sorted({p.ranks for p in found.collectives})
            for kind in COLLECTIVES
            if (points := [p for p in found.collectives if (p.kind, p.ranks) == (kind, ranks)])
        ],
        "collective_load": round(found.collective_load, 3),
    }


def _source(found: Measurements, day: date) -> str:
    ranks = f"{found.ranks_per_host} {'rank' if found.ranks_per_host == 1 else 'ranks'}"
    if found.cores is not None:
        ranks += f" sharing {found.cores} {'core' if found.cores == 1 else 'cores'}"
    hosts = f" on each of {found.hosts} hosts" if found.hosts > 1 else ""
    return f"measured {day} on {found.device[:_LONGEST_NAME]}, {ranks}{hosts}, torch {found.torch_version}"


def _link(found: Measurements) -> dict[str, str]:
    """The link of a ring, worked out from all-gathers of all ranks: (ranks - 1) x latency + bytes / bandwidth."""
    ranks = found.ranks_per_host
    points = [p for p in found.collectives if (p.kind, p.ranks) == ("all_gather", ranks)]
    first, last = ((received_nbytes(p), found.collectives[p]) for p in (points[0], points[-1]))
    # If noise makes the longest message no slower than the shortest, its whole time is taken.
    beyond = last[1] - first[1] if last[1] > first[1] else last[1]
    return {
        "bandwidth": _quantity((last[0] - first[0]) / beyond, "B/s"),
        "latency": _quantity(first[1] / (ranks - 1), "s"),
    }


def _no_link(rates: _Rates) -> dict[str, str]:
    """The link of a single device, which sends nothing: a spec must have one, so it is that to its own memory."""
    return {"bandwidth": _quantity(rates.streaming, "B/s"), "latency": _quantity(rates.overhead, "s")}


def _axis(shapes: Sequence[tuple[int, ...]], axis: int) -> list[int]:
    return sorted({shape[axis] for shape in shapes})


def _quantity(value: float, unit: str) -> str:
    """A quantity with four significant digits and the largest unit prefix that fits."""
    prefixes = _SMALL if unit == "s" else _LARGE
    scale, prefix = next((p for p in prefixes if value >= p[0]), prefixes[-1])
    return f"{float(f'{value / scale:.4g}'):g} {prefix}{unit}"
