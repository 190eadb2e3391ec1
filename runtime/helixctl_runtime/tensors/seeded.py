"""Weights, inputs and token ids that depend on the seed, the tensor's name and the position only, never on the plan.

docs/formats.md, "Seeded numbers", is the definition: splitmix64 (Steele, Lea, Flood 2014) over the flat position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import prod
from typing import Final

import torch

from helixctl.dag import Tensor
from helixctl.plan import Interval
from helixctl_runtime.splitmix64 import shift, signed, words

# Numbers that are made at once: intermediate results take ten times the memory of float16 numbers. A CPU makes them
# several times as fast where these stay in its cache; a GPU wants few large kernels.
_MOST_AT_ONCE: Final = 2**24
_MOST_IN_A_CACHE: Final = 2**16


def seeded_numbers(
    tensor: Tensor,
    region: Sequence[Interval],
    seed: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """The seeded numbers of a region of a tensor.

    Every number is exact in float32 before the one rounding to ``dtype``.

    Args:
        tensor: the tensor; ``init`` gives the offset and the scale of its numbers.
        region: an interval for each of its dims.
        seed: the seed of the run.
        dtype: the dtype of the result. int64 gives whole numbers in [offset, offset + scale), such as token ids.
        device: the device of the result.

    Returns:
        The numbers, in the tensor's order of dims.
    """
    numbers = torch.empty([stop - start for start, stop in region], dtype=dtype, device=device)
    _fill(numbers, tensor, region, seed)
    return numbers


def _fill(target: torch.Tensor, tensor: Tensor, region: Sequence[Interval], seed: int) -> None:
    """Fill the target part by part."""
    if target.numel() <= (_MOST_IN_A_CACHE if target.device.type == "cpu" else _MOST_AT_ONCE):
        target.copy_(_numbers(tensor, region, seed, target.dtype, target.device))
        return
    axis = next(i for i, size in enumerate(target.shape) if size > 1)
    start, stop = region[axis]
    half = (stop - start) // 2
    for place, interval in ((slice(0, half), (start, start + half)), (slice(half, None), (start + half, stop))):
        part = target[(slice(None),) * axis + (place,)]
        _fill(part, tensor, [*region[:axis], interval, *region[axis + 1 :]], seed)


def _numbers(
    tensor: Tensor, region: Sequence[Interval], seed: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    offset, scale = tensor.init or (0.0, 1.0)
    stride = prod(tensor.shape)
    position = torch.zeros((), dtype=torch.int64, device=device)
    for axis, ((start, stop), size) in enumerate(zip(region, tensor.shape, strict=True)):
        stride //= size
        index = torch.arange(start, stop, dtype=torch.int64, device=device) * stride
        position = position.unsqueeze(-1) + index if axis else index
    key = int.from_bytes(hashlib.sha256(f"{seed}:{tensor.name}".encode()).digest()[:8], "big")
    z = words(signed(key), position)
    if dtype == torch.int64:
        return shift(z, 32).mul_(int(scale)).bitwise_right_shift_(32).add_(int(offset))
    uniform = shift(z, 48).to(torch.float32).sub_(2.0**15).mul_(2.0**-15)  # 65,536 steps of [-1, 1)
    return uniform.mul_(scale).add_(offset).to(dtype)
