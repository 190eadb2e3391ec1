"""A predicted duration, and where the numbers that it rests on come from."""

from __future__ import annotations

from typing import Literal

from helixctl.records import record
from helixctl.units import human_bytes, human_flops, human_seconds

Unit = Literal["", "s", "B/s", "FLOP/s"]


@record
class Constant:
    """A number, its unit, and where it comes from."""

    name: str
    value: float
    source: str
    unit: Unit = ""

    def __str__(self) -> str:
        """``matmul_share 0.832: default, ...``: a line of ``plan -v`` and of ``simulate -v``."""
        number = {
            "": f"{self.value:.3g}",
            "s": human_seconds(self.value),
            "B/s": f"{human_bytes(self.value)}/s",
            "FLOP/s": f"{human_flops(self.value)}/s",
        }[self.unit]
        return f"{self.name} {number}: {self.source}"


@record
class Rule:
    """A table of many numbers, or a rule without one, and where it comes from."""

    name: str
    source: str

    def __str__(self) -> str:
        """Like a constant, without the number."""
        return f"{self.name}: {self.source}"


@record
class Cost:
    """A predicted duration, and what it rests on."""

    seconds: float
    origins: tuple[Constant | Rule, ...]
