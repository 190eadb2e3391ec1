"""The numbers of the rotary embedding: part of the model's function, float32 whatever the dtype of a run.

docs/formats.md, "rotate", is the definition. The frequencies equal those of Hugging Face's transformers bit by bit: the
same operations of torch, in float32, and on CPU, which divides exactly. Angles are float32 too; cosine and sine are
the float32 numbers nearest to the exact ones, so that all machines agree.
"""

from __future__ import annotations

import math

import torch

from helixctl.plan import Interval
from helixctl.spec import LinearScaling, Llama3Scaling, LongRopeScaling, ProportionalScaling, RotarySpec, YarnScaling


def frequencies(rotary: RotarySpec, head_dim: int, *, long: bool = False) -> torch.Tensor:
    """The angle by which each pair of dims turns from one position to the next.

    Args:
        rotary: the rotary embedding of the model.
        head_dim: the dims of a head.
        long: whether the factors for long sequences hold, where it has such.

    Returns:
        float32 of shape (pairs,), in radians.
    """
    dims = rotary.dims or head_dim
    exponents = torch.arange(0, dims, 2, dtype=torch.float32) / dims
    powers = rotary.theta**exponents
    found = 1.0 / powers
    match rotary.scaling:
        case LinearScaling():
            return found / rotary.scaling.factor
        case Llama3Scaling():
            return _llama3(found, rotary.scaling)
        case ProportionalScaling(pairs=pairs, factor=factor):
            found[pairs:] = 0
            return found / factor
        case YarnScaling():
            return _yarn(powers, rotary.scaling, rotary.theta)
        case LongRopeScaling(short_factors=short, long_factors=longer):
            return 1.0 / (torch.tensor(longer if long else short, dtype=torch.float32) * powers)
        case _:
            return found


def rotations(
    rotary: RotarySpec, head_dim: int, positions: Interval, *, long: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of the angles at some positions, times the attention factor of the scaling, if it has one.

    Args:
        rotary: the rotary embedding of the model.
        head_dim: the dims of a head.
        positions: the first position, and the one after the last.
        long: as in ``frequencies``.

    Returns:
        Two float32 tensors of shape (positions, pairs).
    """
    angles = torch.arange(*positions, dtype=torch.float32).unsqueeze(1) * frequencies(rotary, head_dim, long=long)
    exact = angles.double()
    factor = rotary.scaling.attention_factor if isinstance(rotary.scaling, YarnScaling | LongRopeScaling) else 1.0
    return exact.cos().float() * factor, exact.sin().float() * factor


def _yarn(powers: torch.Tensor, scaling: YarnScaling, theta: float) -> torch.Tensor:
    pairs = len(powers)

    def pair_of(waves: float) -> float:
        """The pair of dims whose frequency has ``waves`` waves in the original context."""
        return pairs * math.log(scaling.original_seq_len / (waves * 2 * math.pi)) / math.log(theta)

    low, high = pair_of(scaling.beta_fast), pair_of(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * pairs - 1)
    high += 0.001 if low == high else 0
    kept = 1 - ((torch.arange(pairs, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return 1.0 / (scaling.factor * powers) * (1 - kept) + 1.0 / powers * kept


def _llama3(found: torch.Tensor, scaling: Llama3Scaling) -> torch.Tensor:
    low, high, length = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_seq_len
    wavelength = 2 * math.pi / found
    scaled = torch.where(wavelength > length / low, found / scaling.factor, found)
    smooth = (length / wavelength - low) / (high - low)
    blended = (1 - smooth) * scaled / scaling.factor + smooth * scaled
    between = ~(wavelength < length / high) * ~(wavelength > length / low)
    return torch.where(between, blended, scaled)
