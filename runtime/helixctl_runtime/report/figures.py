"""What a run measured as the figures of a report."""

from __future__ import annotations

from collections.abc import Sequence

from helixctl.dag import Dag
from helixctl.report.figures import Figures, no_figures


def received_nbytes(dags: Sequence[Dag]) -> int:
    """Bytes that the rank receives in the dags' collectives that receives most."""
    received = [0] * len(dags[0].order)
    for dag in dags:
        for task in dag.tasks:
            for rank in task.ranks if task.is_collective else ():
                received[rank] += task.nbytes
    return max(received)


def of_a_pass(
    dag: Dag, *, step_s: float, exposed_s: float, hidden_s: float, busy_share: float, memory: tuple[int, int]
) -> Figures:
    """The figures of a pass.

    Args:
        dag: what ran.
        step_s: mean step time.
        exposed_s: mean over ranks of the communication that nothing hides.
        hidden_s: that something hides.
        busy_share: of the step in which a rank computes.
        memory: bytes of the rank with most, and of the weights of the rank with most of these.
    """
    return no_figures() | {
        "step_s": step_s,
        "tokens_per_s": dag.plan.workload.tokens / step_s,
        "exposed_s": exposed_s,
        "hidden_s": hidden_s,
        "busy_share": busy_share,
        "received_nbytes": received_nbytes([dag]),
        "memory_nbytes": memory[0],
        "weight_nbytes": memory[1],
        "cache_nbytes": 0,
    }


def of_a_generation(
    *, ttft_s: float, decode_s: Sequence[float], made: int, exposed_s: float, memory: tuple[int, int, int]
) -> Figures:
    """The figures of a generation.

    Args:
        ttft_s: until the last sequence has its first token.
        decode_s: of each decode step.
        made: tokens of all sequences.
        exposed_s: communication that nothing hides, in all steps.
        memory: bytes of the rank with most, of the weights and of the cache of the rank with most of these.
    """
    total = ttft_s + sum(decode_s)
    return no_figures() | {
        "step_s": total,
        "tokens_per_s": made / total,
        "exposed_s": exposed_s,
        "memory_nbytes": memory[0],
        "weight_nbytes": memory[1],
        "cache_nbytes": memory[2],
        "ttft_s": ttft_s,
        "time_per_output_token_s": sum(decode_s) / len(decode_s) if decode_s else None,
        "output_tokens_per_s": made / total,
        "tokens_per_s_per_user": len(decode_s) / sum(decode_s) if decode_s else None,
    }
