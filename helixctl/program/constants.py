"""Numbers that follow from a program's tasks alone: made once, ahead of the first step, and read in every step."""

from __future__ import annotations

from typing import Literal

from helixctl.plan import Interval
from helixctl.records import record
from helixctl.spec import PositionScalingSpec, RotarySpec


@record
class RotaryTable:
    """Cosines or sines of a rotary embedding: (positions, 1, pairs); ``long``: of its factors for long sequences."""

    function: Literal["cos", "sin"]
    rotary: RotarySpec
    head_dim: int
    positions: Interval
    dtype: str
    long: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its axes."""
        return (self.positions[1] - self.positions[0], 1, (self.rotary.dims or self.head_dim) // 2)


@record
class QueryScales:
    """The numbers that queries are multiplied by: (positions, 1, 1)."""

    scaling: PositionScalingSpec
    positions: Interval
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its axes."""
        return (self.positions[1] - self.positions[0], 1, 1)


@record
class CausalMask:
    """What the query rows of an attention see of the keys before them: 0 or minus infinity.

    It is that of every block of rows: row i sees the key of column c if c - ``span`` is i at most and, where there is a
    ``window``, more than i - ``window``.
    """

    rows: int
    span: int
    window: int | None
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its axes."""
        return (self.rows, self.span + self.rows)


@record
class KeyPositions:
    """The position of every key of one lane of a cache, in the order in which they lie: int64 (cycles x block)."""

    cycles: int
    lanes: int
    lane: int
    block: int
    dtype: str = "int64"

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its axes."""
        return (self.cycles * self.block,)


Constant = RotaryTable | QueryScales | CausalMask | KeyPositions
