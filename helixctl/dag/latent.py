"""Multi-head latent attention as equations: expanded, or absorbed over a cache.

Expanded, every head has keys and values of its own, products of the latent. A cache holds the latent and the rotated
key alone. Absorbed, a head's queries are multiplied with its part of the keys' weight instead, and what it attends to
with its part of the values' weight: the same sums in another order, and one head of keys for all heads of queries. That
is fewer operations for few new tokens. For many it pays to expand the cache, for which a step may ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from helixctl.dag import sparse
from helixctl.dag.ops import (
    Attention,
    CachedAttention,
    Expand,
    HeadLinear,
    Join,
    Linear,
    Merge,
    Norm,
    PartialAttention,
)
from helixctl.spec import LatentSpec

if TYPE_CHECKING:
    from helixctl.dag.function import _Equations

_QUERY = ("head", "head_dim")
_ROTATED = ("kv_head", "rope_dim")
_SHARED = ("kv_head", "latent")
_SCORE = "latent"  # the dim over which queries and keys of the cache are multiplied


def add_weights(f: _Equations, p: str, latent: LatentSpec) -> None:
    """Declare the weights that make queries, keys and values."""
    source = "hidden"
    if latent.q_rank is not None:
        f.weight(p + "w_q_down", ("hidden", "q_rank"), ("hidden",))
        f.norm_weight(p + "q_down_norm", "q_rank")
        source = "q_rank"
    f.weight(p + "w_q", (source, *_QUERY), (source,))
    f.weight(p + "w_kv_down", ("hidden", "kv_rank"), ("hidden",))
    f.weight(p + "w_k_rope", ("hidden", *_ROTATED), ("hidden",))
    f.norm_weight(p + "kv_down_norm", "kv_rank")
    f.weight(p + "w_k", ("kv_rank", "head", "nope_dim"), ("kv_rank",))
    f.weight(p + "w_v", ("kv_rank", *f.heads), ("kv_rank",))
    if (its := f.block.attention.sparse) and not its.shared:
        sparse.add_weights(f, p)


def attend(f: _Equations, i: int, p: str, normed: str, latent: LatentSpec) -> str:
    """What attention makes of a layer's normalised input: (batch, seq, head, v_dim)."""
    spec = f.block.attention
    down = p + "w_kv_down", p + "w_k_rope"
    made = f.activation(p + "kv_down", "kv_rank"), f.activation(p + "k_rope", *_ROTATED)
    q = f.activation(p + "q", *_QUERY)
    indexed: tuple[str, str, str] | None = None
    if latent.q_rank is None:
        f.define(i, "distribute.q", Linear(("hidden",)), (normed, p + "w_q", *down), q, *made)
    else:
        q_down, q_latent = (f.activation(p + name, "q_rank") for name in ("q_down", "q_latent"))
        f.define(i, "distribute.down", Linear(("hidden",)), (normed, p + "w_q_down", *down), q_down, *made)
        norm = Norm("rms_norm", "q_rank", latent.norm_eps)
        f.define(i, "distribute.q_norm", norm, (q_down, p + "q_down_norm"), q_latent)
        f.define(i, "distribute.q", Linear(("q_rank",)), (q_latent, p + "w_q"), q)
        if spec.sparse and not spec.sparse.shared:
            indexed = sparse.index(f, i, p, normed, q_latent)
    kv, rope = made
    shared = f.activation(p + "kv_latent", "kv_rank")
    f.define(i, "attend.kv_norm", Norm("rms_norm", "kv_rank", latent.norm_eps), (kv, p + "kv_down_norm"), shared)
    if spec.rotary is None:
        raise TypeError(spec)  # the spec has seen to it
    rotation = f.rotation(spec.rotary, latent.rope_dim)
    turned = f.activation(p + "q_rotated", *_QUERY), f.activation(p + "k_rope_rotated", *_ROTATED)
    f.define(i, "attend.rotate", rotation, (q, rope, *f.held), *turned)
    if spec.sparse and indexed:
        indexed = sparse.turned(f, i, p, indexed, spec.sparse)
    queries = f.scaled_queries(i, p, turned[0])
    if not f.cached:
        return _expanded(f, i, p, queries, shared, turned[1], indexed)
    key = f.activation(p + "latent", *_SHARED)
    f.define(i, "attend.join", Join(), (shared, turned[1]), key)
    kept: dict[str, tuple[str, tuple[str, ...]]] = {"latent": (key, _SHARED)}
    if indexed is None:
        (cached,) = f.add_cache(i, p, kept)
    else:
        index_q, index_k, factor = indexed
        cached, index_k = f.add_cache(i, p, kept | {"index_k": (index_k, sparse.KEY)})
        indexed = index_q, index_k, factor
    if f.step.expanded:
        return _expanded_cache(f, i, p, queries, cached, indexed)
    return _absorbed(f, i, p, queries, cached, indexed)


