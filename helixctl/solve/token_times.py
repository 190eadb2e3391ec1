"""How the time per output token grows with the context: the decode steps that half, 90 % and 99 % of all are below."""

from __future__ import annotations

from helixctl.plan import Plan
from helixctl.records import record
from helixctl.solve.candidate import step_forecast


@record
class TokenTimes:
    """Percentiles of the time per output token over the decode steps of a static batch, in seconds.

    Attributes:
        p50_s: half of the steps take no longer.
        p90_s: nine of ten.
        p99_s: 99 of 100.
        contexts: the tokens that a sequence attends to in the first decode step, and in the last.
    """

    p50_s: float
    p90_s: float
    p99_s: float
    contexts: tuple[int, int]


def token_times(plan: Plan) -> TokenTimes | None:
    """Predict them for a plan of a generation; None where it has no decode step.

    A longer context takes no less time, so the percentile of the times is the time at that percentile of the contexts.
    The mean, which ``Generation`` has, is the step at the mean context.
    """
    work = plan.workload
    steps = (work.output_len or 1) - 1
    if not steps:
        return None

    def at(percent: int) -> float:
        before = -(-(steps - 1) * percent // 100)  # tokens in the cache beyond the prompt
        cached = work.seq_len + before
        return step_forecast(plan.model, plan.cluster, work, plan.layout, "decode", cached).step_s

    return TokenTimes(at(50), at(90), at(99), (work.seq_len + 1, work.seq_len + steps))
