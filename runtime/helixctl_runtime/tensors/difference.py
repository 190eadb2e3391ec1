"""Whether two stored tensors hold the same numbers in all rows; they are read in pieces, each piece once."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import torch

from helixctl_runtime.tensors.tensor_files import FLOATS, TensorFiles

_PIECE_NBYTES = 1 << 26
RowShare = tuple[int, int]
ALL_ROWS: RowShare = (0, 1)


def difference(files: TensorFiles, first: str, second: str, share: RowShare = ALL_ROWS) -> str | None:
    """Where two tensors differ, in words; None if they do not.

    Args:
        files: the files that hold both.
        first: the name of one tensor.
        second: the name of the other.
        share: ``(i, n)``: compare the i-th of n parts of the rows, so that n ranks together read every row once.
    """
    shape, dtypes = files.shape(first), {files.dtype(first), files.dtype(second)}
    if shape != files.shape(second):
        return f"its shape is {list(shape)}, not {list(files.shape(second))}"
    if not dtypes <= FLOATS.keys():
        return f"one of them is {min(dtypes - FLOATS.keys())}"
    for start, stop in _pieces(shape, share):
        box = [(start, stop), *((0, size) for size in shape[1:])]
        one, other = files.part(first, box), files.part(second, box)
        if not _same_bytes(one, other) and (rows := _rows(one, other)):
            return f"row {start + rows[0]} differs"
    return None


def _pieces(shape: tuple[int, ...], share: RowShare) -> Iterator[tuple[int, int]]:
    which, count = share
    first, last = shape[0] * which // count, shape[0] * (which + 1) // count
    step = max(1, _PIECE_NBYTES // (8 * prod(shape[1:]) or 1))
    for start in range(first, last, step):
        yield start, min(start + step, last)


def _same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether both are equal bit by bit, which is three times as fast to compare as the numbers."""
    a, b = (x.contiguous().view(torch.uint8).numpy() for x in (one, other))
    return one.dtype == other.dtype and np.array_equal(a, b)


def _rows(one: torch.Tensor, other: torch.Tensor) -> list[int]:
    """The rows that differ; NaN equals NaN."""
    wide = torch.promote_types(one.dtype, other.dtype)  # holds the numbers of both
    a, b = one.to(wide), other.to(wide)
    if torch.equal(a, b):
        return []
    differs = (a != b) & ~(a.isnan() & b.isnan())
    return [int(row) for row in differs.flatten(1).any(1).nonzero().flatten()]
