"""Attention over the keys of one lane of a cache, with its log-sum-exps."""

from __future__ import annotations

import torch

from helixctl.dag import CachedAttention, PartialAttention
from helixctl_runtime.kernels.basic import Step
from helixctl_runtime.kernels.cached import Lane, alike


def cached_attention(
    op: CachedAttention | PartialAttention,
    q: torch.Tensor,
    caches: tuple[torch.Tensor, torch.Tensor],
    counts: tuple[torch.Tensor, torch.Tensor],
    lane: Lane,
    start: int,
    out: torch.Tensor,
    lse: torch.Tensor | None = None,
) -> Step:
    """Attention over the keys of one lane.

    Args:
        op: width of a softmax, and whether it is causal.
        q: (batch, rows, heads, D), of the tokens from ``start`` on.
        caches: keys and values (batch, keys, kv_heads, D).
        counts: length and count of each sequence, int64 (batch).
        lane: where the keys stand.
        start: the first token of q.
        out: (batch, rows, heads, D); 0 where a token attends to no key.
        lse: (batch, rows, heads, softmaxes) for the logarithms of the sums of exponentials, minus infinity where a
            token attends to no key; None: not asked for.
    """
    rows = q.shape[1]
    bound = _Attention(op.softmax_width, q, caches, out, lse)
    after = torch.arange(start, start + rows, device=q.device)
    if q.is_cuda:
        return lambda: bound.over(None, lane.size, _admitted(op, lane.positions, *counts, after))

    def run() -> None:
        length, count = counts
        lengths, news = length.tolist(), count.tolist()
        together = alike(lengths) and alike(news)
        for i in range(1 if together else len(lengths)):
            b = None if together else slice(i, i + 1)
            end = lengths[i] + news[i]
            last = lane.keys_below(end)
            if last == 0:
                bound.nothing(b)
            elif not op.causal or lengths[i] + start + 1 >= end:  # the first row attends to all keys already
                bound.over(b, last)
            elif lengths[i] + start == 0 and last == rows and lane.lanes == 1:
                bound.triangle(b)
            else:
                one = slice(i, i + 1)
                bound.over(b, last, _admitted(op, lane.positions[:last], length[one], count[one], after))

    return run


class _Attention:
    """Queries, caches and outputs in the forms that the fused kernels take; ``b`` are some sequences, or None for all.

    A head of the kernel is one softmax of a head of keys. Its rows are those of all queries of that head of keys, so
    that they read it once.
    """

    def __init__(
        self,
        width: int,
        q: torch.Tensor,
        caches: tuple[torch.Tensor, torch.Tensor],
        out: torch.Tensor,
        lse: torch.Tensor | None,
    ) -> None:
        parts, heads = q.shape[3] // width, caches[0].shape[2]
        self._each = each = q.shape[2] // heads
        self._rows, self._dtype = q.shape[1], q.dtype
        # (batch, kv_head, softmax, query of it, row, width)
        self._queries, self._out = (
            t.unflatten(3, (parts, width)).unflatten(2, (heads, each)).permute(0, 2, 4, 3, 1, 5) for t in (q, out)
        )
        self._lse = None if lse is None else lse.unflatten(2, (heads, each)).permute(0, 2, 4, 3, 1)
        self._keys, self._values = (t.unflatten(3, (parts, width)).permute(0, 2, 3, 1, 4).flatten(1, 2) for t in caches)
        # Where folding is a view it is done once.
        self._views = parts == 1 and 1 in (self._rows, each)
        if self._views:
            self._queries, self._out = _folded(self._queries), _folded(self._out)
            self._lse = None if self._lse is None else self._lse.flatten(1, 2).flatten(2, 3)

    def over(self, b: slice | None, last: int, admitted: torch.Tensor | None = None) -> None:
        """Attend over the first ``last`` keys, or those ``admitted`` of them, (1 or sequences, rows, last)."""
        q = _of(b, self._queries)
        bias = None if admitted is None else _bias(admitted, self._each, self._dtype)
        none = None if admitted is None else torch.logical_not(admitted[:, :, 0])
        self._put(b, *_attend(q if self._views else _folded(q), *self._first(b, last), bias), none)

    def triangle(self, b: slice | None) -> None:
        """Attend over as many keys as there are rows: the first row over the first key, the second over two, ..."""
        # Row i of a kernel's head sees i keys, so that every query is a head; those of a head of keys share it.
        q = _of(b, self._queries)
        self._put(b, *_attend(q if self._views else q.flatten(1, 3), *self._first(b, self._rows), causal=True))

    def nothing(self, b: slice | None) -> None:
        """What comes of no key."""
        _of(b, self._out).zero_()
        if self._lse is not None:
            _of(b, self._lse).fill_(float("-inf"))

    def _first(self, b: slice | None, last: int) -> tuple[torch.Tensor, torch.Tensor]:
        return _of(b, self._keys).narrow(2, 0, last), _of(b, self._values).narrow(2, 0, last)

    def _put(self, b: slice | None, made: torch.Tensor, lse: torch.Tensor, none: torch.Tensor | None = None) -> None:
        """Store outputs and log-sum-exps; ``none``: bool (1 or sequences, rows), where no key was admitted."""
        out = _of(b, self._out)
        if none is not None:
            none = none.view(len(none), *[1] * (out.dim() - 3), -1)
        made = made if self._views else made.view(out.shape)
        out.copy_(made if none is None else made.masked_fill(none.unsqueeze(-1), 0))
        if self._lse is not None:
            sums = _of(b, self._lse)
            lse = lse if self._views else lse.view(sums.shape)
            sums.copy_(lse if none is None else lse.masked_fill(none, float("-inf")))


