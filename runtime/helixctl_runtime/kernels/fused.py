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
from helixctl.program.constants import blocks_of_rows, mask_shape, needs_mask
from helixctl_runtime.dtypes import HALF
from helixctl_runtime.kernels.basic import Step


@dataclass(frozen=True, slots=True)
class FusedAttention:
    """A row of the table: where one of torch's fused attention kernels is used.

    Attributes:
        device: "cpu" or "cuda".
        dtypes: of queries, keys, values and the output.
        widest, multiple: dims of a softmax at most, and what their number is a multiple of.
        masks: it takes a mask.
        groups: it takes fewer heads of keys and values than of queries.
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
    fewest: int = 1
    capability: tuple[int, int] = (0, 0)
    cudnn: int = 0


# The first row that fits is used; there is no other way to it, and no fall back to the unfused formula.
# Sources: torch's sdp_utils.cpp for CUDA (flash ends at 256, the memory-efficient kernel needs 16-byte rows and, but in
# the newest versions, as many heads of keys as of queries; cuDNN refuses a single key); for CPU
# tests/runtime/test_kernels.py tries each. On a Hopper GPU torch's flash kernel is FlashAttention-2; cuDNN's is faster
# there, with the same errors, but for very short sequences (docs/measurements/gpu.md).
FUSED_ATTENTION: Final = (
    FusedAttention("cpu", (*HALF, torch.float32, torch.float64), 2**20, 1, SDPBackend.FLASH_ATTENTION),
    FusedAttention("cuda", HALF, 256, 8, SDPBackend.CUDNN_ATTENTION, fewest=128, capability=(9, 0), cudnn=91900),
    FusedAttention("cuda", HALF, 256, 1, SDPBackend.FLASH_ATTENTION, masks=False),
    FusedAttention("cuda", HALF, 2**16, 8, SDPBackend.EFFICIENT_ATTENTION, groups=False),
    FusedAttention("cuda", (torch.float32,), 2**16, 4, SDPBackend.EFFICIENT_ATTENTION, groups=False),
)


def fused_attention(device: str, dtype: torch.dtype, width: int, *, rows: int = 1, mask: bool = False) -> SDPBackend:
    """The kernel that runs an attention.

    Args:
        device: "cpu" or "cuda".
        dtype: of queries, keys, values and the output.
        width: dims of a softmax.
        rows: of queries or of keys, whichever are fewer.
        mask: whether it has a mask of its own, because query rows are cut.

    Raises:
        HelixError: HX508, no row of the table fits.
    """
    return _row(device, dtype, width, rows=rows, mask=mask).backend


def backend_of(op: Attention, keys: torch.Tensor, out: torch.Tensor, *, mask: bool) -> SDPBackend:
    """The kernel that ``attention`` takes for these keys and this output.

    Raises:
        HelixError: HX508, no row of the table fits.
    """
    return _row_of(op, keys, out, mask=mask).backend


def _row_of(op: Attention, keys: torch.Tensor, out: torch.Tensor, *, mask: bool) -> FusedAttention:
    rows = min(out.shape[1], keys.shape[1])
    return _row(out.device.type, out.dtype, op.softmax_width, rows=rows, mask=mask)


def _row(device: str, dtype: torch.dtype, width: int, *, rows: int, mask: bool) -> FusedAttention:
    """The row of the table that is used.

    Raises:
        HelixError: HX508, no row of the table fits.
    """
    for row in FUSED_ATTENTION:
        fits = row.device == device and dtype in row.dtypes and width <= row.widest and width % row.multiple == 0
        if fits and rows >= row.fewest and (row.masks or not mask) and (device == "cpu" or _has(row)):
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
    row = _row_of(op, qkv[1], out, mask=mask is not None)
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


def _by_softmax(t: torch.Tensor, width: int) -> torch.Tensor:
    """(batch, seq, head, head_dim) -> (batch, head * part, seq, width), as the kernels want it."""
    return t.unflatten(3, (-1, width)).flatten(2, 3).transpose(1, 2)


def _each(t: torch.Tensor, times: int) -> torch.Tensor:
    """(batch, seq, kv_head, head_dim) with every head of keys as often as there are heads of queries for it."""
    return t if times == 1 else t.unsqueeze(3).expand(-1, -1, -1, times, -1).flatten(2, 3)
