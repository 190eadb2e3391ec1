"""One function per op that writes into its output; attention and experts have files of their own.

All arithmetic is in float32 or wider; a result is rounded once, to the dtype of its output. On CPU a half-precision
matrix product is computed from float32 copies (torch's half-precision product there is many times slower and rounds
more often).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.util import find_spec
from types import ModuleType
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812  its usual name

from helixctl.dag import Norm, NormBySums, Scale
from helixctl_runtime.dtypes import HALF
from helixctl_runtime.kernels.product import product

Step = Callable[[], object]
_HELD: Final = 2**16  # elements that a CPU's cache holds from one call to the next


def copy(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Step:
    """Copy the second of each pair into the first."""

    def step() -> None:
        for target, source in pairs:
            target.copy_(source)

    return step


def in_turn(*steps: Step) -> Step:
    """One call for several."""

    def step() -> None:
        for each in steps:
            each()

    return step


def embed(
    ids: torch.Tensor, table: torch.Tensor, first: int, out: torch.Tensor, multiplier: float = 1.0, *, whole: bool
) -> Step:
    """Rows of a table: ids (T) int64, table (V, H) -> out (T, H); zero for ids that are not in first, ..., first + V.

    ``whole``: the table has them all. A row is multiplied by ``multiplier`` and rounded.
    """
    rows = _rows(ids, table, first, out, whole=whole)
    if multiplier == 1:
        return rows

    def scaled() -> None:
        rows()
        out.mul_(multiplier)

    return scaled


def _rows(ids: torch.Tensor, table: torch.Tensor, first: int, out: torch.Tensor, *, whole: bool) -> Step:
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


def linear(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, *, repeated: bool = True) -> Step:
    """``out = x @ weight``: (T, K) x (K, N) -> (T, N). ``out`` may be wider than the operands (a partial sum).

    ``repeated``: whether the call is made in every step (``product``).
    """
    if x.device.type == "cpu" and x.dtype in HALF:
        wide_x, wide_out = torch.empty_like(x, dtype=torch.float32), accumulator(out)
        multiply = product(wide_x, weight.float(), wide_out, repeated=repeated)

        def half() -> None:
            wide_x.copy_(x)
            multiply()
            if wide_out is not out:
                out.copy_(wide_out)

        return half
    if out.dtype != x.dtype:
        # A CUDA product that keeps its float32 accumulator.
        return lambda: torch.ops.aten.mm.dtype_out(x, weight, out.dtype, out=out)
    return product(x, weight, out, repeated=repeated)


def head_linear(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> Step:
    """A product in every head alone; of x the first dims, as many as the weight sums over.

    Args:
        x: (..., heads, D) contiguous; rounded to the weight's dtype.
        weight: (heads, K, N), K at most D.
        out: (..., heads, N), or (..., heads, N + D - K), where the rest of x follows; its dtype may be wider.
    """
    heads, depth, width = weight.shape
    rows = x.numel() // (heads * x.shape[-1])
    first, rest = x[..., :depth].reshape(rows, heads, depth).transpose(0, 1), x[..., depth:]
    made = out[..., :width]
    behind = out[..., width:] if out.shape[-1] > width else None
    half = x.device.type == "cpu" and weight.dtype in HALF
    wide_weight = weight.float() if half else weight

    def step() -> None:
        own = first.to(weight.dtype).to(wide_weight.dtype)
        if out.is_cuda and out.dtype != weight.dtype:
            # A CUDA product that keeps its float32 accumulator.
            found = torch.ops.aten.bmm.dtype(own, wide_weight, out.dtype)
        else:
            found = torch.bmm(own, wide_weight)
        made.copy_(found.transpose(0, 1).view(made.shape))
        if behind is not None:
            behind.copy_(rest)

    return step


def join(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> Step:
    """The dims of a, (batch, seq, heads, A) or (batch, seq, A), then those of b, (batch, seq, 1, B), in every head."""
    first, second = out.split([a.shape[-1], b.shape[-1]], dim=-1)
    pairs = [(first, a if a.dim() == out.dim() else a.unsqueeze(2)), (second, b)]
    return copy([(target, source.expand_as(target)) for target, source in pairs])


def norm(op: Norm, x: torch.Tensor, weights: Sequence[torch.Tensor], out: torch.Tensor) -> Step:
    """A norm over the last dim, then a product with a weight and the sum with a bias, if there are any.

    Args:
        op: which norm.
        x: (..., D).
        weights: the weight, and the bias, with the last dims of ``x``.
        out: like ``x``; may be ``x`` itself.
    """
    if op.function == "layer_norm":
        return _layer_norm(op, x, weights, out)
    if x.is_cuda and weights and weights[0].dim() == 1 and not op.unit_offset and len(weights) == 1:
        kernels = streaming()
        once = kernels and kernels.norm(x, weights[0], op.eps, out)
        return once or (lambda: out.copy_(F.rms_norm(x, weights[0].shape, weights[0], op.eps)))
    return _rms_norm(op, x, weights, out)


def _rms_norm(op: Norm, x: torch.Tensor, weights: Sequence[torch.Tensor], out: torch.Tensor) -> Step:
    (wide_weight, bias), wide_out, eps = wide_weights(weights, unit_offset=op.unit_offset), accumulator(out), op.eps
    scale = x.shape[-1] ** -0.5

    def step() -> None:
        wide = x.to(wide_out.dtype)
        inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).mul_(scale).square_().add_(eps).rsqrt_()
        torch.mul(wide, inverse, out=wide_out)
        if wide_weight is not None:
            wide_out.mul_(wide_weight)
        if bias is not None:
            wide_out.add_(bias)
        if wide_out is not out:
            out.copy_(wide_out)

    return step


def _layer_norm(op: Norm, x: torch.Tensor, weights: Sequence[torch.Tensor], out: torch.Tensor) -> Step:
    (weight, bias), wide, width = wide_weights(weights, unit_offset=op.unit_offset), wide_of(x.dtype), x.shape[-1:]

    def step() -> None:
        made = F.layer_norm(x.to(wide), width, eps=op.eps)
        if weight is not None:
            made.mul_(weight)
        if bias is not None:
            made.add_(bias)
        out.copy_(made)

    return step


def wide_weights(
    weights: Sequence[torch.Tensor], *, unit_offset: bool
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The weight of a norm (1 + weight with ``unit_offset``) and its bias, in float32 or wider; None: there is none."""
    wide = [weight.to(wide_of(weight.dtype)) for weight in weights]
    if unit_offset and wide:
        wide[0] = wide[0] + 1
    return (wide[0] if wide else None, wide[1] if wide[1:] else None)


