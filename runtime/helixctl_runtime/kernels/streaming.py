"""Kernels for CUDA that read and write memory once, whatever the strides, written in Triton.

torch's own are several kernels each for a rotation or a norm that is written in place, and run at a third of the
memory's bandwidth where an operand is a part of the columns of a matrix: the outputs of one product lie side by side.

Operands are seen as (outer, inner, width) with elements of the last dim next to each other. Arithmetic is in float32;
a result is rounded once. Every function gives None where an operand cannot be seen so, or is of another dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
import triton
import triton.language as tl

Step = Callable[[], object]

_DTYPES: Final = (torch.float16, torch.bfloat16, torch.float32)
_BLOCK: Final = 4096  # elements that a program holds, of each operand
_WIDEST_ROW: Final = 2**15  # a norm holds a whole row


@triton.jit
def _norm(
    x, weight, out, eps, outer, inner, xo, xi, oo, oi, width: tl.constexpr, rows: tl.constexpr, wide: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)[:, None]
    place = tl.arange(0, wide)[None, :]
    held = (row < outer * inner) & (place < width)
    first, second = row // inner, row % inner
    value = tl.load(x + first * xo + second * xi + place, mask=held, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, axis=1, keep_dims=True) / width + eps)
    weights = tl.load(weight + place, mask=place < width, other=0.0).to(tl.float32)
    made = value * scale * weights
    tl.store(out + first * oo + second * oi + place, made.to(out.dtype.element_ty), mask=held)


@triton.jit
def _rotate(
    x,
    cos,
    sin,
    out,
    outer,
    inner,
    positions,
    xo,
    xi,
    oo,
    oi,
    half: tl.constexpr,
    rows: tl.constexpr,
    wide: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)[:, None]
    place = tl.arange(0, wide)[None, :]
    held = (row < outer * inner) & (place < half)
    first, second = row // inner, row % inner
    read, write = x + first * xo + second * xi + place, out + first * oo + second * oi + place
    angle = (first % positions) * half + place
    a = tl.load(read, mask=held, other=0.0).to(tl.float32)
    b = tl.load(read + half, mask=held, other=0.0).to(tl.float32)
    c = tl.load(cos + angle, mask=held, other=0.0)
    s = tl.load(sin + angle, mask=held, other=0.0)
    tl.store(write, (a * c - b * s).to(out.dtype.element_ty), mask=held)
    tl.store(write + half, (b * c + a * s).to(out.dtype.element_ty), mask=held)


@triton.jit
def _activated(value, function: tl.constexpr):
    if function == "silu":
        made = value / (1 + tl.exp(-value))
    elif function == "gelu":
        made = 0.5 * value * (1 + tl.erf(value * 0.7071067811865476))
    elif function == "gelu_tanh":
        bent = 0.7978845608028654 * (value + 0.044715 * value * value * value)
        made = value / (1 + tl.exp(-2 * bent))  # 1 + tanh(z) is 2 / (1 + exp(-2 z))
    elif function == "sigmoid":
        made = 1 / (1 + tl.exp(-value))
    elif function == "relu_squared":
        made = tl.where(value < 0, 0.0, value * value)
    else:
        made = tl.where(value < 0, 0.0, value)  # not a maximum, which loses NaN
    return made


@triton.jit
def _activation(x, out, inner, width, xo, xi, oo, oi, function: tl.constexpr, wide: tl.constexpr):
    row, place = tl.program_id(0).to(tl.int64), tl.program_id(1) * wide + tl.arange(0, wide)
    first, second, held = row // inner, row % inner, place < width
    value = tl.load(x + first * xo + second * xi + place, mask=held, other=0.0).to(tl.float32)
    made = _activated(value, function)
    tl.store(out + first * oo + second * oi + place, made.to(out.dtype.element_ty), mask=held)


@triton.jit
def _gated(gate, up, out, inner, width, go, gi, uo, ui, oo, oi, function: tl.constexpr, wide: tl.constexpr):
    row, place = tl.program_id(0).to(tl.int64), tl.program_id(1) * wide + tl.arange(0, wide)
    first, second, held = row // inner, row % inner, place < width
    value = tl.load(gate + first * go + second * gi + place, mask=held, other=0.0).to(tl.float32)
    times = tl.load(up + first * uo + second * ui + place, mask=held, other=0.0).to(tl.float32)
    # Rounded to the dtype in between, as a task's result is.
    made = _activated(value, function).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + first * oo + second * oi + place, (made * times).to(out.dtype.element_ty), mask=held)


@triton.jit
def _multiply(a, b, out, inner, width, ao, ai, bo, bi, oo, oi, wide: tl.constexpr):
    row, place = tl.program_id(0).to(tl.int64), tl.program_id(1) * wide + tl.arange(0, wide)
    first, second, held = row // inner, row % inner, place < width
    left = tl.load(a + first * ao + second * ai + place, mask=held, other=0.0).to(tl.float32)
    right = tl.load(b + first * bo + second * bi + place, mask=held, other=0.0).to(tl.float32)
    tl.store(out + first * oo + second * oi + place, (left * right).to(out.dtype.element_ty), mask=held)


@triton.jit
def _combine(made, place, gates, out, hidden, each: tl.constexpr, wide: tl.constexpr):
    token, dim = tl.program_id(0).to(tl.int64), tl.program_id(1) * wide + tl.arange(0, wide)
    held = dim < hidden
    total = tl.zeros((wide,), dtype=tl.float32)
    for which in range(each):
        gate = tl.load(gates + token * each + which)
        row = tl.load(place + token * each + which)
        # A row that nobody computed may hold anything.
        value = tl.load(made + row * hidden + dim, mask=held, other=0.0).to(tl.float32)
        total += gate * tl.where(gate == 0, 0.0, value)
    tl.store(out + token * hidden + dim, total.to(out.dtype.element_ty), mask=held)


def combine(made: torch.Tensor, place: torch.Tensor, gates: torch.Tensor, out: torch.Tensor) -> None:
    """Rows of what experts made, scaled and added: out[t] = sum over j of gates[t, j] * made[place[t, j]].

    Args:
        made: (N, H) contiguous; a row whose gate is 0 is not looked at.
        place: (T, K) int64.
        gates: (T, K) float32.
        out: (T, H) contiguous; the sum is in float32, in the order of j, and rounded once.
    """
    hidden = made.shape[1]
    parts, wide = _parts(hidden)
    _combine[out.shape[0], parts](made, place, gates, out, hidden, gates.shape[1], wide)


def norm(x: torch.Tensor, weight: torch.Tensor, eps: float, out: torch.Tensor) -> Step | None:
    """Root-mean-square norm over the last dim."""
    seen = _seen(x, out)
    if seen is None or not _fits(x, weight, out) or x.shape[-1] > _WIDEST_ROW or not weight.is_contiguous():
        return None
    (outer, inner), (xo, xi), (oo, oi) = seen
    rows, wide = _block(x.shape[-1])
    grid, warps = (triton.cdiv(outer * inner, rows),), 16 if wide > _BLOCK else 4
    return lambda: _norm[grid](
        x, weight, out, eps, outer, inner, xo, xi, oo, oi, x.shape[-1], rows, wide, num_warps=warps
    )


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor) -> Step | None:
    """Turn dim i with dim i + D/2: x and out (batch, seq, heads, D), cos and sin (seq, 1, D/2) float32."""
    seen = _seen(x, out)
    tables = all(t.is_contiguous() and t.dtype == torch.float32 for t in (cos, sin))
    if seen is None or not _fits(x, out) or not tables:
        return None
    (outer, inner), (xo, xi), (oo, oi) = seen
    half = x.shape[-1] // 2
    rows, wide = _block(half)
    grid = (triton.cdiv(outer * inner, rows),)
    return lambda: _rotate[grid](x, cos, sin, out, outer, inner, x.shape[1], xo, xi, oo, oi, half, rows, wide)


def activation(function: str, x: torch.Tensor, out: torch.Tensor) -> Step | None:
    """An elementwise function by its name in ``Activation``; its "gelu" is exact, by the error function."""
    seen = _seen(x, out)
    if seen is None or not _fits(x, out):
        return None
    (outer, inner), (xo, xi), (oo, oi) = seen
    width, (parts, wide) = x.shape[-1], _parts(x.shape[-1])
    grid = (outer * inner, parts)
    return lambda: _activation[grid](x, out, inner, width, xo, xi, oo, oi, function, wide)


def gated(function: str, gate: torch.Tensor, up: torch.Tensor, out: torch.Tensor) -> Step | None:
    """``out = f(gate) * up``, f as of ``activation``; all of one shape. f(gate) is rounded to the dtype of ``out``."""
    return _of_two(_gated, gate, up, out, function)


def multiply(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> Step | None:
    """``out = a * b``; all of one shape."""
    return _of_two(_multiply, a, b, out)


def _of_two(kernel: Any, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, *constants: str) -> Step | None:
    """A kernel of two tensors of one shape, an element at a time; None where it does not take them as they lie."""
    seen = _seen(a, b, out)
    if seen is None or not _fits(a, b, out):
        return None
    (outer, inner), (ao, ai), (bo, bi), (oo, oi) = seen
    width, (parts, wide) = a.shape[-1], _parts(a.shape[-1])
    grid = (outer * inner, parts)
    return lambda: kernel[grid](a, b, out, inner, width, ao, ai, bo, bi, oo, oi, *constants, wide)


def _fits(*tensors: torch.Tensor) -> bool:
    return all(t.dtype in _DTYPES for t in tensors)


def _block(width: int) -> tuple[int, int]:
    """Rows that a program holds, and the power of two that holds one's elements."""
    wide: int = triton.next_power_of_2(width)
    return max(1, _BLOCK // wide), wide


def _parts(width: int) -> tuple[int, int]:
    """Programs that share a row, and the elements that each holds of it."""
    wide = min(_BLOCK, triton.next_power_of_2(width))
    return triton.cdiv(width, wide), wide


def _seen(*tensors: torch.Tensor) -> list[Any] | None:
    """(outer, inner) of all, then each one's two strides; None where they are not (outer, inner, width) in memory."""
    shape = tensors[0].shape
    if len(shape) < 2 or not shape.numel() or any(t.shape != shape or t.stride(-1) != 1 for t in tensors):  # noqa: PLR2004
        return None
    inner = shape[-2]
    found: list[Any] = [(shape[:-1].numel() // max(1, inner), inner)]
    for tensor in tensors:
        try:
            leading = tensor.select(-1, 0).view(-1, inner)
        except RuntimeError:
            return None
        found.append((leading.stride(0), leading.stride(1)))
    return found