def _selected(f: _Equations, i: int, p: str, indexed: tuple[str, str, str] | None) -> tuple[str, ...]:
    """The keys that the tokens of a layer attend to, where not to all: its own choice, or one that it shares."""
    spec = f.block.attention
    if spec.sparse is None:
        return ()
    return (sparse.shared(f, i) if indexed is None else sparse.select(f, i, p, indexed, spec.sparse),)


def _expanded(
    f: _Equations, i: int, p: str, q: str, shared: str, rope: str, indexed: tuple[str, str, str] | None
) -> str:
    """Keys and values of every head."""
    spec = f.block.attention
    k_nope, v = f.activation(p + "k_nope", "head", "nope_dim"), f.activation(p + "v", *f.heads)
    f.define(i, "attend.expand", Linear(("kv_rank",)), (shared, p + "w_k", p + "w_v"), k_nope, v)
    k, attention = f.activation(p + "k", *_QUERY), f.activation(p + "attention", *f.heads)
    f.define(i, "attend.join", Join(), (k_nope, rope), k)
    selected = _selected(f, i, p, indexed)
    op = Attention(spec.head_dim, spec.causal, scale=spec.scale, top_k=f.top_k)
    f.define(i, "attend", op, (q, k, v, *selected), attention)
    return attention


def _expanded_cache(f: _Equations, i: int, p: str, q: str, cached: str, indexed: tuple[str, str, str] | None) -> str:
    """Keys and values of every head, of all positions that the cache holds."""
    spec = f.block.attention
    k, v = f.of_positions(p + "k_expanded", *_QUERY), f.of_positions(p + "v_expanded", *f.heads)
    f.define(i, "attend.expand", Expand(), (cached, p + "w_k", p + "w_v", *f.lengths), k, v)
    scores = (spec.head_dim, spec.causal, None, None, spec.scale, None, f.top_k)
    return f.attend_cache(i, p, (q, k, v, *f.lengths, *_selected(f, i, p, indexed)), scores)


def _absorbed(f: _Equations, i: int, p: str, q: str, cached: str, indexed: tuple[str, str, str] | None) -> str:
    """The latent and the rotated key are both key and value; of what is attended to the former is looked at."""
    spec = f.block.attention
    how, scale = (f.extents[_SCORE], spec.causal), spec.scale or spec.head_dim**-0.5
    absorbed = f.activation(p + "q_absorbed", "head", _SCORE)
    f.define(i, "attend.absorb", HeadLinear("nope_dim", rest=True), (q, p + "w_k"), absorbed)
    inputs = (absorbed, cached, cached, *f.lengths, *_selected(f, i, p, indexed))
    attention = f.activation(p + "attention", *f.heads)
    if not f.step.attends_to_lanes:
        attended = f.activation(p + "attention_latent", "head", _SCORE)
        f.define(i, "attend", CachedAttention(*how, scale=scale, top_k=f.top_k), inputs, attended)
        f.define(i, "attend.values", HeadLinear("kv_rank"), (attended, p + "w_v"), attention)
        return attention
    attended, part, lse = (
        f.of_lanes(p + f"attention_{name}", dim)
        for name, dim in (("latent", _SCORE), ("part", f.heads[1]), ("lse", "softmax"))
    )
    f.define(i, "attend", PartialAttention(*how, scale=scale, top_k=f.top_k), inputs, attended, lse)
    # The values' weight ahead of the exchange: a part is then as wide as a value, not as the latent.
    f.define(i, "attend.values", HeadLinear("kv_rank", parts=True), (attended, p + "w_v"), part)
    f.define(i, "attend.merge", Merge(spec.value_dim), (part, lse), attention)
    return attention
