"""The statistics of a measured quantity, as reports have them."""

from __future__ import annotations

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12


@with_config(ConfigDict(extra="forbid"))
class Statistics(TypedDict):
    """The statistics of a measured quantity."""

    mean: float
    std: float
    min: float
    p10: float
    p50: float
    p90: float
    p99: float
    max: float
    n: int