def square_sums(q: torch.Tensor, k: torch.Tensor, share: float, out: torch.Tensor) -> Step:
    """Sums of squares: q and k (B, S, heads, D) -> out (B, S, 2), that of k times ``share``."""

    def step() -> None:
        for place, x in enumerate((q, k)):
            wide = x.to(out.dtype)
            torch.sum(wide.square(), dim=(2, 3), out=out[..., place])
        if share != 1:
            out[..., 1].mul_(share)

    return step


def norm_by_sums(
    op: NormBySums, x: torch.Tensor, sums: torch.Tensor, numel: int, weight: torch.Tensor, out: torch.Tensor
) -> Step:
    """Root-mean-square norm: x (B, S, heads, D), sums of squares (B, S) of ``numel`` elements, weight (heads, D)."""
    wide_weight = weight.to(wide_of(weight.dtype)) + op.unit_offset

    def step() -> None:
        inverse = (sums / numel).add_(op.eps).rsqrt_()[..., None, None]
        out.copy_(x.to(inverse.dtype).mul(inverse).mul_(wide_weight))

    return step


def scale(op: Scale, x: torch.Tensor, out: torch.Tensor) -> Step:
    """``out = x * multiplier``, or with a cap ``cap * tanh(x * multiplier / cap)``, rounded once; may be over ``x``."""
    cap, wide = op.cap, wide_of(x.dtype)
    if cap is None:
        return lambda: torch.mul(x, op.multiplier, out=out)
    return lambda: out.copy_(x.to(wide).mul(op.multiplier / cap).tanh_().mul_(cap))


def rotate(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    out: torch.Tensor,
    last: int | None = None,
    *,
    interleaved: bool = False,
) -> Step:
    """Turn pairs of the first R dims: x and out (batch, seq, heads, D), cos and sin (seq, 1, R/2), float32 or wider.

    Dim i is turned with dim i + R/2, or 2i with 2i + 1 (``interleaved``); other dims stay. ``out`` may be ``x``.
    ``last``: the last dims of a head, this number of them, are taken for all; those before stay.
    """
    if last is not None and last < x.shape[-1]:
        turned = rotate(x[..., -last:], cos, sin, out[..., -last:], interleaved=interleaved)
        return turned if begins_at(out) == begins_at(x) else in_turn(copy([(out[..., :-last], x[..., :-last])]), turned)
    plain = not interleaved and 2 * cos.shape[-1] == x.shape[-1]
    if plain and x.is_cuda and (kernels := streaming()) and (once := kernels.rotate(x, cos, sin, out)):
        return once
    turn = turning(x, out, 2 * cos.shape[-1], interleaved=interleaved)
    return lambda: turn(cos, sin)


