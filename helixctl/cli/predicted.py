"""What is predicted for a plan, to stand beside what its run measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from helixctl.cli.console import table
from helixctl.cli.tables import Table
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


def both(measured: Mapping[str, str], predicted: Mapping[str, str]) -> Table:
    """A row for each figure; what is predicted too has both numbers.

    Args:
        measured: a text by the name of a figure.
        predicted: the same of some of them; empty where there is no prediction.
    """
    rows = table("", ">measured", *([">predicted"] if predicted else []))
    for name, text in measured.items():
        rows.add_row(name, text, *([predicted.get(name, "")] if predicted else []))
    return rows


def beside(measured: str, predicted: str | None) -> str:
    """``210 ms (predicted 190 ms)``; without a prediction what was measured alone."""
    return f"{measured} (predicted {predicted})" if predicted else measured
