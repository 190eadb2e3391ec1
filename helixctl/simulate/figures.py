"""A forecast as the figures of a report."""

from __future__ import annotations

from helixctl.report.figures import Figures
from helixctl.simulate.forecast import Forecast


def figures(found: Forecast) -> Figures:
    """The figures that are predicted."""
    its = found.generation
    return {
        "step_s": found.step_s,
        "tokens_per_s": found.tokens_per_s,
        "latency_s": found.latency_s,
        "exposed_s": found.exposed_s,
        "hidden_s": found.hidden_s,
        "busy_share": found.busy_share,
        "received_nbytes": found.received_nbytes,
        "between_hosts_nbytes": found.between_hosts_nbytes,
        "memory_nbytes": found.memory_nbytes,
        "weight_nbytes": found.weight_nbytes,
        "cache_nbytes": found.cache_nbytes,
        "ttft_s": its.ttft_s if its else None,
        "time_per_output_token_s": its.time_per_output_token_s if its else None,
        "output_tokens_per_s": its.output_tokens_per_s if its else None,
        "tokens_per_s_per_user": its.tokens_per_s_per_user if its else None,
    }