def _of(b: slice | None, t: torch.Tensor) -> torch.Tensor:
    return t if b is None else t[b]


def _folded(queries: torch.Tensor) -> torch.Tensor:
    """(batch, kv_head, softmax, query of it, row, width) -> (batch, kv_head x softmax, query x row, width)."""
    return queries.flatten(1, 2).flatten(2, 3)


def _admitted(
    op: CachedAttention | PartialAttention,
    positions: torch.Tensor,
    length: torch.Tensor,
    count: torch.Tensor,
    after: torch.Tensor,
) -> torch.Tensor:
    """Which keys a token attends to: bool (batch, rows, keys). They are the first ones, as positions ascend."""
    below = positions < (length + count)[:, None, None]
    return (
        below & (positions <= (length[:, None] + after)[..., None]) if op.causal else below.expand(-1, len(after), -1)
    )


def _bias(admitted: torch.Tensor, each: int, dtype: torch.dtype) -> torch.Tensor:
    """0 or minus infinity, (batch, 1, each x rows, keys); a row that sees no key sees all, its result is not used."""
    batch, rows, keys = admitted.shape
    seen = admitted | torch.logical_not(admitted[..., :1])
    bias = torch.zeros(batch, rows, keys, dtype=dtype, device=admitted.device).masked_fill_(
        torch.logical_not(seen), float("-inf")
    )
    return bias[:, None, None].expand(-1, -1, each, -1, -1).reshape(batch, 1, each * rows, keys)


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None = None, *, causal: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fused attention with its log-sum-exps: (batch, heads, rows, width), and (batch, heads, rows).

    On CPU k and v may have fewer heads than q, and with ``causal`` row i sees the keys up to i.
    """
    aten = torch.ops.aten
    if not q.is_cuda:
        made, logs = aten._scaled_dot_product_flash_attention_for_cpu(  # noqa: SLF001
            q, k, v, is_causal=causal, attn_mask=bias
        )
        return made, logs
    full = None if bias is None else bias.expand(-1, q.shape[1], -1, -1)
    made, logs = aten._scaled_dot_product_efficient_attention(q, k, v, full, True)[:2]  # noqa: FBT003, SLF001
    return made, logs[..., : q.shape[2]]  # padded to a multiple of 32
