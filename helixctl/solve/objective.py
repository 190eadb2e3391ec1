"""What the search makes as small as can be."""

from __future__ import annotations

from typing import Final, Literal, get_args

from helixctl.plan import Layout
from helixctl.simulate import Forecast
from helixctl.solve.bound import Bound

Objective = Literal["throughput", "latency", "memory"]
Key = tuple[float, ...]

OBJECTIVES: Final = ("throughput", "latency", "memory")


def key(objective: Objective, forecast: Forecast) -> Key:
    """What to compare forecasts by; less is better. Sums of the same terms in another order are equal."""
    step = _rounded(forecast.step_s)
    match objective:
        case "throughput":
            return (step,)
        case "latency":
            return (_rounded(forecast.latency_s), step)
        case "memory":
            return (forecast.memory_nbytes, step)


def least(objective: Objective, bound: Bound) -> Key:
    """A key that none of a layout's forecasts is below."""
    step = _rounded(bound.step_s * (1 - 1e-9))
    match objective:
        case "throughput":
            return (step,)
        case "latency":
            return (_rounded(bound.latency_s * (1 - 1e-9)), step)
        case "memory":
            return (bound.memory_nbytes, step)


def simplicity(layout: Layout) -> tuple[object, ...]:
    """Of layouts that are equally good the first in this order is taken: fewer cuts, then defaults."""
    fields = type(layout).model_fields
    choices = ("combine", "gather_order", "reduction_dtype", "placement")
    other = tuple(getattr(layout, name) != fields[name].default for name in choices)
    slicing = get_args(fields["slicing"].annotation).index(layout.slicing)
    cuts = (
        layout.slices,
        slicing,
        layout.pipeline,
        layout.groups,
        layout.microbatches,
        layout.interleave,
        -layout.experts,
    )
    return (*cuts, *other, layout.placement)


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.9g}")
