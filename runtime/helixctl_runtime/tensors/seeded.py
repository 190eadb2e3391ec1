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
LEANING: Final = "hidden"  # the dim along which numbers lean


def seeded_numbers(
    tensor: Tensor,
    region: Sequence[Interval],
    seed: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """The seeded numbers of a region of a tensor.

    Every number is exact in float32 before the one rounding to ``dtype``; those of a tensor that leans are made in
    float64.

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
    # A number that leans depends on its whole row along hidden, so that this is cut last.
    axes = sorted(range(target.dim()), key=lambda i: tensor.lean is not None and tensor.dims[i] == LEANING)
    axis = next(i for i in axes if target.shape[i] > 1)
    start, stop = region[axis]
    half = (stop - start) // 2
    for place, interval in ((slice(0, half), (start, start + half)), (slice(half, None), (start + half, stop))):
        part = target[(slice(None),) * axis + (place,)]
        _fill(part, tensor, [*region[:axis], interval, *region[axis + 1 :]], seed)


def _numbers(
    tensor: Tensor, region: Sequence[Interval], seed: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    if tensor.lean is not None:
        return _leaning(tensor, region, seed, device).to(dtype)
    offset, scale = tensor.init or (0.0, 1.0)
    z = _words(tensor, region, seed, device)
    if dtype == torch.int64:
        return shift(z, 32).mul_(int(scale)).bitwise_right_shift_(32).add_(int(offset))
    uniform = shift(z, 48).to(torch.float32).sub_(2.0**15).mul_(2.0**-15)  # 65,536 steps of [-1, 1)
    return uniform.mul_(scale).add_(offset).to(dtype)


def _leaning(tensor: Tensor, region: Sequence[Interval], seed: int, device: torch.device) -> torch.Tensor:
    """In float64: without what a row along hidden has of the pattern +, -, +, - by chance, and with its lean of it."""
    offset, scale = tensor.init or (0.0, 1.0)
    axis = tensor.dims.index(LEANING)
    size, rows = tensor.shape[axis], [*region]
    rows[axis] = (0, size)
    steps = shift(_words(tensor, rows, seed, device), 48).sub_(2**15)
    along = [1] * len(region)
    along[axis] = size
    signs = (1 - 2 * (torch.arange(size, device=device) % 2)).view(along)
    # Whole numbers, so that the sum is the same in any order.
    chance = (steps * signs).sum(axis, keepdim=True).to(torch.float64).div_(size)
    lean = torch.tensor(tensor.lean, dtype=torch.float64, device=device)
    if lean.numel() > 1:
        across = tensor.dims.index("expert")
        lean = lean[slice(*region[across])].view([-1 if i == across else 1 for i in range(len(region))])
    numbers = (steps - chance * signs).mul_(2.0**-15 * scale).add_(offset).add_(lean * signs)
    return numbers.narrow(axis, region[axis][0], region[axis][1] - region[axis][0])


def _words(tensor: Tensor, region: Sequence[Interval], seed: int, device: torch.device) -> torch.Tensor:
    """The words z of a region, as docs/formats.md names them."""
    stride = prod(tensor.shape)
    position = torch.zeros((), dtype=torch.int64, device=device)
    for axis, ((start, stop), size) in enumerate(zip(region, tensor.shape, strict=True)):
        stride //= size
        index = torch.arange(start, stop, dtype=torch.int64, device=device) * stride
        position = position.unsqueeze(-1) + index if axis else index
    key = int.from_bytes(hashlib.sha256(f"{seed}:{tensor.name}".encode()).digest()[:8], "big")
    return words(signed(key), position)
