"""The report of a run: measured numbers with their names (docs/glossary.md) and the environment they come from."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from helixctl import __version__
from helixctl.dag import Dag


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of one measured quantity."""

    mean: float
    std: float
    min: float
    p50: float
    p90: float
    p99: float
    max: float
    n: int

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Statistics:
        """Statistics of at least one number; percentiles by linear interpolation."""
        x = torch.tensor(numbers, dtype=torch.float64)
        p50, p90, p99 = torch.quantile(x, torch.tensor([0.5, 0.9, 0.99], dtype=torch.float64)).tolist()
        std = float(x.std()) if len(numbers) > 1 else 0.0
        return cls(float(x.mean()), std, float(x.min()), p50, p90, p99, float(x.max()), len(numbers))


@dataclass(frozen=True, slots=True)
class RankMeasurement:
    """What one rank measured.

    Attributes:
        step_s: every measured step.
        communication_s: over all measured steps, time in communication and waiting for it that no computation hides.
        weight_nbytes, buffer_nbytes: memory that the executor took for weights and for all other values.
        peak_nbytes: largest resident set (cpu) or allocation (cuda).
        error, unpartitioned_error: relative errors of the output against float64, where checked.
    """

    rank: int
    step_s: list[float]
    communication_s: float
    weight_nbytes: int
    buffer_nbytes: int
    peak_nbytes: int
    attention: list[str]
    error: float | None = None
    unpartitioned_error: float | None = None
    tolerance: float | None = None


def levels(dag: Dag) -> list[dict[str, Any]]:
    """Tasks and bytes by level: what one rank receives (the one that receives most) and all ranks together."""
    tasks: dict[str, int] = defaultdict(int)
    received: dict[str, list[int]] = defaultdict(lambda: [0] * len(dag.order))
    for task in dag.tasks:
        tasks[task.level] += 1
        for rank in task.ranks if task.is_collective else ():
            received[task.level][rank] += task.nbytes
    return [
        {
            "level": level,
            "tasks": count,
            "received_nbytes_per_rank": max(received[level], default=0),
            "received_nbytes": sum(received[level]),
        }
        for level, count in tasks.items()
    ]


def report(dag: Dag, ranks: Sequence[RankMeasurement], *, seed: int, warmup: int, started_at: str) -> dict[str, Any]:
    """The report as JSON-ready data. The time of a step is that of its slowest rank."""
    steps = [max(times) for times in zip(*(r.step_s for r in ranks), strict=True)]
    work = dag.plan.workload
    mean_step = statistics.fmean(steps)
    communication = statistics.fmean(r.communication_s for r in ranks) / len(steps)
    return {
        "report": "helixctl run",
        "format_version": "1.0",
        "simulated": False,
        "plan_digest": dag.plan_digest,
        "dag_digest": dag.digest,
        "model": dag.plan.model.name,
        "layout": dag.plan.layout.model_dump(),
        "workload": work.model_dump(),
        "dtype": dag.plan.model.dtype,
        "seed": seed,
        "warmup": warmup,
        "iters": len(steps),
        "tokens_per_s": work.tokens / mean_step,
        "step_time_ms": asdict(Statistics.of([s * 1e3 for s in steps])),
        "communication_per_step_ms": communication * 1e3,
        "sync_overhead_per_token_ms": communication * 1e3 / work.seq_len,
        "levels": levels(dag),
        "attention_kernels": ranks[0].attention,
        "ranks": [
            {
                "rank": r.rank,
                "step_time_ms_mean": statistics.fmean(r.step_s) * 1e3,
                "communication_per_step_ms": r.communication_s / len(steps) * 1e3,
                "weight_nbytes": r.weight_nbytes,
                "buffer_nbytes": r.buffer_nbytes,
                "peak_nbytes": r.peak_nbytes,
            }
            for r in ranks
        ],
        "check": _check(ranks) if ranks[0].error is not None else None,
        "environment": environment(),
        "started_at": started_at,
    }


def _check(ranks: Sequence[RankMeasurement]) -> dict[str, Any]:
    """Passed where finite and within the tolerance; JSON has no infinity, so that is null."""
    error, plain, tolerance = max(r.error or 0.0 for r in ranks), ranks[0].unpartitioned_error, ranks[0].tolerance
    numbers = {"error": error, "unpartitioned_error": plain, "tolerance": tolerance}
    passed = tolerance is not None and math.isfinite(error) and error <= tolerance
    return {"passed": passed} | {k: v if v is not None and math.isfinite(v) else None for k, v in numbers.items()}


def environment() -> dict[str, Any]:
    """Versions and hardware."""
    cuda = torch.cuda.is_available()
    return {
        "helixctl": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": torch.cuda.get_device_name(0) if cuda else None,
    }


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
