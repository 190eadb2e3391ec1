"""splitmix64 (Steele, Lea, Flood 2014) over tensors: words of 64 bits that depend on a state and a number alone.

int64 holds the bits of the unsigned words: torch multiplies and adds modulo 2**64 in it, on CPU and CUDA alike.
"""

from __future__ import annotations

from typing import Final

import torch


def signed(word: int) -> int:
    """The int64 with the bits of a whole number modulo 2**64."""
    word %= 2**64
    return word - 2**64 if word >= 2**63 else word


_GAMMA: Final = signed(0x9E3779B97F4A7C15)
_MIX_1: Final = signed(0xBF58476D1CE4E5B9)
_MIX_2: Final = signed(0x94D049BB133111EB)


def words(state: torch.Tensor | int, number: torch.Tensor) -> torch.Tensor:
    """The words of a generator by their numbers, from 0.

    Args:
        state: int64; of several generators, it and ``number`` are broadcast to one shape.
        number: int64.

    Returns:
        int64, new memory.
    """
    z = (number + 1).mul_(_GAMMA) + state
    z = _xor_shift(z, 30).mul_(_MIX_1)
    z = _xor_shift(z, 27).mul_(_MIX_2)
    return _xor_shift(z, 31)


def shift(z: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift to the right; torch's own keeps the sign."""
    return (z >> bits).bitwise_and_(2 ** (64 - bits) - 1)


def _xor_shift(z: torch.Tensor, bits: int) -> torch.Tensor:
    return shift(z, bits).bitwise_xor_(z)
