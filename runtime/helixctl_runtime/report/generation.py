"""The report of a generation: what was made, how long it took, and what each rank holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from statistics import fmean
from typing import Any

import torch

from helixctl.dag import Dag
from helixctl.report.seconds import with_seconds
from helixctl_runtime.generate.loop import Generated
from helixctl_runtime.report.environment import environment
from helixctl_runtime.report.figures import of_a_generation
from helixctl_runtime.report.result import statistics_of


@dataclass(frozen=True, slots=True)
class RankGeneration:
    """What one rank made and measured.

    Attributes:
        made: the tokens of its sequences, and the times of its steps.
        communication_s: over all steps of the prefill, and over all decode steps: time in communication and waiting
            for it that no computation hides.
        cache_nbytes: of the KV cache that it holds.
        weight_nbytes, buffer_nbytes: memory that was allocated for weights, and for all else but the cache.
        peak_nbytes: largest resident set (cpu) or allocation (cuda).
        weights_read_nbytes: what it asked for of the files that hold the weights.
    """

    rank: int
    made: Generated
    communication_s: tuple[float, ...]
    cache_nbytes: int
    weight_nbytes: int
    buffer_nbytes: int
    peak_nbytes: int
    weights_read_nbytes: int = 0


def generation(
    dags: Sequence[Dag],
    ranks: Sequence[RankGeneration],
    *,
    prompt_tokens: Sequence[int],
    seed: int,
    started_at: str,
    source: dict[str, Any] | None = None,
    weights: dict[str, Any] | None = None,
    cuda_graph: bool = False,
) -> dict[str, Any]:
    """The report as JSON-ready data.

    Args:
        dags: of the prefill and of the decode step.
        ranks: what each measured, in their order.
        prompt_tokens: how many each prompt has.
        seed: of weights that come from no file.
        started_at: when the run began, ISO 8601.
        source: the file of the prompts; None where they come from no file.
        weights: what was read, by file; None where they are seeded.
        cuda_graph: the decode steps were replayed from a CUDA graph.
    """
    plan = dags[0].plan
    tokens = torch.stack([rank.made.tokens for rank in ranks]).amax(0)
    # A step of a rank ends with its slowest; replicas may be done earlier than others.
    ttft_s = max(rank.made.prefill_s for rank in ranks)
    decode_s = [max(times) for times in zip_longest(*(rank.made.decode_s for rank in ranks), fillvalue=0.0)]
    made, total_s = int((tokens >= 0).sum()), ttft_s + sum(decode_s)
    prefill_comm, decode_comm = (fmean(each) for each in zip(*(rank.communication_s for rank in ranks), strict=True))
    report = {
        "report": "helixctl run",
        "generation": True,
        "format_version": "1.2",
        "simulated": False,
        "plan_digest": dags[0].plan_digest,
        "dag_digests": {dag.step: dag.digest for dag in dags},
        "model": plan.model.name,
        "layout": plan.layout.model_dump(),
        "workload": plan.workload.model_dump(),
        "dtype": plan.model.dtype,
        "seed": seed,
        "figures": of_a_generation(
            ttft_s=ttft_s,
            decode_s=decode_s,
            made=made,
            exposed_s=prefill_comm + decode_comm,
            memory=(
                max(r.weight_nbytes + r.buffer_nbytes + r.cache_nbytes for r in ranks),
                max(r.weight_nbytes for r in ranks),
                max(r.cache_nbytes for r in ranks),
            ),
        ),
        "sequences": len(tokens),
        "prompt_tokens": list(prompt_tokens),
        "output_tokens": made,
        "ttft_ms": ttft_s * 1e3,
        "time_per_output_token_ms": statistics_of([s * 1e3 for s in decode_s]) if decode_s else None,
        "output_tokens_per_s": made / total_s,
        "output_tokens_per_s_per_user": len(decode_s) / sum(decode_s) if decode_s else None,
        "communication": {
            "prefill_exposed_ms": prefill_comm * 1e3,
            "decode_exposed_ms": decode_comm / len(decode_s) * 1e3 if decode_s else None,
        },
        "cache": {
            "cache_nbytes_per_rank": max(rank.cache_nbytes for rank in ranks),
            "cache_nbytes": sum(rank.cache_nbytes for rank in ranks),
        },
        "memory": {"allocated_nbytes": max(r.weight_nbytes + r.buffer_nbytes + r.cache_nbytes for r in ranks)},
        "cuda_graph": cuda_graph,
        "input": source,
        "weights": weights and _weights(weights, [rank.weights_read_nbytes for rank in ranks]),
        "ranks": [_rank(rank) for rank in ranks],
        "tokens": tokens.tolist(),
        "environment": environment(),
        "started_at": started_at,
    }
    return with_seconds(report)


def _weights(account: dict[str, Any], read: Sequence[int]) -> dict[str, Any]:
    return account | {"read_nbytes_per_rank": max(read), "read_nbytes": sum(read)}


def _rank(rank: RankGeneration) -> dict[str, Any]:
    return {name: value for name, value in asdict(rank).items() if name not in {"made", "communication_s"}}
