"""The figures of one layout, the same keys in every report: seconds, bytes, shares, tokens per second."""

from __future__ import annotations

from typing import cast

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12


@with_config(ConfigDict(extra="forbid"))
class Figures(TypedDict):
    """What is predicted or measured; null what a workload does not have, or a run does not measure.

    Attributes:
        step_s: a step; of a generation that is predicted all of it.
        tokens_per_s: tokens of a step by its time.
        latency_s: until a sequence's output is complete, mean over the sequences.
        exposed_s, hidden_s: communication of a rank that no computation hides, and that one hides.
        busy_share: of the step in which a rank computes.
        received_nbytes, between_hosts_nbytes: of the rank that receives most.
        memory_nbytes, weight_nbytes, cache_nbytes: of the fullest device.
        ttft_s: of a generation, until every sequence has its first token.
        time_per_output_token_s: mean over the decode steps.
        output_tokens_per_s: of all sequences, the prefill included.
        tokens_per_s_per_user: of one sequence once it has its first token.
    """

    step_s: float | None
    tokens_per_s: float | None
    latency_s: float | None
    exposed_s: float | None
    hidden_s: float | None
    busy_share: float | None
    received_nbytes: int | None
    between_hosts_nbytes: int | None
    memory_nbytes: int | None
    weight_nbytes: int | None
    cache_nbytes: int | None
    ttft_s: float | None
    time_per_output_token_s: float | None
    output_tokens_per_s: float | None
    tokens_per_s_per_user: float | None


def no_figures() -> Figures:
    """Every key, without a number."""
    return cast("Figures", dict.fromkeys(Figures.__annotations__))
