"""The query rows of an attention in blocks, so that masks are small and no key out of reach is looked at."""

from __future__ import annotations

from typing import Final, NamedTuple

from helixctl.dag import Attention
from helixctl.dag.reach import first_key
from helixctl.program.constants import CausalMask

MASKED_ROWS: Final = 1024  # query rows that are computed at once under a mask, at most
_FEWEST_ROWS: Final = 128  # that are worth a call of their own


class RowBlock(NamedTuple):
    """Rows that are computed at once: positions in their sequence.

    Attributes:
        first, last: the rows.
        key: the first key that they look at.
        masked: some of them see less of these keys than the kernels' own mask lets them: all up to themselves where
            the rows begin with ``key``, all of them where there is one row.
    """

    first: int
    last: int
    key: int
    masked: bool


def row_blocks(op: Attention, start: int, rows: int) -> list[RowBlock]:
    """The ``rows`` query rows of an attention that begin at ``start``."""
    if not op.causal:
        return [RowBlock(start, start + rows, 0, masked=False)]
    end, chunk = start + rows, op.chunk or start + rows
    found = []
    while start < end:
        last = min(end, start - start % chunk + chunk)
        if op.window is not None and last - first_key(op, start) > op.window:
            last = min(last, start + min(MASKED_ROWS, max(_FEWEST_ROWS, op.window)))
        elif first_key(op, start) < start:
            last = min(last, start + MASKED_ROWS)
        key = first_key(op, start)
        bites = op.window is not None and last - key > op.window
        found.append(RowBlock(start, last, key, masked=last - start > 1 and (key < start or bites)))
        start = last
    return found


def mask_of(op: Attention, start: int, rows: int, dtype: str) -> CausalMask | None:
    """The mask of all blocks of rows that need one: each takes a part of it (``part_of_mask``)."""
    masked = [block for block in row_blocks(op, start, rows) if block.masked]
    if not masked:
        return None
    highest, span = (max(ends) for ends in zip(*((b.last - b.first, b.first - b.key) for b in masked), strict=True))
    return CausalMask(highest, span, op.window, dtype)


def part_of_mask(mask: CausalMask, block: RowBlock) -> tuple[slice, slice]:
    """The rows and the columns of a mask that are those of a block."""
    before = mask.span - (block.first - block.key)
    return slice(0, block.last - block.first), slice(before, before + block.last - block.key)
