"""The numbers of the rotary embedding: part of the model's function, float32 whatever the dtype of a run.

docs/formats.md, "rotate", is the definition. The frequencies equal those of Hugging Face's transformers bit by bit: the
same operations of torch, in float32, and on CPU, which divides exactly. Angles are float32 too; cosine and sine are
the float32 numbers nearest to the exact ones, so that all machines agree.
"""

from __future__ import annotations

import math

import torch

from helixctl.plan import Interval
from helixctl.spec import LinearScaling, Llama3Scaling, RotarySpec


def frequencies(rotary: RotarySpec, head_dim: int) -> torch.Tensor:
    """The angle by which each pair of dims turns from one position to the next.

    Args:
        rotary: the rotary embedding of the model.
        head_dim: the dims of a head.

    Returns:
        float32 of shape (head_dim / 2,), in radians.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    found = 1.0 / (rotary.theta**exponents)
    match rotary.scaling:
        case LinearScaling():
            return found / rotary.scaling.factor
        case Llama3Scaling():
            return _llama3(found, rotary.scaling)
        case _:
            return found


def rotations(rotary: RotarySpec, head_dim: int, positions: Interval) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of the angles at some positions.

    Args:
        rotary: the rotary embedding of the model.
        head_dim: the dims of a head.
        positions: the first position, and the one after the last.

    Returns:
        Two float32 tensors of shape (positions, head_dim / 2).
    """
    angles = torch.arange(*positions, dtype=torch.float32).unsqueeze(1) * frequencies(rotary, head_dim)
    exact = angles.double()
    return exact.cos().float(), exact.sin().float()


def _llama3(found: torch.Tensor, scaling: Llama3Scaling) -> torch.Tensor:
    low, high, length = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_seq_len
    wavelength = 2 * math.pi / found
    scaled = torch.where(wavelength > length / low, found / scaling.factor, found)
    smooth = (length / wavelength - low) / (high - low)
    blended = (1 - smooth) * scaled / scaling.factor + smooth * scaled
    between = ~(wavelength < length / high) * ~(wavelength > length / low)
    return torch.where(between, blended, scaled)
