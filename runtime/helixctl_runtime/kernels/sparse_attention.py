"""Attention of a pass to the keys that were chosen for each token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from helixctl.dag import Attention
from helixctl_runtime.kernels.basic import Step
from helixctl_runtime.kernels.selecting import named
from helixctl_runtime.kernels.with_sums import attend

_MASKED: Final = 2**24  # elements of the masks that are made at once


def sparse_attention(
    op: Attention, qkv: Sequence[torch.Tensor], selected: torch.Tensor, start: int, out: torch.Tensor
) -> Step:
    """Attention of query rows that begin at position ``start``, block of rows by block: all keys under a mask.

    Args:
        op: width of a softmax, which is a head, and how scores are made.
        qkv: (batch, seq, heads, head_dim); keys and values of all positions.
        selected: int64 (batch, rows, top_k): the positions that a row attends to, -1 for none.
        start: the position of the first row of q.
        out: (batch, rows, heads, dims of a head of values).
    """
    q, k, v = (t.transpose(1, 2) for t in qkv)
    batch, heads, rows, _ = q.shape
    each, keys, place = heads // k.shape[1], k.shape[2], out.transpose(1, 2)
    block = max(1, _MASKED // (batch * keys))

    def step() -> None:
        its_k, its_v = (t.repeat_interleave(each, dim=1) if each > 1 else t for t in (k, v))
        for first in range(0, rows, block):
            own = slice(first, min(first + block, rows))
            end = min(keys, start + own.stop) if op.causal else keys
            places = selected[:, own].masked_fill(selected[:, own] < 0, end)
            bias = torch.zeros(*places.shape[:2], end, dtype=q.dtype, device=q.device)
            bias.masked_fill_(torch.logical_not(named(places, end)), float("-inf"))
            made, _ = attend(q[:, :, own], its_k[:, :, :end], its_v[:, :, :end], bias.unsqueeze(1), scale=op.factor)
            place[:, :, own].copy_(made)

    return step
