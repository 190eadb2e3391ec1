"""Kernels of steps with a KV cache: keys and values are written into it, and queries attend to it.

A rank's part of a cache is one lane: its keys lie one after the other, ``positions`` says where each stands in its
sequence. How many tokens a sequence has in the cache (``length``) and brings (``count``) is data.

On CPU the lengths are read by the host, which looks at no key beyond the longest sequence. On CUDA nothing waits for
the host: all keys for which there is room are looked at, and a bias leaves out those that are not admitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from helixctl.dag import CachedAttention, PartialAttention
from helixctl_runtime.kernels.basic import Step, rotate


@dataclass(frozen=True, slots=True)
class Lane:
    """The keys of a rank's part of a cache.

    Attributes:
        positions: int64 (keys), ascending: where each key stands in its sequence.
        lanes, lane, block: how positions are dealt: ``block`` to each of ``lanes`` in turn; this is ``lane``.
    """

    positions: torch.Tensor
    lanes: int
    lane: int
    block: int

    @property
    def size(self) -> int:
        """Keys for which there is room."""
        return self.positions.shape[0]

    def keys_below(self, position: int) -> int:
        """How many keys stand below a position."""
        cycles, rest = divmod(position, self.lanes * self.block)
        return cycles * self.block + min(max(rest - self.lane * self.block, 0), self.block)


def rotate_at(
    x: torch.Tensor, length: torch.Tensor, start: int, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor
) -> Step:
    """Turn pairs of dims by the angles of positions ``length + start``, ...: x and out (batch, seq, heads, D).

    ``cos`` and ``sin`` are (positions, 1, D/2), of all positions; tokens beyond them, which are padding, turn like the
    last. ``out`` may be ``x``.
    """
    batch, rows = x.shape[:2]
    after = torch.arange(start, start + rows, device=x.device)
    its_cos, its_sin = (torch.empty(batch * rows, *t.shape[1:], dtype=t.dtype, device=t.device) for t in (cos, sin))
    # As one sequence: every token has angles of its own.
    x, out = (t.view(1, batch * rows, *t.shape[2:]) for t in (x, out))
    step = rotate(x, its_cos, its_sin, out)
    last = cos.shape[0] - 1

    def run() -> None:
        places = (length.unsqueeze(1) + after).clamp_(max=last).flatten()
        torch.index_select(cos, 0, places, out=its_cos)
        torch.index_select(sin, 0, places, out=its_sin)
        step()

    return run


def cache_write(
    news: tuple[torch.Tensor, torch.Tensor],
    length: torch.Tensor,
    count: torch.Tensor,
    lane: Lane,
    caches: tuple[torch.Tensor, torch.Tensor],
) -> Step:
    """Put token t < count of each sequence at position ``length + t``, where the lane has it.

    ``news``: keys and values (batch, seq, kv_head, D). ``caches``: (batch, keys, kv_head, D), written in place.
    """
    if length.device.type == "cpu":
        return lambda: _write_runs(news, length.tolist(), count.tolist(), lane, caches)
    return _write_windows(news, length, count, lane, caches)


def _write_runs(
    news: tuple[torch.Tensor, torch.Tensor],
    lengths: list[int],
    counts: list[int],
    lane: Lane,
    caches: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Copy runs of tokens that follow each other in the lane, of all sequences at once where they are of one length."""
    alike = len(set(lengths)) == len(set(counts)) == 1
    for b in (slice(None),) if alike else range(len(lengths)):
        first = 0 if isinstance(b, slice) else b
        begin, end = lengths[first], lengths[first] + counts[first]
        key, keys = lane.keys_below(begin), lane.keys_below(end)
        while key < keys:  # runs end with a block, where the position jumps; with one lane it never does
            run = keys if lane.lanes == 1 else min(keys, key - key % lane.block + lane.block)
            at = (key // lane.block * lane.lanes + lane.lane) * lane.block + key % lane.block - begin
            for cache, new in zip(caches, news, strict=True):
                cache[b, key:run] = new[b, at : at + run - key]
            key = run


def _write_windows(
    news: tuple[torch.Tensor, torch.Tensor],
    length: torch.Tensor,
    count: torch.Tensor,
    lane: Lane,
    caches: tuple[torch.Tensor, torch.Tensor],
) -> Step:
    """Write again, of each sequence, the few cycles of its lane in which new tokens can fall: new ones, or as it was.

    The window is as long for every sequence, so that nothing depends on data but the numbers.
    """
    rows, cycle = news[0].shape[1], lane.lanes * lane.block
    size = min(lane.size, ((rows + cycle - 2) // cycle + 1) * lane.block)
    window = torch.arange(size, device=length.device)

    def run() -> None:
        # Beyond the end the window goes on at the beginning, so that no key is written twice.
        keys = ((length // cycle * lane.block).unsqueeze(1) + window).remainder_(lane.size)
        token = lane.positions[keys] - length.unsqueeze(1)
        admitted = ((token >= 0) & (token < count.unsqueeze(1)))[..., None, None]
        for cache, new in zip(caches, news, strict=True):
            at = keys[..., None, None].expand(-1, -1, *cache.shape[2:])
            found = new.gather(1, token.clamp(0, rows - 1)[..., None, None].expand_as(at))
            cache.scatter_(1, at, torch.where(admitted, found, cache.gather(1, at)))

    return run


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
    width, rows = op.softmax_width, q.shape[1]
    heads, parts = caches[0].shape[2], q.shape[3] // width
    each = q.shape[2] // heads
    # (batch, kv_head, query of it, softmax, row, width): the queries of a head of keys are rows of one attention.
    queries = q.unflatten(3, (parts, width)).unflatten(2, (heads, each)).permute(0, 2, 4, 3, 1, 5)
    target = out.unflatten(3, (parts, width)).unflatten(2, (heads, each)).permute(0, 2, 4, 3, 1, 5)
    sums = None if lse is None else lse.unflatten(2, (heads, each)).permute(0, 2, 4, 3, 1)
    keys, values = (t.unflatten(3, (parts, width)).permute(0, 2, 3, 1, 4).flatten(1, 2) for t in caches)
    after = torch.arange(start, start + rows, device=q.device)

    def attend(b: slice, last: int, admitted: torch.Tensor | None) -> None:
        """The sequences ``b`` over the first ``last`` keys; ``admitted`` is (1 or sequences, rows, last)."""
        its = target[b]
        folded = queries[b].flatten(1, 2).flatten(2, 3)
        bias = None if admitted is None else _bias(admitted, each, q.dtype)
        made, logs = _attend(folded, keys[b, :, :last], values[b, :, :last], bias)
        made, logs = made.view(its.shape), logs.view(its.shape[:-1])
        if admitted is not None:
            none = torch.logical_not(admitted[:, None, None, None, :, 0])
            made = made.masked_fill(none.unsqueeze(-1), 0)
            logs = logs.masked_fill(none, float("-inf"))
        its.copy_(made)
        if sums is not None:
            sums[b].copy_(logs)

    def run() -> None:
        length, count = counts
        if q.is_cuda:
            attend(slice(None), lane.size, _admitted(op, lane.positions, length, count, after))
            return
        lengths, ends = length.tolist(), (length + count).tolist()
        alike = len(set(lengths)) == len(set(ends)) == 1
        for b in [slice(None)] if alike else [slice(i, i + 1) for i in range(len(lengths))]:
            first = b.start or 0
            last = lane.keys_below(ends[first])
            if last == 0:
                target[b].zero_()
                if sums is not None:
                    sums[b].fill_(float("-inf"))
                continue
            one = slice(first, first + 1)
            all_seen = rows == 1 and ends[first] == lengths[first] + 1
            seen = None if all_seen else _admitted(op, lane.positions[:last], length[one], count[one], after)
            attend(b, last, seen)

    return run


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
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fused attention with its log-sum-exps: (batch, heads, rows, width), and (batch, heads, rows)."""
    aten = torch.ops.aten
    if not q.is_cuda:
        made, logs = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=bias)  # noqa: SLF001
        return made, logs
    full = None if bias is None else bias.expand(-1, q.shape[1], -1, -1)
    made, logs = aten._scaled_dot_product_efficient_attention(q, k, v, full, True)[:2]  # noqa: FBT003, SLF001
    return made, logs[..., : q.shape[2]]  # padded to a multiple of 32


def merge(part: torch.Tensor, lse: torch.Tensor, width: int, first: int, out: torch.Tensor) -> Step:
    """The lanes' attentions, weighted by their sums of exponentials.

    Args:
        part: (batch, lanes, rows, heads, D), dims ``first``, ... of every head.
        lse: (batch, lanes, rows, heads, softmaxes), float32 or wider.
        width: dims of a softmax.
        first: the first dim of a head in ``part``.
        out: (batch, rows, heads, D); 0 where every lse is minus infinity.
    """
    dims = part.shape[-1]
    softmax = (torch.arange(first, first + dims, device=part.device) // width) if lse.shape[-1] > 1 else None

    def run() -> None:
        most = lse.amax(1, keepdim=True)
        weights = torch.exp(lse - most.masked_fill(most == float("-inf"), 0))
        weights /= weights.sum(1, keepdim=True).clamp_(min=torch.finfo(weights.dtype).tiny)
        its = weights if softmax is None else weights.index_select(-1, softmax)
        out.copy_((part.to(weights.dtype) * its).sum(1))

    return run


def best(logits: torch.Tensor, first: int, out_logit: torch.Tensor, out_token: torch.Tensor) -> Step:
    """The largest logit of each sequence and the lowest token that has it: (batch, V) -> twice (batch, 1).

    ``first`` is the token of the first logit.
    """

    def run() -> None:
        token = logits.argmax(-1, keepdim=True)
        out_logit.copy_(logits.gather(-1, token))
        torch.add(token, first, out=out_token)

    return run


def choose(logit: torch.Tensor, token: torch.Tensor, out: torch.Tensor) -> Step:
    """The token of the largest logit: (batch, shares) twice -> (batch); of equal logits that of the first share."""
    return lambda: torch.gather(token, 1, logit.argmax(1, keepdim=True), out=out.unsqueeze(1))
