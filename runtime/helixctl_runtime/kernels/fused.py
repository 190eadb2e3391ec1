"""Fused attention: which of torch's kernels runs where, and the call that writes into its output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from torch.nn.attention import SDPBackend

from helixctl.dag import Attention
from helixctl.errors import fail
from helixctl.program import CausalMask
from helixctl.program.row_blocks import RowBlock, mask_of, part_of_mask, row_blocks
from helixctl_runtime.dtypes import HALF
from helixctl_runtime.kernels.basic import Step
from helixctl_runtime.kernels.with_sums import attend


@dataclass(frozen=True, slots=True)
class FusedAttention:
    """A row of the table: where one of torch's fused attention kernels is used.

    Attributes:
        device: "cpu" or "cuda".
        dtypes: of queries, keys, values and the output.
        widest, multiple: dims of a softmax at most, and what their number is a multiple of.
        masks: it takes a mask.
        groups: it takes fewer heads of keys and values than of queries.
        sums: it gives the log-sum-exps as well, or takes values of another width than queries and keys (on CPU
            products do the latter).
        fewest: rows of queries, and of keys, at least.
        capability: of the CUDA device at least, (major, minor).
        cudnn: the version of cuDNN at least, as ``torch.backends.cudnn.version()`` gives it.
    """

    device: str
    dtypes: tuple[torch.dtype, ...]
    widest: int
    multiple: int
    backend: SDPBackend
    masks: bool = True
    groups: bool = True
    sums: bool = False
    fewest: int = 1
    capability: tuple[int, int] = (0, 0)
    cudnn: int = 0


# The first row that fits is used; there is no other way to it, and no fall back to the unfused formula.
# Sources: torch's sdp_utils.cpp for CUDA (flash ends at 256, the memory-efficient kernel needs 16-byte rows and, but in
# the newest versions, as many heads of keys as of queries; cuDNN refuses a single key); for CPU
# tests/runtime/test_kernels.py tries each. On a Hopper GPU torch's flash kernel is FlashAttention-2; cuDNN's is faster
# there, with the same errors, except for very short sequences (docs/measurements/gpu.md).
FUSED_ATTENTION: Final = (
    FusedAttention("cpu", (*HALF, torch.float32, torch.float64), 2**20, 1, SDPBackend.FLASH_ATTENTION, sums=True),
    FusedAttention("cuda", HALF, 256, 8, SDPBackend.CUDNN_ATTENTION, fewest=128, capability=(9, 0), cudnn=91900),
    FusedAttention("cuda", HALF, 256, 1, SDPBackend.FLASH_ATTENTION, masks=False),
    FusedAttention("cuda", HALF, 2**16, 8, SDPBackend.EFFICIENT_ATTENTION, groups=False, sums=True),
    FusedAttention("cuda", (torch.float32,), 2**16, 4, SDPBackend.EFFICIENT_ATTENTION, groups=False, sums=True),
)


def fused_attention(
    device: str, dtype: torch.dtype, width: int, *, rows: int = 1, mask: bool = False, sums: bool = False
) -> SDPBackend:
    """The kernel that runs an attention.

    Args:
        device: "cpu" or "cuda".
        dtype: of queries, keys, values and the output.
        width: dims of a softmax.
        rows: of queries or of keys, whichever are fewer.
        mask: whether it has a mask of its own, because query rows are cut or a window moves with them.
        sums: whether log-sum-exps are asked for, or values have another width.

    Raises:
        HelixError: HX508, no row of the table fits.
    """
    return _row(device, dtype, width, rows=rows, mask=mask, sums=sums).backend


def backend_of(op: Attention, qkv: Sequence[torch.Tensor], start: int, *, sinks: bool = False) -> SDPBackend | None:
    """The kernel that ``attention`` takes for these operands; None: it is made of products.

    Raises:
        HelixError: HX508, no row of the table fits.
    """
    row = _row_of(op, qkv, row_blocks(op, start, qkv[0].shape[1]), sinks=sinks)
    return None if row is None else row.backend


def _row_of(
    op: Attention, qkv: Sequence[torch.Tensor], blocks: Sequence[RowBlock], *, sinks: bool
) -> FusedAttention | None:
    q, k, v = qkv
    other_width = v.shape[3] != q.shape[3]
    if op.soft_cap is not None or (other_width and not q.is_cuda):
        return None
    fewest = min(b.last - b.key for b in blocks) if op.causal else k.shape[1]
    mask = any(block.masked for block in blocks)
    rows, sums = min(q.shape[1], fewest), sinks or other_width
    return _row(q.device.type, q.dtype, op.softmax_width, rows=rows, mask=mask, sums=sums)


def _row(device: str, dtype: torch.dtype, width: int, *, rows: int, mask: bool, sums: bool) -> FusedAttention:
    """The row of the table that is used.

    Raises:
        HelixError: HX508, no row of the table fits.
    """
    for row in FUSED_ATTENTION:
        fits = row.device == device and dtype in row.dtypes and width <= row.widest and width % row.multiple == 0
        takes = rows >= row.fewest and (row.masks or not mask) and (row.sums or not sums)
        if fits and takes and (device == "cpu" or _has(row)):
            return row
    name = str(dtype).removeprefix("torch.")
    hint = "use --dtype float16 or bfloat16" if device == "cuda" and dtype not in HALF else None
    raise fail("HX508", f"no fused attention on {device} in {name} for a softmax of {width} dims", hint)


def _has(row: FusedAttention) -> bool:
    """Whether the CUDA device and its libraries have what a row asks for."""
    capability, cudnn = cuda_device()
    return capability >= row.capability and cudnn >= row.cudnn


@cache
def cuda_device() -> tuple[tuple[int, int], int]:
    """Compute capability of the CUDA device and the version of cuDNN; zeros where there is no such device."""
    if not torch.cuda.is_available():
        return (0, 0), 0
    return torch.cuda.get_device_capability(), torch.backends.cudnn.version() or 0


def attention(
    op: Attention,
    qkv: Sequence[torch.Tensor],
    start: int,
    out: torch.Tensor,
    mask: tuple[CausalMask, torch.Tensor] | None = None,
    sinks: torch.Tensor | None = None,
) -> Step:
    """Attention of query rows that begin at position ``start``, block of rows by block.

    Every ``softmax_width`` dims of a head are a head of their own to the kernel: see "attention" in docs/formats.md.
    Of k and v a causal attention reads the positions up to that of the last query, and of a window none before it.

    Args:
        op: what is computed.
        qkv: (batch, seq, heads, head_dim) views.
        start: the position of the first row of q.
        out: (batch, rows, heads, dims of a head of values).
        mask: the ``mask_of`` the rows and its numbers, where the caller has them.
        sinks: (heads), a logit that each head attends to beside its keys, which has no value.
    """
    rows, heads = out.shape[1:3]
    mask = mask or _mask(op, start, out)
    blocks = row_blocks(op, start, rows)
    row = _row_of(op, qkv, blocks, sinks=sinks is not None)
    parts, each = qkv[0].shape[3] // op.softmax_width, heads // qkv[1].shape[2]
    # Cut in parts, the heads that share one of keys no longer follow each other.
    grouped = each > 1 and parts == 1 and (row is None or row.groups)
    q, end = _by_softmax(qkv[0], parts), qkv[1].shape[1]
    # (batch, head * part, seq, width) -> (batch, seq, head, dims), copied into place.
    target = out.unflatten(3, (parts, -1)).permute(0, 2, 3, 1, 4)
    wide = None if sinks is None else sinks.to(torch.promote_types(sinks.dtype, torch.float32)).view(-1, 1)
    calls = []
    for block in blocks:
        own = slice(block.first - start, block.last - start)
        keys = [t[:, block.key : block.last if op.causal else end] for t in qkv[1:]]
        seen = mask[1][part_of_mask(mask[0], block)] if block.masked and mask is not None else None
        # The kernels' own causal mask is for all rows; one row alone sees all keys that it is given.
        causal = op.causal and not block.masked and block.last - block.first > 1
        calls.append((q[:, :, own], keys, seen, causal, target[:, :, :, own]))

    def step() -> None:
        for part, keys, seen, causal, place in calls:
            k, v = (_by_softmax(t if grouped else _each(t, each), parts) for t in keys)
            bias = None if seen is None else seen.contiguous()
            if row is not None and wide is None:
                made = F.scaled_dot_product_attention(
                    part, k, v, attn_mask=bias, is_causal=causal, scale=op.factor, enable_gqa=grouped
                )
            else:
                above = None if bias is None else bias[None, None]
                made, sums = attend(part, k, v, above, causal=causal, scale=op.factor, soft_cap=op.soft_cap)
                if wide is not None:
                    made = made * torch.sigmoid(sums - wide).unsqueeze(-1)
            place.copy_(made.view(place.shape))

    return step


def _mask(op: Attention, start: int, out: torch.Tensor) -> tuple[CausalMask, torch.Tensor] | None:
    made = mask_of(op, start, out.shape[1], "")
    return None if made is None else (made, causal_mask(made, out.dtype, out.device))


def causal_mask(mask: CausalMask, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The numbers of a mask: 0 or minus infinity, to be added.

    (Of a mask of booleans the kernels make one like this anew in every step.)
    """
    unseen = torch.full(mask.shape, float("-inf"), dtype=dtype, device=device).triu_(mask.span + 1)
    if mask.window is not None:
        unseen += torch.full(mask.shape, float("-inf"), dtype=dtype, device=device).tril_(mask.span - mask.window)
    return unseen


def _by_softmax(t: torch.Tensor, parts: int) -> torch.Tensor:
    """(batch, seq, head, head_dim) -> (batch, head * part, seq, width), as the kernels want it."""
    return t.unflatten(3, (parts, -1)).flatten(2, 3).transpose(1, 2)


def _each(t: torch.Tensor, times: int) -> torch.Tensor:
    """(batch, seq, kv_head, head_dim) with every head of keys as often as there are heads of queries for it."""
    return t if times == 1 else t.unsqueeze(3).expand(-1, -1, -1, times, -1).flatten(2, 3)
