"""The report of a run: measured numbers with their names (docs/glossary.md) and the environment they come from."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from helixctl.dag import Dag
from helixctl.dag.span import Span
from helixctl.report.seconds import with_seconds
from helixctl.report.statistics import Statistics
from helixctl_runtime.check.outputs import Check
from helixctl_runtime.measure.expert_loads import Counts, beside_the_law, law_of
from helixctl_runtime.measure.measure import StepTimes
from helixctl_runtime.measure.step_trace import merge_traces, times_by_kind, typical_step
from helixctl_runtime.report.environment import environment
from helixctl_runtime.report.figures import of_a_pass


def statistics_of(numbers: Sequence[float]) -> Statistics:
    """The statistics of one or more numbers; percentiles are interpolated linearly."""
    x = torch.tensor(numbers, dtype=torch.float64)
    p10, p50, p90, p99 = torch.quantile(x, torch.tensor([0.1, 0.5, 0.9, 0.99], dtype=torch.float64)).tolist()
    return {
        "mean": float(x.mean()),
        "std": float(x.std()) if len(numbers) > 1 else 0.0,
        "min": float(x.min()),
        "p10": p10,
        "p50": p50,
        "p90": p90,
        "p99": p99,
        "max": float(x.max()),
        "n": len(numbers),
    }


@dataclass(frozen=True, slots=True)
class RankMeasurement:
    """What one rank measured of one dag.

    Attributes:
        rank: the rank.
        measured: its steps.
        weight_nbytes, buffer_nbytes: bytes that the executor allocated for weights, and for everything else.
        proved_nbytes: the bytes of both together by the proof of memory.
        peak_nbytes: the largest resident set (CPU) or allocation (CUDA) before any check.
        attention: the fused attention kernels that ran.
        check: the check of its part of the output; None without ``--check``.
        finite: its part of the output has neither NaN nor infinity.
        weights_read_nbytes: bytes that it read from weight files; 0 if the weights are seeded.
        choices: where an uneven routing was planned for, the tokens of its gates by expert, by value.
    """

    rank: int
    measured: StepTimes
    weight_nbytes: int
    buffer_nbytes: int
    proved_nbytes: int
    peak_nbytes: int
    attention: list[str]
    check: Check | None = None
    finite: bool = True
    weights_read_nbytes: int = 0
    choices: Counts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a run of one dag: the report as JSON-ready data, and the spans of one traced step."""

    report: dict[str, Any]
    spans: tuple[Span, ...]


def levels(dag: Dag) -> list[dict[str, Any]]:
    """Tasks and received bytes by level: of the rank that receives most, and of all ranks together."""
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


def result(
    dag: Dag,
    ranks: Sequence[RankMeasurement],
    *,
    seed: int,
    warmup: int,
    started_at: str,
    cuda_graph: bool = False,
    weights: dict[str, Any] | None = None,
) -> Result:
    """The report, and the spans of the traced step of median duration.

    Args:
        dag: the dag that was run.
        ranks: what each rank measured.
        seed: the seed of weights and inputs.
        warmup: steps before the measurement.
        started_at: the time of the start, in ISO 8601.
        cuda_graph: the measured steps were replayed from a CUDA graph; traced steps are always walked.
        weights: what was read from which files (``TensorSource.account``); None if the weights are seeded.
    """
    traced = [merge_traces(dag, steps) for steps in zip(*(r.measured.traced for r in ranks), strict=True)]
    typical = typical_step(traced)
    steps = _steps(ranks)
    exposed_ms = statistics.fmean(r.measured.communication_s for r in ranks) / len(steps) * 1e3
    hidden_s = statistics.median(each.hidden_s for each in traced)
    busy_share = statistics.median(each.busy_share for each in traced)
    work = dag.plan.workload
    report = {
        "report": "helixctl run",
        "format_version": "1.2",
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
        "trace_steps": len(traced),
        "figures": of_a_pass(
            dag,
            step_s=statistics.fmean(steps),
            exposed_s=exposed_ms / 1e3,
            hidden_s=hidden_s,
            busy_share=busy_share,
            memory=(max(r.weight_nbytes + r.buffer_nbytes for r in ranks), max(r.weight_nbytes for r in ranks)),
        ),
        "tokens_per_s": work.tokens / statistics.fmean(steps),
        "step_time_ms": statistics_of([s * 1e3 for s in steps]),
        "communication": {
            "exposed_ms": exposed_ms,
            "hidden_ms": hidden_s * 1e3,
        },
        "sync_overhead_per_token_ms": exposed_ms / work.seq_len,
        "busy_share": busy_share,
        "weights": weights and _weights(weights, ranks),
        "levels": levels(dag),
        "kinds": times_by_kind(dag, traced),
        "memory": {
            "proved_nbytes": max(r.proved_nbytes for r in ranks),
            "allocated_nbytes": max(r.weight_nbytes + r.buffer_nbytes for r in ranks),
        },
        "attention_kernels": ranks[0].attention,
        "cuda_graph": cuda_graph,
        "ranks": [_rank(r) for r in ranks],
        "output_finite": all(r.finite for r in ranks),
        "check": check_report([r.check for r in ranks if r.check is not None]),
        "environment": environment(),
        "started_at": started_at,
    }
    if law_of(dag):
        report["experts"] = beside_the_law(dag, [r.choices for r in ranks])
    return Result(with_seconds(report), typical.spans)


def _steps(ranks: Sequence[RankMeasurement]) -> list[float]:
    """The seconds of every step on its slowest rank."""
    return [max(times) for times in zip(*(r.measured.step_s for r in ranks), strict=True)]


def _rank(rank: RankMeasurement) -> dict[str, Any]:
    step_s = rank.measured.step_s
    return {
        "rank": rank.rank,
        "step_time_ms_mean": statistics.fmean(step_s) * 1e3,
        "exposed_ms": rank.measured.communication_s / len(step_s) * 1e3,
        "weights_read_nbytes": rank.weights_read_nbytes,
        "weight_nbytes": rank.weight_nbytes,
        "buffer_nbytes": rank.buffer_nbytes,
        "peak_nbytes": rank.peak_nbytes,
    }


def _weights(account: dict[str, Any], ranks: Sequence[RankMeasurement]) -> dict[str, Any]:
    read = [rank.weights_read_nbytes for rank in ranks]
    return account | {"read_nbytes_per_rank": max(read), "read_nbytes": sum(read)}


def check_report(ranks: Sequence[Check]) -> dict[str, Any] | None:
    """The check of the rank with the largest error; infinity becomes null, because JSON has no infinity."""
    if not ranks:
        return None
    worst = replace(ranks[0], error=max(r.error for r in ranks))
    passed = math.isfinite(worst.error) and worst.error <= worst.tolerance
    numbers = {k: v if math.isfinite(v) else None for k, v in asdict(worst).items() if k != "not_finite"}
    return {"passed": passed} | numbers | {"not_finite": list(worst.not_finite)}
