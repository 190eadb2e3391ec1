"""Routing: how evenly tokens go to the experts of a mixture, as predictions take it and seeded routers choose."""

from __future__ import annotations

import re
from functools import lru_cache
from math import expm1
from random import Random
from typing import Annotated, Final, NamedTuple

from pydantic import AfterValidator, Field

EVEN: Final = "even"
_POWER_LAW: Final = re.compile(r"power_law\(\s*(\d+(?:\.\d+)?)\s*(?:,\s*seed\s+(\d{1,18})\s*)?\)")
_STEEPEST: Final = 10.0
# Orders of the experts that a mean is taken over: about as many as a model has layers, each with its own.
_ORDERS: Final = 64
_HALVINGS: Final = 100


class PowerLaw(NamedTuple):
    """The i-th of the experts, in an order of their own in every layer, is drawn with a weight of i ** -exponent.

    Attributes:
        exponent: 0 is even; the larger, the more tokens go to a few experts.
        seed: of the orders.
    """

    exponent: float
    seed: int = 0


def power_law(routing: str) -> PowerLaw | None:
    """What a routing's text says; None: even.

    Raises:
        ValueError: it is neither ``even`` nor such as ``power_law(1.2)`` or ``power_law(1.2, seed 3)``.
    """
    if routing == EVEN:
        return None
    found = _POWER_LAW.fullmatch(routing)
    if found is None or float(found[1]) > _STEEPEST:
        message = (
            f"even, or power_law(1.2) with an exponent up to {_STEEPEST:g}; power_law(1.2, seed 3) is another draw"
        )
        raise ValueError(message)
    return PowerLaw(float(found[1]), int(found[2] or 0))


def _canonical(routing: str) -> str:
    law = power_law(routing)
    if law is None or law.exponent == 0:
        return EVEN
    return f"power_law({law.exponent!r}" + (f", seed {law.seed})" if law.seed else ")")


Routing = Annotated[str, Field(max_length=100), AfterValidator(_canonical)]


@lru_cache(maxsize=4096)
def fullest_load(routing: str, count: int, top_k: int, held: int) -> float:
    """How many of the experts of a token, in the mean over tokens, the fullest device has: ``top_k`` at most.

    Of an even routing that is ``top_k * held / count``. Else it is the mean over many orders of the experts, as every
    layer has its own, of the largest load of all devices, each of which has ``held`` experts that follow each other.

    Args:
        routing: how tokens go to experts.
        count: experts of a layer.
        top_k: experts of a token.
        held: experts of a device.
    """
    law = power_law(routing)
    if law is None or held == count:
        return top_k * held / count
    shares, total = chosen_shares(law.exponent, count, top_k), 0.0
    for order in range(_ORDERS):
        mine = _in_order(shares, law.seed, order)
        total += max(sum(mine[first : first + held]) for first in range(0, count, held))
    return round(total / _ORDERS, 9)  # alike on machines whose last bits differ


def layer_shares(law: PowerLaw, layer: int, count: int, top_k: int) -> list[float]:
    """The share of tokens that choose each of the experts of a layer, by their numbers; they add up to ``top_k``."""
    return _in_order(chosen_shares(law.exponent, count, top_k), law.seed, layer % _ORDERS)


def _in_order(shares: list[float], seed: int, order: int) -> list[float]:
    found = shares.copy()
    Random(f"{seed} {order}").shuffle(found)  # noqa: S311  no secret
    return found


def chosen_shares(exponent: float, count: int, top_k: int) -> list[float]:
    """The share of tokens that choose each of ``count`` experts, the most wanted first; they add up to ``top_k``.

    A token draws ``top_k`` different experts, one after the other, with the weights of a power law: those whose
    exponential clocks of these rates ring first. All clocks are read at the moment when ``top_k`` of them have rung in
    the mean, which is exact for many experts.
    """
    weights = [(i + 1) ** -exponent for i in range(count)]
    if top_k == count:
        return [1.0] * count
    early, late = 0.0, 1.0
    while sum(-expm1(-weight * late) for weight in weights) < top_k and late < 2.0**_HALVINGS:
        late *= 2
    for _ in range(_HALVINGS):
        moment = (early + late) / 2
        if sum(-expm1(-weight * moment) for weight in weights) < top_k:
            early = moment
        else:
            late = moment
    return [-expm1(-weight * late) for weight in weights]
