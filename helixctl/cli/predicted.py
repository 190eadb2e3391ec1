"""What is predicted for a plan, to stand beside what its run measured."""

from __future__ import annotations

from typing import Final

from helixctl.plan import Plan
from helixctl.simulate import Forecast
from helixctl.solve.candidate import simulated, size

_MOST: Final = 20_000  # tasks, which are simulated in about a second


def prediction(plan: Plan, device: str) -> Forecast | None:
    """The forecast of a plan as it ran.

    Args:
        plan: in the dtype of the run.
        device: cpu or cuda, what it ran on.

    Returns:
        None where it ran on other devices than it is for, or a forecast would take long.
    """
    specs = (plan.model, plan.cluster, plan.workload, plan.layout)
    if plan.cluster.device_kind != device or size(*specs) > _MOST:
        return None
    return simulated(*specs).forecast


def beside(measured: str, predicted: str | None) -> str:
    """``210 ms (predicted 190 ms)``; without a prediction what was measured alone."""
    return f"{measured} (predicted {predicted})" if predicted else measured
