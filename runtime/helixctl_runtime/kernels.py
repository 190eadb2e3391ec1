"""The compute kernels: which fused attention runs where, and one function per op that writes into its output.

All arithmetic is in float32 or wider; a result is rounded once, to the dtype of its output. On CPU a half-precision
matrix product is computed from float32 copies (torch's half-precision product there is many times slower and rounds
more often).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from torch.nn.attention import SDPBackend

from helixctl.dag import Attention
from helixctl.errors import fail
from helixctl.program.constants import blocks_of_rows, mask_shape, needs_mask
from helixctl_runtime.dtypes import HALF

Step = Callable[[], object]


@dataclass(frozen=True, slots=True)
class FusedAttention:
    """A row of the table: where one of torch's fused attention kernels is used.

    ``masks``: it takes a mask. ``groups``: it takes fewer heads of keys and values than of queries.
    """

    device: str
    dtypes: tuple[torch.dtype, ...]
    widest: int
    multiple: int
    backend: SDPBackend
    masks: bool = True
    groups: bool = True


# The first row that fits is used; there is no other way to it, and no fall back to the unfused formula.
# Sources: torch's sdp_utils.cpp for CUDA (flash ends at 256, the memory-efficient kernel needs 16-byte rows and, but in
# the newest versions, as many heads of keys as of queries); for CPU tests/runtime/test_kernels.py tries each.
FUSED_ATTENTION: Final = (
    FusedAttention("cpu", (*HALF, torch.float32, torch.float64), 2**20, 1, SDPBackend.FLASH_ATTENTION),
    FusedAttention("cuda", HALF, 256, 1, SDPBackend.FLASH_ATTENTION, masks=False),
    FusedAttention("cuda", HALF, 2**16, 8, SDPBackend.EFFICIENT_ATTENTION, groups=False),
    FusedAttention("cuda", (torch.float32,), 2**16, 4, SDPBackend.EFFICIENT_ATTENTION, groups=False),
)


def fused_attention(device: str, dtype: torch.dtype, width: int, *, mask: bool = False) -> SDPBackend:
    """The kernel for a softmax of ``width`` dims, with a mask of its own where the query rows are cut.

    Raises:
        HelixError: HX508, no row of the table fits.
    """
    return _row(device, dtype, width, mask=mask).backend


def _row(device: str, dtype: torch.dtype, width: int, *, mask: bool) -> FusedAttention:
    """The row of the table that is used.

    Raises:
        HelixError: HX508, no row of the table fits.
    """
    for row in FUSED_ATTENTION:
        fits = row.device == device and dtype in row.dtypes and width <= row.widest and width % row.multiple == 0
        if fits and (row.masks or not mask):
            return row
    name = str(dtype).removeprefix("torch.")
    hint = "use --dtype float16 or bfloat16" if device == "cuda" and dtype not in HALF else None
    raise fail("HX508", f"no fused attention on {device} in {name} for a softmax of {width} dims", hint)


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
        wide_x, wide_out = torch.empty_like(x, dtype=torch.float32), _accumulator(out)
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


def attention(
    op: Attention, qkv: Sequence[torch.Tensor], start: int, out: torch.Tensor, mask: torch.Tensor | None = None
) -> Step:
    """Fused attention; q, k, v and out are (batch, seq, heads, head_dim) views, and q begins at position ``start``.

    Every ``softmax_width`` dims of a head are a head of their own to the kernel: see "attention" in docs/formats.md.
    Of k and v a causal attention reads the positions up to that of the last query. ``mask``: the ``causal_mask`` that
    ``needs_mask`` asks for, where the caller has it.
    """
    rows, heads, head_dim = out.shape[1:]
    if mask is None and needs_mask(op, start, rows):
        mask = causal_mask(start, rows, out.dtype, out.device)
    row = _row(out.device.type, out.dtype, op.softmax_width, mask=mask is not None)
    parts, each = head_dim // op.softmax_width, heads // qkv[1].shape[2]
    # Cut in parts, the heads that share one of keys no longer follow each other.
    grouped = each > 1 and parts == 1 and row.groups
    # The kernels' own causal mask is for all rows; one row alone sees all keys that it is given.
    causal = op.causal and mask is None and rows > 1
    q = _by_softmax(qkv[0], op.softmax_width)
    # (batch, head * part, seq, width) -> (batch, seq, head, head_dim), copied into place.
    target = out.unflatten(3, (parts, op.softmax_width)).permute(0, 2, 3, 1, 4)
    calls = []
    for first, last in blocks_of_rows(start, rows) if mask is not None else [(start, start + rows)]:
        own = slice(first - start, last - start)
        keys = [t[:, :last] if op.causal else t for t in qkv[1:]]
        calls.append((q[:, :, own], keys, _seen(mask, first, last), target[:, :, :, own]))

    def step() -> None:
        for part, keys, seen, place in calls:
            k, v = (_by_softmax(t if grouped else _each(t, each), op.softmax_width) for t in keys)
            bias = None if seen is None else seen.contiguous()
            made = F.scaled_dot_product_attention(part, k, v, attn_mask=bias, is_causal=causal, enable_gqa=grouped)
            place.copy_(made.view(place.shape))

    return step


def causal_mask(start: int, rows: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """What rows from ``start`` on see of the keys before them: 0 or minus infinity, to be added.

    It is that of the last of the blocks in which the rows are computed, and a part of it that of any other. (Of a mask
    of booleans the kernels make one like this anew in every step.)
    """
    shape = mask_shape(start, rows)
    unseen = torch.full(shape, float("-inf"), dtype=dtype, device=device)
    return unseen.triu_(shape[1] - shape[0] + 1)


def _seen(mask: torch.Tensor | None, first: int, last: int) -> torch.Tensor | None:
    """The part of a ``causal_mask`` for a block of rows and the keys before its end."""
    if mask is None:
        return None
    before = mask.shape[1] - mask.shape[0] - first  # by how many keys the last block begins later
    return mask[: last - first, before : before + last]


def norm(x: torch.Tensor, weight: torch.Tensor, eps: float, out: torch.Tensor) -> Step:
    """Root-mean-square norm over the last dim."""
    if x.device.type == "cuda":
        return lambda: out.copy_(F.rms_norm(x, weight.shape, weight, eps))
    wide_weight, wide_out = weight.to(_wide(x.dtype)), _accumulator(out)
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
    lower, upper = x.chunk(2, dim=-1)
    out_lower, out_upper = out.chunk(2, dim=-1)
    over = _begins_at(out) == _begins_at(x)
    if out.dtype not in HALF:

        def step() -> None:
            held = lower.clone() if over else lower
            torch.mul(lower, cos, out=out_lower).addcmul_(upper, sin, value=-1)
            torch.mul(upper, cos, out=out_upper).addcmul_(held, sin)

        return step

    def half() -> None:
        held = lower.clone() if over else lower
        wide = lower * cos
        out_lower.copy_(wide.addcmul_(upper, sin, value=-1))
        torch.mul(upper, cos, out=wide)
        out_upper.copy_(wide.addcmul_(held, sin))

    return half


def route(x: torch.Tensor, weight: torch.Tensor, top_k: int, out: torch.Tensor, *, renormalise: bool = True) -> Step:
    """Gates: (T, H) x (H, E) -> (T, E) in the dtype of ``out``, the accumulator's; of equal logits the first wins."""
    wide_weight = weight.to(out.dtype)

    def step() -> None:
        # A stable sort, not topk: which of equal logits topk takes is not defined.
        best = torch.sort(x.to(out.dtype) @ wide_weight, dim=-1, descending=True, stable=True)
        chosen = best.values[:, :top_k] if renormalise else best.values
        gates = torch.softmax(chosen, dim=-1)[:, :top_k]
        out.zero_().scatter_(1, best.indices[:, :top_k], gates)

    return step


