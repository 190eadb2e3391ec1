"""Kernels of steps with a KV cache: turning by positions, writing keys and values, merging, choosing a token.

A rank's part of a cache is one lane: its keys lie one after the other, ``positions`` says where each stands in its
sequence. How many tokens a sequence has in the cache (``length``) and brings (``count``) is data.

On CPU the lengths are read by the host, which looks at no key beyond the longest sequence. On CUDA nothing waits for
the host: all keys for which there is room are looked at, and a bias leaves out those that are not admitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from helixctl_runtime.kernels.basic import Step, begins_at, copy, in_turn, rotate, turning


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


def alike(numbers: list[int]) -> bool:
    """Whether all are the same."""
    return numbers.count(numbers[0]) == len(numbers)


def rotate_at(
    x: torch.Tensor,
    length: torch.Tensor,
    start: int,
    angles: tuple[torch.Tensor, torch.Tensor],
    out: torch.Tensor,
    last: int | None = None,
    *,
    interleaved: bool = False,
) -> Step:
    """Turn pairs of dims by the angles of positions ``length + start``, ...: x and out (batch, seq, heads, D).

    ``angles``: cosines and sines, (positions, 1, R/2), of all positions; tokens beyond them, which are padding, turn
    like the last. R, ``last`` and ``interleaved`` are those of ``rotate``. ``out`` may be ``x``.
    """
    if last is not None and last < x.shape[-1]:
        turned = rotate_at(x[..., -last:], length, start, angles, out[..., -last:], interleaved=interleaved)
        over = begins_at(out) == begins_at(x)
        return turned if over else in_turn(copy([(out[..., :-last], x[..., :-last])]), turned)
    if not x.is_cuda:
        return _rotate_on_cpu(x, length, start, angles, out, interleaved=interleaved)
    cos, sin = angles
    batch, rows = x.shape[:2]
    after = torch.arange(start, start + rows, device=x.device)
    its_cos, its_sin = (torch.empty(batch * rows, *t.shape[1:], dtype=t.dtype, device=t.device) for t in (cos, sin))
    # As one sequence: every token has angles of its own.
    x, out = (t.view(1, batch * rows, *t.shape[2:]) for t in (x, out))
    step = rotate(x, its_cos, its_sin, out, interleaved=interleaved)
    end = cos.shape[0] - 1

    def run() -> None:
        places = (length.unsqueeze(1) + after).clamp_(max=end).flatten()
        torch.index_select(cos, 0, places, out=its_cos)
        torch.index_select(sin, 0, places, out=its_sin)
        step()

    return run


def _rotate_on_cpu(
    x: torch.Tensor,
    length: torch.Tensor,
    start: int,
    angles: tuple[torch.Tensor, torch.Tensor],
    out: torch.Tensor,
    *,
    interleaved: bool,
) -> Step:
    """``rotate_at`` with a look at the lengths: sequences of one length read their angles where they lie."""
    batch, rows = x.shape[:2]
    after = torch.arange(start, start + rows)
    turn, positions = turning(x, out, 2 * angles[0].shape[-1], interleaved=interleaved), angles[0].shape[0]

    def run() -> None:
        lengths = length.tolist()
        begin = lengths[0] + start
        if alike(lengths) and begin + rows <= positions:
            turn(*(t.narrow(0, begin, rows) for t in angles))
            return
        places = (length.unsqueeze(1) + after).clamp_(max=positions - 1).flatten()
        turn(*(t.index_select(0, places).unflatten(0, (batch, rows)) for t in angles))

    return run


def scale_queries(
    x: torch.Tensor, scales: torch.Tensor, out: torch.Tensor, length: torch.Tensor | None = None, start: int = 0
) -> Step:
    """Queries times the numbers of their positions, rounded once: x and out (batch, seq, heads, D), which may be one.

    Args:
        x: the queries.
        scales: (positions, 1, 1), float32 or wider: of the rows of ``x``, or with a cache of all positions; tokens
            beyond them, which are padding, have the last.
        out: what is made.
        length: with a cache, the tokens that it holds of every sequence, int64 (batch); the first row of ``x`` has the
            position ``length + start``.
        start: of a part of the rows, the place of the first.
    """
    if length is None:
        return lambda: torch.mul(x, scales, out=out)
    after, last = torch.arange(start, start + x.shape[1], device=x.device), scales.shape[0] - 1

    def run() -> None:
        places = (length.unsqueeze(1) + after).clamp_(max=last)
        its = scales.index_select(0, places.flatten()).unflatten(0, places.shape)
        torch.mul(x, its, out=out)

    return run


def cache_write(
    news: Sequence[torch.Tensor],
    length: torch.Tensor,
    count: torch.Tensor,
    lane: Lane,
    caches: Sequence[torch.Tensor],
) -> Step:
    """Put token t < count of each sequence at position ``length + t``, where the lane has it.

    ``news``: keys and values (batch, seq, kv_head, D). ``caches``: (batch, keys, kv_head, D), written in place.
    """
    if length.device.type == "cpu":
        return lambda: _write_runs(news, length.tolist(), count.tolist(), lane, caches)
    return _write_windows(news, length, count, lane, caches)


def _write_runs(
    news: Sequence[torch.Tensor],
    lengths: list[int],
    counts: list[int],
    lane: Lane,
    caches: Sequence[torch.Tensor],
) -> None:
    """Copy runs of tokens that follow each other in the lane, of all sequences at once where they are of one length."""
    for b in (slice(None),) if alike(lengths) and alike(counts) else range(len(lengths)):
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
    news: Sequence[torch.Tensor],
    length: torch.Tensor,
    count: torch.Tensor,
    lane: Lane,
    caches: Sequence[torch.Tensor],
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


def merge(
    part: torch.Tensor,
    lse: torch.Tensor,
    width: int,
    first: int,
    out: torch.Tensor,
    sinks: torch.Tensor | None = None,
) -> Step:
    """The lanes' attentions, weighted by their sums of exponentials.

    Args:
        part: (batch, lanes, rows, heads, D), dims ``first``, ... of every head.
        lse: (batch, lanes, rows, heads, softmaxes), float32 or wider.
        width: dims of a softmax.
        first: the first dim of a head in ``part``.
        out: (batch, rows, heads, D); 0 where every lse is minus infinity.
        sinks: (heads), a logit of each head that takes its share of the softmax and has no value.
    """
    dims = part.shape[-1]
    softmax = (torch.arange(first, first + dims, device=part.device) // width) if lse.shape[-1] > 1 else None

    wide = None if sinks is None else sinks.to(lse.dtype).unsqueeze(-1)

    def run() -> None:
        most = lse.amax(1, keepdim=True)
        if wide is not None:
            most = torch.maximum(most, wide)
        weights = torch.exp(lse - most.masked_fill(most == float("-inf"), 0))
        total = weights.sum(1, keepdim=True)
        if wide is not None:
            total += torch.exp(wide - most)
        weights /= total.clamp_(min=torch.finfo(weights.dtype).tiny)
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
