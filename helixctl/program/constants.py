"""Numbers that follow from a program's tasks alone: made once, ahead of the first step, and read in every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from helixctl.dag import Attention
from helixctl.plan import Interval
from helixctl.spec import RotarySpec

MASKED_ROWS: Final = 1024  # query rows that are computed at once under a mask, which is as large as its block of rows


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class CausalMask:
    """What query rows that begin at ``start`` see of the keys before them: 0 or minus infinity."""

    start: int
    rows: int
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its axes."""
        return mask_shape(self.start, self.rows)


@dataclass(frozen=True, slots=True)
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


Constant = RotaryTable | CausalMask | KeyPositions


def needs_mask(op: Attention, start: int, rows: int) -> bool:
    """Whether a causal attention needs a mask of its own: its query rows are several, and not the first ones."""
    return op.causal and start > 0 and rows > 1


def blocks_of_rows(start: int, rows: int) -> list[Interval]:
    """Rows in blocks for which a mask is small, and from whose end on no key is read."""
    return [(first, min(first + MASKED_ROWS, start + rows)) for first in range(start, start + rows, MASKED_ROWS)]


def mask_shape(start: int, rows: int) -> tuple[int, int]:
    """The mask of the last block of rows, which holds that of any other: (rows of a block, keys up to its end)."""
    block = min(rows, MASKED_ROWS)
    return (block, blocks_of_rows(start, rows)[-1][0] + block)
