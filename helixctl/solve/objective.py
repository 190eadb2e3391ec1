"""What the search makes as small as can be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from helixctl.plan import Layout
from helixctl.simulate import Forecast
from helixctl.solve.bound import Bound

Objective = Literal["throughput", "latency", "ttft", "tpot", "memory"]
Key = tuple[float, ...]

OBJECTIVES: Final = get_args(Objective)
OF_A_GENERATION: Final[tuple[Objective, ...]] = ("ttft", "tpot")


def key(objective: Objective, forecast: Forecast) -> Key:
    """What to compare forecasts by; less is better. Sums of the same terms in another order are equal."""
    step = _rounded(forecast.step_s)
    match objective:
        case "throughput":
            return (step,)
        case "latency":
            return (_rounded(forecast.latency_s), step)
        case "ttft" | "tpot":
            its = forecast.generation
            if its is None:
                raise TypeError  # ``decide`` asks for a generation
            return (_rounded(its.ttft_s if objective == "ttft" else its.time_per_output_token_s), step)
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
        case "ttft":
            return (_rounded(bound.ttft_s * (1 - 1e-9)), step)
        case "tpot":
            return (_rounded(bound.time_per_output_token_s * (1 - 1e-9)), step)
        case "memory":
            return (bound.memory_nbytes, step)


# Cuts, the least wanted first: slices exchange in every layer, in one of several ways (the plainest first); stages need
# microbatches to be busy; groups gather in every layer; turns only change an order. More ways of experts come before
# fewer, as each expert is then cut less.
_CHOICES: Final = (
    "combine",
    "gather_order",
    "reduction_dtype",
    "placement",
    "residual",
    "expert_data",
    "latent_prefill",
    "key_prefill",
)
_DEFAULTS: Final = tuple((name, Layout.model_fields[name].default) for name in _CHOICES)
_SLICINGS: Final = {name: n for n, name in enumerate(get_args(Layout.model_fields["slicing"].annotation))}


def simplicity(layout: Layout) -> tuple[object, ...]:
    """Of layouts that are equally good the first in this order is taken: fewer cuts, then defaults.

    No two layouts of a search are one in it.
    """
    return simplicity_of(layout.__dict__)


def simplicity_of(at: Mapping[str, Any]) -> tuple[object, ...]:
    """The same, by the values of a layout's axes."""
    cuts = (
        at["slices"],
        _SLICINGS[at["slicing"]],
        at["pipeline"],
        at["groups"],
        at["microbatches"],
        at["interleave"],
        -at["experts"],
    )
    unequal = (at["stages"] or "", at["batch_shares"] or "", at["group_shares"] or "")
    flags = [at[name] != default for name, default in _DEFAULTS]
    return (*cuts, *flags, at["placement"], *unequal, -at["data"], at["expert_data"])


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.9g}")
