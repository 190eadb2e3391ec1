"""Kernels of steps with a cache beside their formulas in float64: ragged lengths, lanes, empty lanes, no new token."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch

from helixctl.dag import CachedAttention, PartialAttention
from helixctl.spec import PositionScalingSpec, RotarySpec
from helixctl_runtime import kernels
from helixctl_runtime.kernels import composed, lane_attention
from helixctl_runtime.kernels.cached import Lane, _write_windows
from helixctl_runtime.kernels.with_sums import attend
from helixctl_runtime.tensors.position_scaling import query_scales
from helixctl_runtime.tensors.rotary import rotations

DOUBLE = torch.float64
LENGTHS = [(0, 0, 0), (5, 5, 5), (0, 3, 17), (31, 9, 2)]
COUNTS = [(4, 4, 4), (1, 0, 4), (0, 0, 0)]
LANES = [(1, 16), (2, 4), (3, 1), (4, 3)]


def lane_of(lanes: int, lane: int, block: int, capacity: int = 36) -> Lane:
    cycles = -(-capacity // (lanes * block))
    at = (torch.arange(cycles)[:, None] * lanes + lane) * block + torch.arange(block)
    return Lane(at.flatten(), lanes, lane, block)


def every() -> Iterator[tuple[torch.Tensor, torch.Tensor, int, int]]:
    for length, count, (lanes, block) in product(LENGTHS, COUNTS, LANES):
        yield torch.tensor(length), torch.tensor(count), lanes, block


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


@pytest.mark.parametrize("windows", [False, True], ids=["as on CPU", "as on CUDA"])
def test_cache_write(windows: bool) -> None:
    """Each new token is written once, in the lane of its position, and nothing else is touched."""
    for length, count, lanes, block in every():
        news = numbers(3, 4, 2, 5), numbers(3, 4, 2, 5, seed=1)
        for own in range(lanes):
            lane = lane_of(lanes, own, block)
            before = numbers(3, lane.size, 2, 5, seed=2), numbers(3, lane.size, 2, 5, seed=3)
            caches = before[0].clone(), before[1].clone()
            write = _write_windows if windows else kernels.cache_write
            write(news, length, count, lane, caches)()
            for cache, old, new in zip(caches, before, news, strict=True):
                due = old.clone()
                for b, t in product(range(3), range(4)):
                    key = (lane.positions == length[b] + t).nonzero()
                    if t < count[b] and len(key):
                        due[b, key[0, 0]] = new[b, t]
                assert torch.equal(cache, due), (length, count, lanes, block, own)


def attended(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The formula: q (B, T, H, D), k and v (B, K, G, D), seen (B, T, K); output and log-sum-exps (B, T, H, S)."""
    each = q.shape[2] // k.shape[2]
    parts = q.shape[3] // width
    k, v = (t.repeat_interleave(each, 2).unflatten(3, (parts, -1)) for t in (k, v))
    scores = torch.einsum("bthsw,bkhsw->bthsk", q.unflatten(3, (-1, width)), k) / width**0.5
    scores = scores.masked_fill(~seen[:, :, None, None], float("-inf"))
    lse = torch.logsumexp(scores, -1)
    weights = torch.exp(scores - lse.masked_fill(lse == float("-inf"), 0)[..., None])
    return torch.einsum("bthsk,bkhsw->bthsw", weights, v).flatten(3), lse


