"""Attention together with the logarithms of its sums of exponentials."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  its usual name

from helixctl_runtime.kernels.composed import composed

_ALIGNED = 8  # elements: rows of a bias begin at multiples of 16 bytes


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    causal: bool = False,
    scale: float,
    soft_cap: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention with its log-sum-exps: (batch, heads, rows, width of values), and (batch, heads, rows).

    Args:
        q: (batch, heads, rows, width).
        k: (batch, heads, keys, width); on CPU it may have fewer heads than q.
        v: (batch, heads of k, keys, width of values).
        bias: added to the scores, (1 or batch, 1, rows, keys).
        causal: row i sees the keys up to i.
        scale: what products of queries and keys are multiplied with.
        soft_cap: c, where scores x become c tanh(x / c); None: they stay.
    """
    if soft_cap is not None or (not q.is_cuda and v.shape[3] != q.shape[3]):
        return composed(q, k, v, bias, causal=causal, scale=scale, soft_cap=soft_cap)
    q, k, v = (_dims_together(t) for t in (q, k, v))
    aten = torch.ops.aten
    if not q.is_cuda:
        made, sums = aten._scaled_dot_product_flash_attention_for_cpu(  # noqa: SLF001
            q, k, v, is_causal=causal, attn_mask=bias, scale=scale
        )
        return made, sums
    full = None if bias is None else _aligned(bias).expand(q.shape[0], q.shape[1], -1, -1)
    made, sums = aten._scaled_dot_product_efficient_attention(  # noqa: SLF001
        q,
        k,
        v,
        full,
        compute_log_sumexp=True,
        is_causal=causal,
        scale=scale,
    )[:2]
    return made, sums[..., : q.shape[2]]  # padded to a multiple of 32


def _dims_together(t: torch.Tensor) -> torch.Tensor:
    """A tensor whose last dims follow each other in memory: these kernels do not look at how far apart they are.

    They are apart where slices of one dim each were exchanged.
    """
    return t if t.stride(-1) == 1 or t.shape[-1] == 1 else t.contiguous()


def _aligned(bias: torch.Tensor) -> torch.Tensor:
    """A bias whose rows begin where the kernel can load them."""
    keys = bias.shape[-1]
    if keys % _ALIGNED == 0 and bias.is_contiguous():
        return bias
    return F.pad(bias, (0, -keys % _ALIGNED))[..., :keys]
