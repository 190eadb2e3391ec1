"""Numbers of fewer bits than a byte, as files pack them: unpacked to one element each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

WORD_BITS: Final = 32
# AWQ: the place of each column of eight in a word of eight nibbles.
AWQ_PLACES: Final = (0, 4, 1, 5, 2, 6, 3, 7)
# e2m1: a sign, two bits of exponent, one of mantissa.
_FLOAT4: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
FLOAT4: Final = torch.tensor([*_FLOAT4, *(-x for x in _FLOAT4)], dtype=torch.float32)
# Of float32: where its exponent stands, and the bits of 2 to the -127, which has none.
_MANTISSA_BITS: Final = 23
_LEAST: Final = 1 << 22
_NO_NUMBER: Final = 255


def unpacked(words: torch.Tensor, bits: int, dim: int, places: Sequence[int] | None = None) -> torch.Tensor:
    """The unsigned numbers of ``bits`` bits in words of 32, along an axis, lowest bits first.

    Args:
        words: int32; of its axis ``dim`` every word holds 32 / bits numbers that follow each other.
        bits: of a number.
        dim: the axis.
        places: of the numbers of a word, where each lies in it; None: in their order.

    Returns:
        int32, its axis ``dim`` 32 / bits times as long.
    """
    each = WORD_BITS // bits
    shifts = torch.tensor(places or range(each), dtype=torch.int32) * bits
    along = words.movedim(dim, -1).unsqueeze(-1)
    numbers = (along >> shifts) & ((1 << bits) - 1)  # the mask takes away what the sign has filled in
    return numbers.flatten(-2).movedim(-1, dim)


def float4(nibbles: torch.Tensor) -> torch.Tensor:
    """The e2m1 numbers in bytes, two a byte, the lower four bits first: float32, the last axis twice as long."""
    both = torch.stack([nibbles & 0xF, nibbles >> 4], dim=-1).flatten(-2)
    return FLOAT4[both.int()]


def power_of_two(exponents: torch.Tensor) -> torch.Tensor:
    """Scales of e8m0, in bytes, as float32: 2 to the (byte - 127); 255 is not a number."""
    bits = torch.where(exponents == 0, _LEAST, exponents.int() << _MANTISSA_BITS)
    return bits.view(torch.float32).masked_fill(exponents == _NO_NUMBER, torch.nan)
