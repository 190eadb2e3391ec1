"""Attention made of products, in tiles: where no fused kernel of torch computes the formula."""

from __future__ import annotations

from typing import Final

import torch

_SCORES: Final = 2**24  # elements of a tile of scores, which is in float32 or wider


def composed(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    causal: bool = False,
    scale: float,
    soft_cap: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention and its log-sum-exps; scores and sums are in float32, of float64 in float64.

    Args:
        q: (batch, heads, rows, width).
        k: (batch, kv_heads, keys, width); kv_heads divide heads.
        v: (batch, kv_heads, keys, width of values).
        bias: added to the scores, (1 or batch, 1, rows, keys); every row has a key whose bias is finite.
        causal: row i sees the keys up to i.
        scale: what products of queries and keys are multiplied with.
        soft_cap: c, where scores x become c tanh(x / c) ahead of the bias; None: they stay.

    Returns:
        (batch, heads, rows, width of values) in the dtype of q, and (batch, heads, rows) in float32 or float64.
    """
    (batch, heads, rows, _), keys = q.shape, k.shape[2]
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    out = torch.empty(batch, heads, rows, v.shape[3], dtype=q.dtype, device=q.device)
    sums = torch.empty(batch, heads, rows, dtype=wide, device=q.device)
    sequences = min(batch, max(1, _SCORES // (heads * keys)))
    block = min(rows, max(1, _SCORES // (sequences * heads * keys)))
    for start in range(0, batch, sequences):
        b = slice(start, min(start + sequences, batch))
        its = bias if bias is None or bias.shape[0] == 1 else bias[b]
        for first in range(0, rows, block):
            part = slice(first, min(first + block, rows))
            seen = slice(0, part.stop if causal else keys)
            scores = _scores(q[b, :, part], k[b, :, seen], wide).mul_(scale)
            if soft_cap is not None:
                scores.div_(soft_cap).tanh_().mul_(soft_cap)
            if its is not None:
                scores += its[:, :, part]
            if causal:
                scores += torch.full(scores.shape[2:], float("-inf"), dtype=wide, device=q.device).triu_(first + 1)
            its_sums = torch.logsumexp(scores, -1)
            sums[b, :, part].copy_(its_sums)
            scores -= its_sums.unsqueeze(-1)
            out[b, :, part].copy_(_weighted(scores.exp_(), v[b, :, seen]))
    return out, sums


def _scores(q: torch.Tensor, k: torch.Tensor, wide: torch.dtype) -> torch.Tensor:
    """The products of queries and keys for every head, in ``wide``: (batch, heads, rows, keys)."""
    folded, turned = _folded(q, k.shape[1]), k.flatten(0, 1).transpose(1, 2)
    if q.is_cuda and q.dtype != wide:
        made = torch.bmm(folded, turned, out_dtype=wide)
    else:
        made = torch.bmm(folded.to(wide), turned.to(wide))
    return made.view(q.shape[0], q.shape[1], q.shape[2], k.shape[2])


def _weighted(weights: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The sum of values for every head; on CUDA weights are rounded to the values' dtype, as fused kernels do."""
    values = v.flatten(0, 1)
    dtype = v.dtype if v.is_cuda else weights.dtype
    made = torch.bmm(_folded(weights, v.shape[1]).to(dtype), values.to(dtype))
    return made.view(*weights.shape[:3], v.shape[3])


def _folded(t: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """(batch, heads, rows, n) -> (batch x kv_heads, heads of queries of each x rows, n)."""
    return t.reshape(t.shape[0] * kv_heads, -1, t.shape[3])
