"""A sparse choice of keys: what an indexer scores, and the best keys of every token, of one lane or of all."""

from __future__ import annotations

from typing import Final

import torch

from helixctl.dag import CachedSelect, PartialSelect, Select
from helixctl_runtime.kernels.basic import Step, wide_of
from helixctl_runtime.kernels.cached import Lane

_SCORES: Final = 2**26  # scores of all heads that are made at once
_HALF: Final = 2**32
_LAST: Final = 2**31 - 1  # above every position
_NONE: Final = float("-inf")

Indexed = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def select(op: Select, indexed: Indexed, start: int, out: torch.Tensor) -> Step:
    """The best keys of the tokens of a pass.

    Args:
        op: how many, how scores are made, and whether later keys count.
        indexed: queries (batch, rows, heads, D), keys (batch, keys, 1, D), and factors (batch, rows, heads).
        start: the position of the first query.
        out: int64 (batch, rows, top_k): positions, the best first, and -1 where there are no more.
    """
    q, k, factor = indexed
    keys = torch.arange(k.shape[1], device=q.device)
    row = torch.arange(start, start + q.shape[1], device=q.device).unsqueeze(1)
    blocks = _blocks(q, k.shape[1])

    def run() -> None:
        for rows in blocks:
            end = min(k.shape[1], start + rows.stop) if op.causal else k.shape[1]
            scores = _scores(op, q[:, rows], k[:, :end], factor[:, rows])
            if op.causal:
                scores.masked_fill_(keys[:end] > row[rows], _NONE)
            out[:, rows].copy_(_best(scores, keys[:end], op.top_k)[1])

    return run


def cached_select(
    op: CachedSelect | PartialSelect,
    indexed: Indexed,
    counts: tuple[torch.Tensor, torch.Tensor],
    lane: Lane,
    start: int,
    out: torch.Tensor,
    best: torch.Tensor | None = None,
) -> Step:
    """The best keys of one lane of a cache.

    Args:
        op: how many, how scores are made, and whether later keys count.
        indexed: as those of ``select``, the keys being all of the lane.
        counts: length and count of each sequence, int64 (batch).
        lane: where the keys stand.
        start: the first token of the queries.
        out: int64 (batch, rows, top_k): positions, the best first, and -1 where there are no more.
        best: (batch, rows, top_k), float32 or wider, for the scores, minus infinity where there are no more.
    """
    q, k, factor = indexed
    length, count = counts
    after, blocks = torch.arange(start, start + q.shape[1], device=q.device), _blocks(q, k.shape[1])

    def run() -> None:
        below = lane.positions < (length + count)[:, None, None]
        for rows in blocks:
            admitted = below
            if op.causal:
                admitted = below & (lane.positions <= (length[:, None] + after[rows]).unsqueeze(-1))
            scores = _scores(op, q[:, rows], k, factor[:, rows]).masked_fill_(torch.logical_not(admitted), _NONE)
            found, keys = _best(scores, lane.positions, op.top_k)
            out[:, rows].copy_(keys)
            if best is not None:
                best[:, rows].copy_(found)

    return run


def merge_select(score: torch.Tensor, key: torch.Tensor, out: torch.Tensor) -> Step:
    """The best keys of all lanes: scores and positions (batch, lanes, rows, top_k) -> (batch, rows, top_k)."""

    def run() -> None:
        scores, keys = (t.movedim(1, 2).flatten(2) for t in (score, key))
        out.copy_(_best(scores, keys, out.shape[-1])[1])

    return run


def slots(selected: torch.Tensor, lane: Lane) -> torch.Tensor:
    """Where chosen positions lie among the keys of a lane; ``lane.size`` for those of other lanes, and for none."""
    turn = selected.div(lane.block, rounding_mode="floor")
    inside = (selected >= 0) & (turn.remainder(lane.lanes) == lane.lane)
    place = turn.div(lane.lanes, rounding_mode="floor") * lane.block + selected.remainder(lane.block)
    return place.masked_fill_(torch.logical_not(inside), lane.size)


def named(places: torch.Tensor, size: int) -> torch.Tensor:
    """Which of ``size`` keys are among some places: bool (batch, rows, size); places from ``size`` on are none."""
    batch, rows, _ = places.shape
    found = torch.zeros(batch, rows, size + 1, dtype=torch.bool, device=places.device)
    return found.scatter_(2, places, True)[..., :size]  # noqa: FBT003  a value


def _blocks(q: torch.Tensor, keys: int) -> list[slice]:
    """Rows whose scores are made at once."""
    batch, rows, heads, _ = q.shape
    block = max(1, _SCORES // (batch * heads * keys))
    return [slice(first, min(first + block, rows)) for first in range(0, rows, block)]


def _scores(
    op: Select | CachedSelect | PartialSelect, q: torch.Tensor, k: torch.Tensor, factor: torch.Tensor
) -> torch.Tensor:
    """The sum over the heads of factor * relu(scale * q k): (batch, rows, keys), float32 or wider."""
    (batch, rows, heads, width), keys = q.shape, k.shape[1]
    wide = wide_of(q.dtype)
    folded, turned = q.reshape(batch, rows * heads, width), k.squeeze(2).transpose(1, 2)
    if q.is_cuda and q.dtype != wide:
        products = torch.bmm(folded, turned, out_dtype=wide)
    else:
        products = torch.bmm(folded.to(wide), turned.to(wide))
    weights = (factor.to(wide) * op.scale).reshape(batch * rows, 1, heads)
    return torch.bmm(weights, products.relu_().view(batch * rows, heads, keys)).view(batch, rows, keys)


def _best(scores: torch.Tensor, positions: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``count`` largest scores of the last dim and their positions; of equal ones those at lower positions.

    Where there are no more it gives minus infinity and -1. Which of equal numbers ``topk`` takes is not defined:
    so score and position are made one number, and no two of these are equal.
    """
    keys = min(count, scores.shape[-1])
    positions = positions.expand_as(scores)
    if scores.dtype == torch.float32:
        bits = (scores + 0.0).view(torch.int32).to(torch.int64)  # no negative zero
        ascending = torch.where(bits < 0, bits ^ _LAST, bits)
        order = torch.topk(ascending * _HALF + (_LAST - positions), keys, dim=-1).indices
    else:
        by_position = torch.argsort(positions, dim=-1, stable=True)
        by_score = torch.argsort(scores.gather(-1, by_position), dim=-1, descending=True, stable=True)
        order = by_position.gather(-1, by_score[..., :keys])
    found, its = scores.gather(-1, order), positions.gather(-1, order)
    its = its.masked_fill(found == _NONE, -1)
    if keys == count:
        return found, its
    more = (0, count - keys)
    return torch.nn.functional.pad(found, more, value=_NONE), torch.nn.functional.pad(its, more, value=-1)
