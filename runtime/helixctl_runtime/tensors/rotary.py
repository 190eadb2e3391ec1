"""The numbers of the rotary embedding: part of the model's function, float32 whatever the dtype of a run.

docs/formats.md, "rotate", is the definition. The frequencies are those of Hugging Face's transformers to the bit: the
same operations of torch, in float32, and on CPU, where every division is one. Of an angle, which is float32 too, cosine
and sine are the float32 numbers nearest to the exact ones, so that no two machines differ.
"""

from __future__ import annotations

import math

import torch

from helixctl.plan import Interval
from helixctl.spec import LinearScaling, Llama3Scaling, RotarySpec


def frequencies(rotary: RotarySpec, head_dim: int) -> torch.Tensor:
    """The angle by which each pair of dims turns from one position to the next: (head_dim / 2), float32."""
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
    """Cosine and sine at these positions: two of (positions, head_dim / 2), float32."""
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