def seen_by(op: CachedAttention | PartialAttention, at: torch.Tensor, length: torch.Tensor, count: torch.Tensor,
            rows: int) -> torch.Tensor:  # fmt: skip
    below = (at < (length + count)[:, None, None]).expand(-1, rows, -1)
    return below & (at <= length[:, None, None] + torch.arange(rows)[:, None]) if op.causal else below


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("width", [8, 4])
def test_attention_over_lanes_and_their_merge(width: int, rows: int, causal: bool) -> None:
    """A lane's attention and log-sum-exps are the formula's; merged, they are the attention over all keys."""
    op = PartialAttention(width, causal)
    for length, count, lanes, block in every():
        new = count.clamp(max=rows)
        lane = lane_of(1, 0, 48, 48)
        q, k, v = numbers(3, rows, 4, 8), numbers(3, 48, 2, 8, seed=1), numbers(3, 48, 2, 8, seed=2)
        parts, sums = [], []
        for own in range(lanes):
            mine = lane_of(lanes, own, block)
            at = mine.positions.clamp(max=47)
            out, lse = (
                torch.full((3, rows, 4, 8), torch.nan, dtype=DOUBLE),
                torch.empty(3, rows, 4, 8 // width).double(),
            )
            kernels.cached_attention(op, q, (k[:, at], v[:, at]), (length, new), mine, 0, out, lse)()
            due, logs = attended(q, k[:, at], v[:, at], seen_by(op, mine.positions, length, new, rows), width)
            torch.testing.assert_close(out, due, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(lse, logs, rtol=1e-12, atol=1e-12)
            parts.append(out)
            sums.append(lse)
        whole = torch.empty(3, rows, 4, 8, dtype=DOUBLE)
        kernels.cached_attention(
            CachedAttention(width, causal), q, (k, v), (length, new), lane, 0, whole
        )()  # fmt: skip
        torch.testing.assert_close(
            whole, attended(q, k, v, seen_by(op, lane.positions, length, new, rows), width)[0], rtol=1e-12, atol=1e-12
        )
        merged = torch.empty_like(whole)
        kernels.merge(torch.stack(parts, 1), torch.stack(sums, 1), width, 0, merged)()
        torch.testing.assert_close(merged, whole, rtol=1e-12, atol=1e-12)
        half = torch.empty(3, rows, 4, 4, dtype=DOUBLE)
        kernels.merge(torch.stack(parts, 1)[..., 4:], torch.stack(sums, 1), width, 4, half)()
        torch.testing.assert_close(half, whole[..., 4:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("counts", [(6, 6, 6), (6, 2, 6)], ids=["alike", "ragged"])
@pytest.mark.parametrize("width", [8, 4])
@pytest.mark.parametrize("causal", [True, False])
def test_prompts_into_an_empty_cache(causal: bool, width: int, counts: tuple[int, ...]) -> None:
    """As many keys as rows: a mask of the kernels' own does where the step is causal, for several queries of a head."""
    op = PartialAttention(width, causal)
    lane, length, count = lane_of(1, 0, 12, 12), torch.zeros(3, dtype=torch.int64), torch.tensor(counts)
    q, k, v = numbers(3, 6, 4, 8), numbers(3, 12, 2, 8, seed=1), numbers(3, 12, 2, 8, seed=2)
    out, lse = torch.empty(3, 6, 4, 8, dtype=DOUBLE), torch.empty(3, 6, 4, 8 // width, dtype=DOUBLE)
    kernels.cached_attention(op, q, (k, v), (length, count), lane, 0, out, lse)()
    due, logs = attended(q, k, v, seen_by(op, lane.positions, length, count, 6), width)
    torch.testing.assert_close(out, due, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(lse, logs, rtol=1e-12, atol=1e-12)


def test_a_window_that_ends_outside_the_lane_has_weight_0() -> None:
    """A lane without admitted keys makes 0 with log-sum-exp minus infinity, and all of them together make 0."""
    lane = lane_of(4, 3, 8)  # its first position is 24
    q, cache = numbers(2, 1, 2, 4), numbers(2, lane.size, 1, 4)
    out, lse = torch.full((2, 1, 2, 4), torch.nan, dtype=DOUBLE), torch.zeros(2, 1, 2, 1).double()
    counts = torch.tensor([3, 0]), torch.tensor([1, 0])
    kernels.cached_attention(PartialAttention(4, True), q, (cache, cache), counts, lane, 0, out, lse)()
    assert not out.any()
    assert (lse == float("-inf")).all()
    merged = torch.full((2, 1, 2, 4), torch.nan, dtype=DOUBLE)
    kernels.merge(torch.stack([out, out], 1), torch.stack([lse, lse], 1), 4, 0, merged)()
    assert not merged.any()


@pytest.mark.parametrize("lengths", [(0, 5, 33), (7, 7, 7), (37, 37, 37)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_goes_on_behind_the_cache(dtype: torch.dtype, lengths: tuple[int, ...]) -> None:
    """Of every sequence behind its own length; what is beyond the table turns like its last position."""
    cos, sin = (t.unsqueeze(1) for t in rotations(RotarySpec(), 8, (0, 40)))
    x = numbers(3, 4, 2, 8).to(dtype)
    out = torch.empty_like(x)
    kernels.rotate_at(x, torch.tensor(lengths), 1, (cos, sin), out)()
    for b, t in product(range(3), range(4)):
        at = min(lengths[b] + 1 + t, 39)
        due = torch.empty(1, 1, 2, 8, dtype=dtype)
        kernels.rotate(x[b : b + 1, t : t + 1], cos[at : at + 1], sin[at : at + 1], due)()
        assert torch.equal(out[b, t], due[0, 0])
    kernels.rotate_at(x, torch.tensor(lengths), 1, (cos, sin), x)()  # over its operand
    assert torch.equal(x, out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_queries_are_scaled_behind_the_cache(dtype: torch.dtype) -> None:
    """Each by the number of its own position; what is beyond the table has that of its last position."""
    scaling, lengths = PositionScalingSpec(factor=0.7, tokens=4, first=1), (0, 5, 33)
    scales = query_scales(scaling, (0, 36)).view(-1, 1, 1)
    due = [1, 1, *(1 + 0.7 * math.log(n) for n in (2, 9, 10))]
    assert scales[[0, 2, 3, 34, 35]].flatten().tolist() == pytest.approx(due, rel=1e-7)
    x = numbers(3, 4, 2, 8).to(dtype)
    due = torch.stack(
        [x[b, t].float() * scales[min(lengths[b] + 1 + t, 35)] for b, t in product(range(3), range(4))]
    ).view(x.shape)
    kernels.scale_queries(x, scales, x, torch.tensor(lengths), 1)()  # over its operand
    assert torch.equal(x, due.to(dtype))


def test_of_equal_logits_the_lowest_token_is_chosen() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 3.0, 0.0, 3.0], [5.0, 1.0, 1.0, 1.0, 5.0, 1.0]])
    pairs = []
    for first in (0, 3):
        pair = torch.empty(2, 1), torch.empty(2, 1, dtype=torch.int64)
        kernels.best(logits[:, first : first + 3], first, *pair)()
        pairs.append(pair)
    chosen = torch.empty(2, dtype=torch.int64)
    kernels.choose(torch.cat([p[0] for p in pairs], 1), torch.cat([p[1] for p in pairs], 1), chosen)()
    assert chosen.tolist() == [1, 0]


REACHES = [{"window": 1}, {"window": 3}, {"window": 40}, {"chunk": 5}]


@pytest.mark.parametrize("on_cuda", [False, True], ids=["as on CPU", "as on CUDA"])
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("reach", REACHES, ids=str)
def test_only_the_keys_in_reach_are_attended_to(
    reach: dict[str, int], rows: int, on_cuda: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every lane, by the way of each device; lanes without any such key have weight 0."""
    op = PartialAttention(8, True, **reach)
    if on_cuda:
        monkeypatch.setattr(lane_attention, "_on_cpu", _as_on_cuda)
    for length, count, lanes, block in every():
        new = count.clamp(max=rows)
        for own in range(lanes):
            lane = lane_of(lanes, own, block)
            q, k, v = numbers(3, rows, 4, 8), numbers(3, lane.size, 2, 8, seed=1), numbers(3, lane.size, 2, 6, seed=2)
            seen = seen_by(op, lane.positions, length, new, rows)
            row = length[:, None, None] + torch.arange(rows)[:, None]
            seen &= lane.positions > row - op.window if op.window else lane.positions // 5 == row // 5
            due, logs = attended(q, k, v, seen, 8)
            out, lse = torch.full((3, rows, 4, 6), torch.nan, dtype=DOUBLE), torch.empty(3, rows, 4, 1).double()
            kernels.cached_attention(op, q, (k, v), (length, new), lane, 0, out, lse)()
            real = torch.arange(rows) < new[:, None]  # of all other tokens nothing is used
            torch.testing.assert_close(out[real], due[real], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(lse[real], logs[real], rtol=1e-12, atol=1e-12)


def _as_on_cuda(
    op: PartialAttention, bound: Any, counts: tuple[torch.Tensor, torch.Tensor], lane: Lane, start: int
) -> kernels.Step:
    caches = tuple(t.transpose(1, 2) for t in (bound._keys, bound._values))  # (batch, keys, kv_heads, width)
    return lane_attention._on_cuda(op, bound, caches, counts, lane, start)  # type: ignore[arg-type]


@pytest.mark.parametrize("apart", ["q", "k", "v"])
@pytest.mark.parametrize("rows", [1, 3])
def test_dims_that_lie_apart(rows: int, apart: str) -> None:
    """As slices of one dim each bring them; the kernels themselves would read what lies between."""
    given = {"q": numbers(2, 4, rows, 4), "k": numbers(2, 2, 5, 4, seed=1), "v": numbers(2, 2, 5, 4, seed=2)}
    one = attend(*given.values(), scale=0.4)
    wide = torch.full((*given[apart].shape, 3), torch.nan, dtype=DOUBLE)
    wide[..., 0] = given[apart]
    other = attend(*(given | {apart: wide[..., 0]}).values(), scale=0.4)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("soft_cap", [None, 0.8])
def test_tiles_of_products_are_the_formula(soft_cap: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of a tile: of all sequences, of one, and of some rows of one."""
    q, k, v = numbers(3, 4, 6, 8), numbers(3, 2, 6, 8, seed=1), numbers(3, 2, 6, 5, seed=2)
    bias = torch.zeros(3, 1, 6, 6, dtype=DOUBLE).masked_fill(numbers(3, 1, 6, 6, seed=3) > 0.9, float("-inf"))
    scores = 0.3 * q @ k.repeat_interleave(2, 1).transpose(2, 3)
    scores = scores if soft_cap is None else soft_cap * torch.tanh(scores / soft_cap)
    below = torch.ones(6, 6, dtype=torch.bool).tril()
    for tile, causal in product((10**6, 100, 30), (False, True)):
        monkeypatch.setattr(composed, "_SCORES", tile)
        due = scores.masked_fill(~below, float("-inf")) if causal else scores + bias
        out, sums = composed.composed(q, k, v, None if causal else bias, causal=causal, scale=0.3, soft_cap=soft_cap)
        torch.testing.assert_close(out, torch.softmax(due, -1) @ v.repeat_interleave(2, 1), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(sums, torch.logsumexp(due, -1), rtol=1e-12, atol=1e-12)