def turning(
    x: torch.Tensor, out: torch.Tensor, dims: int, *, interleaved: bool = False
) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """``rotate`` in torch's own operations, for cos and sin that are known in the step; they are broadcast over x."""
    (lower, upper), (out_lower, out_upper) = (_pairs(t[..., :dims], interleaved=interleaved) for t in (x, out))
    over = begins_at(out) == begins_at(x)
    if not over and dims < x.shape[-1]:
        turn, rest = turning(x[..., :dims], out[..., :dims], dims, interleaved=interleaved), slice(dims, None)

        def with_rest(cos: torch.Tensor, sin: torch.Tensor) -> None:
            turn(cos, sin)
            out[..., rest].copy_(x[..., rest])

        return with_rest
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


def _pairs(x: torch.Tensor, *, interleaved: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The first and the second dims of the pairs that are turned."""
    if interleaved:
        return x[..., 0::2], x[..., 1::2]
    lower, upper = x.chunk(2, dim=-1)
    return lower, upper


def activation(function: str, x: torch.Tensor, out: torch.Tensor) -> Step:
    """An elementwise function; torch computes it in float32 and rounds once."""
    if x.is_cuda and (kernels := streaming()) and (once := kernels.activation(function, x, out)):
        return once
    aten = torch.ops.aten
    steps: dict[str, Step] = {
        "gelu": lambda: aten.gelu.out(x, out=out),
        "gelu_tanh": lambda: aten.gelu.out(x, approximate="tanh", out=out),
        "silu": lambda: aten.silu.out(x, out=out),
        "sigmoid": lambda: torch.sigmoid(x, out=out),
        "relu_squared": lambda: out.copy_(x.to(wide_of(x.dtype)).clamp_min(0).square_()),
        "relu": lambda: torch.clamp_min(x, 0, out=out),
    }
    return steps[function]


def activated(function: str, x: torch.Tensor) -> torch.Tensor:
    """An elementwise function of new memory, in the dtype of ``x``."""
    match function:
        case "gelu_tanh":
            return F.gelu(x, approximate="tanh")
        case "relu_squared":
            return F.relu(x).square_()
        case _:
            made: torch.Tensor = getattr(F, function)(x)
            return made


def gated(function: str, gate: torch.Tensor, up: torch.Tensor, out: torch.Tensor) -> Step:
    """``out = f(gate) * up``, f as of ``activation``.

    All are of one dtype, to which f(gate) is rounded as well: the bits are those of ``activation``, then ``multiply``.
    ``out`` may be ``gate``, or ``up``.
    """
    if gate.is_cuda and (kernels := streaming()) and (once := kernels.gated(function, gate, up, out)):
        return once
    if begins_at(out) != begins_at(up):
        return in_turn(activation(function, gate, out), lambda: out.mul_(up))
    if gate.is_cuda:
        return lambda: out.mul_(activated(function, gate))
    return _gated_by_parts(function, gate, out)


def _gated_by_parts(function: str, gate: torch.Tensor, out: torch.Tensor) -> Step:
    """``out *= f(gate)``, some rows at a time: memory for all of f(gate), new in every step, would take longer."""
    axis = max(range(max(1, gate.dim() - 1)), key=gate.shape.__getitem__)
    rows = max(1, _HELD * gate.shape[axis] // max(1, gate.numel()))
    gates, outs = (t.split(rows, dim=axis) for t in (gate, out))
    held, steps = torch.empty(gates[0].shape, dtype=gate.dtype), list[Step]()
    for part, its_out in zip(gates, outs, strict=True):
        made = held.narrow(axis, 0, part.shape[axis])
        steps += [activation(function, part, made), partial(its_out.mul_, made)]
    return in_turn(*steps)


def add(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, multiplier: float = 1.0) -> Step:
    """``out = a + multiplier * b`` in the wider dtype of the two, rounded once; b may lack leading dims (a bias)."""
    if multiplier != 1 and a.dtype in HALF and b.dtype in HALF:
        return lambda: out.copy_(torch.add(a.float(), b, alpha=multiplier))
    return lambda: torch.add(a, b, alpha=multiplier, out=out)


def multiply(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> Step:
    """``out = a * b``, rounded once."""
    if a.is_cuda and (kernels := streaming()) and (once := kernels.multiply(a, b, out)):
        return once
    return lambda: torch.mul(a, b, out=out)


def multiply_by(x: torch.Tensor, number: torch.Tensor, out: torch.Tensor) -> Step:
    """``out = x * number``, rounded once: ``number`` (1) is on the device; ``out`` may be ``x``."""
    return lambda: torch.mul(x, number, out=out)


def begins_at(t: torch.Tensor) -> tuple[torch.UntypedStorage, int | torch.SymInt]:
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
