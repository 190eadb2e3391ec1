"""One matrix product of one dtype, by the library that is the faster one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

_ROWS: Final = 4
_WEIGHTS: Final = 2**20
_MADE: Final = 2**22  # numbers that oneDNN makes at once, 16 MB: they are in no arena


def product(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, *, repeated: bool = True) -> Callable[[], object]:
    """``out = x @ weight``: (T, K) x (K, N) -> (T, N), all of one dtype.

    torch gives float32 products of a CPU to MKL, which takes up to 2.5 times as long as oneDNN on a processor that is
    not Intel's. oneDNN takes longer to begin, so that it has the products of 4 rows or more with 2**20 weights or more:
    tests/benchmarks/products.py. It writes into memory of its own, so that many rows are multiplied some at a time.

    Args:
        x: the rows; where they do not lie one after the other oneDNN would copy them, and torch multiplies.
        weight: the columns.
        out: the result.
        repeated: whether the call is made in every step. oneDNN keeps what it has compiled for every number of
            rows, so that torch has the products whose rows change.
    """
    if not (repeated and by_onednn(x, weight)):
        return lambda: torch.mm(x, weight, out=out)
    turned = weight.t()
    multiply = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001  torch.compile's own; there is no public name
    rows = max(_ROWS, _MADE // weight.shape[1])
    blocks = list(zip(x.split(rows), out.split(rows), strict=True))

    def step() -> None:
        for some, made in blocks:
            made.copy_(multiply(some, turned, None, "none", [], ""))

    return step


def by_onednn(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether oneDNN computes ``x @ weight``: told by the operands alone, so that equal ranks get equal bits."""
    able = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    large = x.shape[0] >= _ROWS and weight.numel() >= _WEIGHTS
    return able and large and x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous()
