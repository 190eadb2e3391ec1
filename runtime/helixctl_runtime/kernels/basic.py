"""One function per op that writes into its output; attention and experts have files of their own.

All arithmetic is in float32 or wider; a result is rounded once, to the dtype of its output. On CPU a half-precision
matrix product is computed from float32 copies (torch's half-precision product there is many times slower and rounds
more often).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch
import torch.nn.functional as F  # noqa: N812  its usual name

from helixctl_runtime.dtypes import HALF

Step = Callable[[], object]


def copy(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Step:
    """Copy the second of each pair into the first."""

    def step() -> None:
        for target, source in pairs:
            target.copy_(source)

    return step


def embed(ids: torch.Tensor, table: torch.Tensor, first: int, out: torch.Tensor, *, whole: bool) -> Step:
    """Rows of a table: ids (T) int64, table (V, H) -> out (T, H); zero for ids that are not in first, ..., first + V.

    ``whole``: the table has them all.
    """
    if whole:
        return lambda: torch.index_select(table, 0, ids, out=out)

    def step() -> None:
        row = ids - first
        elsewhere = (row < 0) | (row >= table.shape[0])
        torch.index_select(table, 0, row.masked_fill_(elsewhere, 0), out=out)
        out.masked_fill_(elsewhere.unsqueeze(1), 0)

    return step


def last_token(x: torch.Tensor, length: torch.Tensor, start: int, out: torch.Tensor, *, whole: bool) -> Step:
    """The last real token of every sequence: x (B, S, H), length (B) int64 -> out (B, H), rows ``length - 1`` of x.

    ``x`` begins at row ``start`` of the sequences; where it is not all of them (``whole``) and has not the row, zero.
    """
    rows, count = x.flatten(0, 1), x.shape[1]
    before = torch.arange(x.shape[0], device=x.device).mul_(count)  # rows ahead of a sequence
    place, row = torch.empty_like(before), torch.empty_like(before)
    absent = torch.empty_like(before, dtype=torch.bool)

    def step() -> None:
        torch.sub(length, 1 + start, out=row)
        if not whole:
            torch.ne(row, row.clamp(0, count - 1), out=absent)
            row.clamp_(0, count - 1)
        torch.add(before, row, out=place)
        torch.index_select(rows, 0, place, out=out)
        if not whole:
            out.masked_fill_(absent.unsqueeze(1), 0)

    return step


def linear(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> Step:
    """``out = x @ weight``: (T, K) x (K, N) -> (T, N). ``out`` may be wider than the operands (a partial sum)."""
    if x.device.type == "cpu" and x.dtype in HALF:
        wide_x, wide_out = torch.empty_like(x, dtype=torch.float32), accumulator(out)
        wide_weight = weight.float()

        def half() -> None:
            wide_x.copy_(x)
            torch.mm(wide_x, wide_weight, out=wide_out)
            if wide_out is not out:
                out.copy_(wide_out)

        return half
    if out.dtype != x.dtype:
        # A CUDA product that keeps its float32 accumulator.
        return lambda: torch.ops.aten.mm.dtype_out(x, weight, out.dtype, out=out)
    return lambda: torch.mm(x, weight, out=out)


def norm(x: torch.Tensor, weight: torch.Tensor, eps: float, out: torch.Tensor) -> Step:
    """Root-mean-square norm over the last dim."""
    if x.is_cuda:
        kernels = streaming()
        once = kernels and kernels.norm(x, weight, eps, out)
        return once or (lambda: out.copy_(F.rms_norm(x, weight.shape, weight, eps)))
    wide_weight, wide_out = weight.to(wide_of(x.dtype)), accumulator(out)
    scale = x.shape[-1] ** -0.5

    def step() -> None:
        wide = x.to(wide_out.dtype)
        inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).mul_(scale).square_().add_(eps).rsqrt_()
        torch.mul(wide, inverse, out=wide_out).mul_(wide_weight)
        if wide_out is not out:
            out.copy_(wide_out)

    return step


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor) -> Step:
    """Turn dim i with dim i + D/2: x and out (batch, seq, heads, D), cos and sin (seq, 1, D/2), float32 or wider.

    ``out`` may be ``x``.
    """
    if x.is_cuda and (kernels := streaming()) and (once := kernels.rotate(x, cos, sin, out)):
        return once
    turn = turning(x, out)
    return lambda: turn(cos, sin)


def turning(x: torch.Tensor, out: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """``rotate`` in torch's own operations, for cos and sin that are known in the step; they are broadcast over x."""
    lower, upper = x.chunk(2, dim=-1)
    out_lower, out_upper = out.chunk(2, dim=-1)
    over = _begins_at(out) == _begins_at(x)
    if out.dtype not in HALF:

        def whole(cos: torch.Tensor, sin: torch.Tensor) -> None:
            held = lower.clone() if over else lower
            torch.mul(lower, cos, out=out_lower).addcmul_(upper, sin, value=-1)
            torch.mul(upper, cos, out=out_upper).addcmul_(held, sin)

        return whole

    def half(cos: torch.Tensor, sin: torch.Tensor) -> None:
        held = lower.clone() if over else lower
        wide = lower * cos
        out_lower.copy_(wide.addcmul_(upper, sin, value=-1))
        torch.mul(upper, cos, out=wide)
        out_upper.copy_(wide.addcmul_(held, sin))

    return half


def activation(function: str, x: torch.Tensor, out: torch.Tensor) -> Step:
    """An elementwise function; torch computes it in float32 and rounds once."""
    if x.is_cuda and (kernels := streaming()) and (once := kernels.activation(function, x, out)):
        return once
    aten = torch.ops.aten
    if function == "gelu":
        return lambda: aten.gelu.out(x, out=out)
    if function == "silu":
        return lambda: aten.silu.out(x, out=out)
    return lambda: torch.clamp_min(x, 0, out=out)


def add(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> Step:
    """``out = a + b`` in the wider dtype of the two, rounded once; b may lack leading dims (a bias)."""
    return lambda: torch.add(a, b, out=out)


def multiply(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> Step:
    """``out = a * b``, rounded once."""
    if a.is_cuda and (kernels := streaming()) and (once := kernels.multiply(a, b, out)):
        return once
    return lambda: torch.mul(a, b, out=out)


def _begins_at(t: torch.Tensor) -> tuple[torch.UntypedStorage, int | torch.SymInt]:
    """The memory that a view is of, and its first byte there; known also where there is none (tests without a GPU)."""
    return t.untyped_storage(), t.storage_offset() * t.element_size()


@cache
def streaming() -> ModuleType | None:
    """The kernels of ``streaming.py``; None without Triton, which comes with torch for CUDA on Linux."""
    if find_spec("triton") is None:
        return None
    from helixctl_runtime.kernels import streaming as found

    return found


def wide_of(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a result is computed before it is rounded."""
    return torch.float32 if dtype in HALF else dtype


def accumulator(out: torch.Tensor) -> torch.Tensor:
    """Memory for a result in the dtype in which it is computed: ``out`` itself where that is its dtype."""
    return torch.empty(out.shape, dtype=torch.float32, device=out.device) if out.dtype in HALF else out