def experts(
    function: str,
    x: torch.Tensor,
    gates: torch.Tensor,
    weights: Sequence[torch.Tensor],
    out: torch.Tensor,
) -> Step:
    """The gated sum over experts: x (T, H), gates (T, E), weights (E, H, F), (E, F, H) [, (E, H, F)] -> out (T, H).

    Of three weights the last is that of the gated form. Every expert computes the tokens that are routed to it, however
    many, and their sum is float32 or wider. On CUDA the number of tokens of each expert is read back by the host.
    """
    cpu_half = x.device.type == "cpu" and x.dtype in HALF
    w_up, w_down, *w_gate = (w.float() if cpu_half else w for w in weights)
    total = _accumulator(out)
    apply = getattr(F, function)

    def step() -> None:
        tokens = x.float() if cpu_half else x
        total.zero_()
        for expert in range(w_up.shape[0]):
            rows = gates[:, expert].nonzero().squeeze(1)
            if rows.numel() == 0:
                continue
            routed = tokens[rows]
            inner = apply(routed @ (*w_gate, w_up)[0][expert])
            if w_gate:
                inner.mul_(routed @ w_up[expert])
            if total.dtype == inner.dtype:
                result = inner @ w_down[expert]
            else:  # a CUDA product that keeps its float32 accumulator
                result = torch.ops.aten.mm.dtype(inner, w_down[expert], total.dtype)
            total.index_add_(0, rows, result.mul_(gates[rows, expert].unsqueeze(1)))
        if total is not out:
            out.copy_(total)

    return step


def activation(function: str, x: torch.Tensor, out: torch.Tensor) -> Step:
    """An elementwise function; torch computes it in float32 and rounds once."""
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
    return lambda: torch.mul(a, b, out=out)


def _begins_at(t: torch.Tensor) -> tuple[torch.UntypedStorage, int | torch.SymInt]:
    """The memory that a view is of, and its first byte there; known also where there is none (tests without a GPU)."""
    return t.untyped_storage(), t.storage_offset() * t.element_size()


def _by_softmax(t: torch.Tensor, width: int) -> torch.Tensor:
    """(batch, seq, head, head_dim) -> (batch, head * part, seq, width), as the kernels want it."""
    return t.unflatten(3, (-1, width)).flatten(2, 3).transpose(1, 2)


def _each(t: torch.Tensor, times: int) -> torch.Tensor:
    """(batch, seq, kv_head, head_dim) with every head of keys as often as there are heads of queries for it."""
    return t if times == 1 else t.unsqueeze(3).expand(-1, -1, -1, times, -1).flatten(2, 3)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in HALF else dtype


def _accumulator(out: torch.Tensor) -> torch.Tensor:
    return torch.empty(out.shape, dtype=torch.float32, device=out.device) if out.dtype in HALF else out
