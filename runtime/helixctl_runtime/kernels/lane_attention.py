"""Attention over the keys of one lane of a cache, with its log-sum-exps."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from helixctl.dag import CachedAttention, PartialAttention
from helixctl.dag.reach import first_key, reaches_back
from helixctl_runtime.kernels.basic import Step, begins_at
from helixctl_runtime.kernels.cached import Lane, alike
from helixctl_runtime.kernels.selecting import named, slots
from helixctl_runtime.kernels.with_sums import attend

_ALIGNED = 8  # keys: rows of a bias begin at multiples of 16 bytes
_FEWEST_ROWS = 128  # of a window that are worth a call of their own
_MASKED = 2**24  # elements of the masks of chosen keys that are made at once


def cached_attention(
    op: CachedAttention | PartialAttention,
    q: torch.Tensor,
    caches: tuple[torch.Tensor, torch.Tensor],
    counts: tuple[torch.Tensor, torch.Tensor],
    lane: Lane,
    start: int,
    out: torch.Tensor,
    lse: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    selected: torch.Tensor | None = None,
) -> Step:
    """Attention over the keys of one lane.

    Args:
        op: width of a softmax, which keys a token attends to, and how scores are made.
        q: (batch, rows, heads, D), of the tokens from ``start`` on.
        caches: keys and values (batch, keys, kv_heads, D); those of values may have another width.
        counts: length and count of each sequence, int64 (batch).
        lane: where the keys stand.
        start: the first token of q.
        out: (batch, rows, heads, width of values); 0 where a token attends to no key.
        lse: (batch, rows, heads, softmaxes) for the logarithms of the sums of exponentials, minus infinity where a
            token attends to no key; None: not asked for.
        sinks: (heads), a logit that each head attends to beside its keys, which has no value.
        selected: int64 (batch, rows, top_k): the positions that a row attends to, -1 for none; None: to all.
    """
    if selected is not None:
        return _of_chosen(op, q, caches, lane, out, lse, selected)
    rows, reach = q.shape[1], reaches_back(op)
    # What is far behind its rows need not be looked at: with a reach, few rows are computed at once.
    block = rows if reach is None else min(rows, max(_FEWEST_ROWS, reach))
    parts = [
        (_Attention(op, q[:, s], caches, out[:, s], None if lse is None else lse[:, s], sinks), start + s.start)
        for s in (slice(first, min(first + block, rows)) for first in range(0, rows, block))
    ]
    if q.is_cuda:
        steps = [_on_cuda(op, bound, caches, counts, lane, first) for bound, first in parts]
    else:
        steps = [_on_cpu(op, bound, counts, lane, first) for bound, first in parts]
    if len(steps) == 1:
        return steps[0]

    def run() -> None:
        for step in steps:
            step()

    return run


def _of_chosen(
    op: CachedAttention | PartialAttention,
    q: torch.Tensor,
    caches: tuple[torch.Tensor, torch.Tensor],
    lane: Lane,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    selected: torch.Tensor,
) -> Step:
    """Over the keys that were chosen: collected for every row where this is less than all, else all under a mask.

    What the cache holds elsewhere, which may be no number, is not looked at: in the place of a key of another lane
    stands one that is attended to, and keys that no row attends to are zeros.
    """
    (batch, rows, heads, _), top_k = q.shape, selected.shape[-1]
    apart = rows * top_k < lane.size
    block = 1 if apart else max(1, _MASKED // (batch * heads // caches[0].shape[2] * lane.size))
    parts = [slice(first, min(first + block, rows)) for first in range(0, rows, block)]
    bound = [_Attention(op, q[:, s], caches, out[:, s], None if lse is None else lse[:, s], None) for s in parts]
    both = begins_at(caches[0]) == begins_at(caches[1])

    held = caches[:1] if both else caches

    def collected() -> None:
        places = slots(selected, lane)
        for part, its in zip(parts, bound, strict=True):
            mine = places[:, part.start]
            inside = mine < lane.size
            keys = torch.where(inside, mine, mine.amin(1, keepdim=True).clamp_(max=lane.size - 1))[..., None, None]
            found = [t.gather(1, keys.expand(-1, -1, *t.shape[2:])) for t in held]
            its.over(None, slice(0, top_k), inside.unsqueeze(1), [found[0], found[-1]])

    def masked() -> None:
        admitted = named(slots(selected, lane), lane.size)
        unseen = torch.logical_not(admitted.any(1))[..., None, None]
        found = [t.masked_fill(unseen, 0) for t in held]
        for part, its in zip(parts, bound, strict=True):
            its.over(None, slice(0, lane.size), admitted[:, part], [found[0], found[-1]])

    return collected if apart else masked


def _on_cuda(
    op: CachedAttention | PartialAttention,
    bound: _Attention,
    caches: tuple[torch.Tensor, torch.Tensor],
    counts: tuple[torch.Tensor, torch.Tensor],
    lane: Lane,
    start: int,
) -> Step:
    """Over all keys for which there is room, or over as many as the rows reach: where these lie is data."""
    length, count = counts
    after = torch.arange(start, start + bound.rows, device=length.device)
    reach, cycle = reaches_back(op), lane.lanes * lane.block
    near = lane.size if reach is None else ((reach + bound.rows + cycle - 3) // cycle + 1) * lane.block
    near = -(-near // _ALIGNED) * _ALIGNED
    if reach is None or 2 * near > lane.size:  # a copy of half the cache spares nothing
        return lambda: bound.over(None, slice(0, lane.size), _admitted(op, lane.positions, length, count, after))
    window = torch.arange(near, device=length.device)

    def run() -> None:
        first = (length + (start + 1 - reach)).clamp_(min=0)
        # Beyond the end the window goes on at the beginning, so that no key is looked at twice.
        keys = ((first // cycle * lane.block).unsqueeze(1) + window).remainder_(lane.size)
        at = keys[..., None, None]
        nearby = [t.gather(1, at.expand(-1, -1, *t.shape[2:])) for t in caches]
        bound.over(None, slice(0, near), _admitted(op, lane.positions[keys], length, count, after), nearby)

    return run


def _on_cpu(
    op: CachedAttention | PartialAttention,
    bound: _Attention,
    counts: tuple[torch.Tensor, torch.Tensor],
    lane: Lane,
    start: int,
) -> Step:
    """Over the keys that the rows reach: the host looks at the lengths."""
    after, reach = torch.arange(start, start + bound.rows), reaches_back(op)

    def run() -> None:
        length, count = counts
        lengths, news = length.tolist(), count.tolist()
        together = alike(lengths) and alike(news)
        for i in range(1 if together else len(lengths)):
            b = None if together else slice(i, i + 1)
            begin, end = lengths[i] + start, lengths[i] + news[i]
            if reach is not None:
                end = min(end, begin + bound.rows)
            keys = slice(lane.keys_below(first_key(op, begin)), lane.keys_below(end))
            if keys.start >= keys.stop:
                bound.nothing(b)
            elif not op.causal or begin + 1 >= end:  # the first row attends to all keys already
                bound.over(b, keys)
            elif begin == 0 and keys.stop == bound.rows and lane.lanes == 1 and end <= (reach or end):
                bound.triangle(b)
            else:
                one = slice(i, i + 1)
                bound.over(b, keys, _admitted(op, lane.positions[None, keys], length[one], count[one], after))

    return run


class _Attention:
    """Queries, caches and outputs in the forms that the fused kernels take; ``b`` are some sequences, or None for all.

    A head of the kernel is one softmax of a head of keys. Its rows are those of all queries of that head of keys, so
    that they read it once.
    """

    def __init__(
        self,
        op: CachedAttention | PartialAttention,
        q: torch.Tensor,
        caches: tuple[torch.Tensor, torch.Tensor],
        out: torch.Tensor,
        lse: torch.Tensor | None,
        sinks: torch.Tensor | None,
    ) -> None:
        parts, heads = q.shape[3] // op.softmax_width, caches[0].shape[2]
        self._each = each = q.shape[2] // heads
        self.rows, self._dtype = q.shape[1], q.dtype
        self._scale, self._soft_cap = op.factor, op.soft_cap
        # (batch, kv_head, softmax, query of it, row, width)
        self._queries, self._out = (
            t.unflatten(3, (parts, -1)).unflatten(2, (heads, each)).permute(0, 2, 4, 3, 1, 5) for t in (q, out)
        )
        self._lse = None if lse is None else lse.unflatten(2, (heads, each)).permute(0, 2, 4, 3, 1)
        self._parts = parts
        self._keys, self._values = (self._by_softmax(t) for t in caches)
        # Of every query of a head of keys, which has one softmax: (kv_head, query of it, 1).
        wide = None if sinks is None else sinks.to(torch.promote_types(sinks.dtype, torch.float32))
        self._sinks = None if wide is None else wide.view(heads, 1, each, 1)
        # Where folding is a view it is done once.
        self._views = parts == 1 and 1 in (self.rows, each)
        if self._views:
            self._queries, self._out = _folded(self._queries), _folded(self._out)
            self._lse = None if self._lse is None else self._lse.flatten(1, 2).flatten(2, 3)

    def over(
        self,
        b: slice | None,
        keys: slice,
        admitted: torch.Tensor | None = None,
        caches: Sequence[torch.Tensor] | None = None,
    ) -> None:
        """Attend over some keys of the caches, or over those ``admitted`` of them, (1 or sequences, rows, keys)."""
        q = _of(b, self._queries)
        bias = None if admitted is None else _bias(admitted, self._each, self._dtype)
        none = None if admitted is None else torch.logical_not(admitted.any(-1))
        k, v = (self._keys, self._values) if caches is None else (self._by_softmax(t) for t in caches)
        k, v = (_of(b, t)[:, :, keys] for t in (k, v))
        q = q if self._views else _folded(q)
        self._put(b, *attend(q, k, v, bias, scale=self._scale, soft_cap=self._soft_cap), none)

    def triangle(self, b: slice | None) -> None:
        """Attend over as many keys as there are rows: the first row over the first key, the second over two, ..."""
        # Row i of a kernel's head sees i keys, so that every query is a head; those of a head of keys share it.
        q = _of(b, self._queries)
        k, v = (_of(b, t)[:, :, : self.rows] for t in (self._keys, self._values))
        q = q if self._views else q.flatten(1, 3)
        self._put(b, *attend(q, k, v, causal=True, scale=self._scale, soft_cap=self._soft_cap))

    def nothing(self, b: slice | None) -> None:
        """What comes of no key."""
        _of(b, self._out).zero_()
        if self._lse is not None:
            _of(b, self._lse).fill_(float("-inf"))

    def _by_softmax(self, cache: torch.Tensor) -> torch.Tensor:
        """(batch, keys, kv_heads, D) -> (batch, kv_head x softmax, keys, width)."""
        return cache.unflatten(3, (self._parts, -1)).permute(0, 2, 3, 1, 4).flatten(1, 2)

    def _put(self, b: slice | None, made: torch.Tensor, lse: torch.Tensor, none: torch.Tensor | None = None) -> None:
        """Store outputs and log-sum-exps; ``none``: bool (1 or sequences, rows), where no key was admitted."""
        out = _of(b, self._out)
        if self._sinks is not None:
            shape = (made.shape[0], *self._sinks.shape[:3], self.rows)
            made = (made.view(*shape, -1) * torch.sigmoid(lse.view(shape) - self._sinks).unsqueeze(-1)).view(made.shape)
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
    """Which keys a token attends to: bool (batch, rows, keys); ``positions`` are theirs, (keys) or (batch, keys)."""
    key = positions.view(-1, 1, positions.shape[-1])
    below = key < (length + count)[:, None, None]
    if not op.causal:
        return below.expand(-1, len(after), -1)
    row = (length[:, None] + after)[..., None]
    admitted = below & (key <= row)
    if op.window is not None:
        admitted = admitted & (key > row - op.window)
    return admitted if op.chunk is None else admitted & (key // op.chunk == row // op.chunk)


def _bias(admitted: torch.Tensor, each: int, dtype: torch.dtype) -> torch.Tensor:
    """0 or minus infinity, (batch, 1, each x rows, keys); a row that sees no key sees all, its result is not used."""
    batch, rows, keys = admitted.shape
    seen = admitted | torch.logical_not(admitted.any(-1, keepdim=True))
    bias = torch.zeros(batch, rows, keys, dtype=dtype, device=admitted.device).masked_fill_(
        torch.logical_not(seen), float("-inf")
    )
    return bias[:, None, None].expand(-1, -1, each, -1, -1).reshape(batch, 1, each * rows, keys)
