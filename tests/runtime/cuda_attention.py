"""Which fused attention torch takes on CUDA, and what it does around the kernel: sdp_utils.cpp and attention.cpp.

Where torch has no CUDA, ``scaled_dot_product_attention`` of fake tensors makes a choice of its own. Here the rules that
forward passes of dense tensors meet are applied, and the kernel that CUDA would run is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend

HALF = (torch.float16, torch.bfloat16)
FLASH, CUDNN = SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION
EFFICIENT = SDPBackend.EFFICIENT_ATTENTION
aten = torch.ops.aten


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    capability: tuple[int, int] = (9, 0),
    called: set[SDPBackend] | None = None,
) -> torch.Tensor:
    """``scaled_dot_product_attention``, by the kernel that a card of this compute capability would run.

    Raises:
        RuntimeError: no kernel that is enabled takes this; the text says why of each.
    """
    if attn_mask is not None and (is_causal or attn_mask.dtype not in {torch.bool, q.dtype}):
        raise RuntimeError(f"a mask of {attn_mask.dtype} for {q.dtype}, causal {is_causal}")
    if len({t.dtype for t in (q, k, v)}) > 1 or (q.shape[1] != k.shape[1] and not enable_gqa):
        raise RuntimeError(f"q, k, v of {[t.dtype for t in (q, k, v)]}, heads {[t.shape[1] for t in (q, k, v)]}")
    refused = {b.name: list(_refusals(b, q, k, v, attn_mask, is_causal)) for b in _enabled(capability)}
    for backend in _enabled(capability):
        if not refused[backend.name]:
            if called is not None:
                called.add(backend)
            scale = q.shape[-1] ** -0.5 if scale is None else scale
            return _KERNELS[backend](q, k, v, attn_mask, is_causal, scale)
    raise RuntimeError(f"No available kernel: {refused}")


def _enabled(capability: tuple[int, int]) -> list[SDPBackend]:
    """In the order in which torch tries them; the unfused formula is never wanted."""
    cuda = torch.backends.cuda
    on = {FLASH: cuda.flash_sdp_enabled, EFFICIENT: cuda.mem_efficient_sdp_enabled, CUDNN: cuda.cudnn_sdp_enabled}
    order = (CUDNN, FLASH, EFFICIENT) if capability[0] in {9, 10} else (FLASH, EFFICIENT, CUDNN)
    return [backend for backend in order if on[backend]()]


def _refusals(
    backend: SDPBackend, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, causal: bool
) -> Iterator[str]:
    """Why a kernel is not taken."""
    if any(t.stride(-1) != 1 for t in (q, k, v)):
        yield "the last dim has holes"
    if q.dtype not in (HALF if backend != EFFICIENT else (*HALF, torch.float32)):
        yield f"no kernel for {q.dtype}"
    if backend == FLASH:
        yield from _of_flash(q, k, mask, causal)
    if backend == EFFICIENT:
        yield from _of_efficient(q, k, v)
    if backend == CUDNN:
        yield from _of_cudnn(q, k)
    # Not a rule of torch's, but of the kernels' loads. Where rows are padded, they are copies.
    if backend != EFFICIENT and q.shape[-1] % 8 == 0 and (off := _off((q, k, v), 16)):
        yield f"{off}: misaligned address"


def _of_flash(q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, causal: bool) -> Iterator[str]:
    if mask is not None:
        yield "it takes no mask"
    if q.shape[-1] > 256:
        yield f"{q.shape[-1]} dims are more than 256"
    if causal and q.shape[2] != k.shape[2]:
        yield f"causal, of {q.shape[2]} rows and {k.shape[2]} keys"


def _of_efficient(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Iterator[str]:
    nbytes = 16  # on 8.0 and later, where tensor cores are used for all dtypes
    if q.shape[-1] * q.element_size() % nbytes:
        yield f"{q.shape[-1]} dims are not a multiple of {nbytes} bytes"
    if off := [t.storage_offset() for t in (q, k, v) if t.storage_offset() * t.element_size() % nbytes]:
        yield f"begins at {off} of its memory, not a multiple of {nbytes} bytes"
    if k.shape[1] != q.shape[1]:
        yield "fewer heads of keys: not in all versions"


def _of_cudnn(q: torch.Tensor, k: torch.Tensor) -> Iterator[str]:
    if q.shape[-1] > 128 or q.shape[-1] % 8:
        yield f"{q.shape[-1]} dims are more than 128, or not a multiple of 8"
    if k.shape[2] == 1:
        yield "one key"
    if max(q.shape[:2]) > 65535:
        yield f"{max(q.shape[:2])} sequences or heads"


def _off(qkv: tuple[torch.Tensor, ...], nbytes: int) -> str:
    """Which of q, k, v do not begin, or do not step, by whole pieces of memory."""
    size = qkv[0].element_size()
    steps = {n: [t.storage_offset(), *_steps(t)] for n, t in zip("qkv", qkv, strict=True)}
    return ", ".join(f"{n} at {found}" for n, found in steps.items() if any(s * size % nbytes for s in found))


def _steps(t: torch.Tensor) -> list[int]:
    return [step for step, size in zip(t.stride()[:-1], t.shape[:-1], strict=True) if size > 1]


def _flash(q: Any, k: Any, v: Any, mask: None, causal: bool, scale: float) -> torch.Tensor:
    width, missing = q.shape[-1], -q.shape[-1] % 8
    q, k, v = (F.pad(t, (0, missing)) if missing else t for t in (q, k, v))
    out = aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)[0]
    return aten.slice(out, -1, 0, width) if missing else out


def _bias(mask: torch.Tensor | None, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor | None:
    """The mask as both kernels take it: rows that begin at whole 16 bytes, for each sequence and head."""
    if mask is None:
        return None
    keys = mask.shape[-1]
    if keys % 8:
        mask = aten.slice(F.pad(mask, (0, -keys % 8)), -1, 0, keys)
    return mask.expand(*q.shape[:2], q.shape[2], k.shape[2])


def _efficient(q: Any, k: Any, v: Any, mask: torch.Tensor | None, causal: bool, scale: float) -> torch.Tensor:
    bias = _bias(mask, q, k)
    return aten._scaled_dot_product_efficient_attention(q, k, v, bias, False, 0.0, causal, scale=scale)[0]


def _cudnn(q: Any, k: Any, v: Any, mask: torch.Tensor | None, causal: bool, scale: float) -> torch.Tensor:
    return aten._scaled_dot_product_cudnn_attention(q, k, v, _bias(mask, q, k), False, 0.0, causal, scale=scale)[0]


_KERNELS = {FLASH: _flash, EFFICIENT: _efficient, CUDNN: _cudnn}
