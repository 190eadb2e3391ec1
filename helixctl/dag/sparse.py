"""A sparse choice of keys as equations: an indexer scores all keys, and attention looks at the best alone.

The indexer's keys have a cache of their own. Where that is cut in lanes, the best of every lane are found first, and of
these the best: the same keys as without lanes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from helixctl.dag.ops import CachedSelect, Linear, MergeSelect, Norm, PartialSelect, Select
from helixctl.spec import SparseSpec

if TYPE_CHECKING:
    from helixctl.dag.function import _Equations

SELECTED = "selected"  # the keys of a layer's tokens
_QUERY = ("index_head", "index_dim")
KEY = ("kv_head", "index_dim")


def add_weights(f: _Equations, p: str) -> None:
    """Declare the weights of an indexer."""
    f.weight(p + "w_index_q", ("q_rank", *_QUERY), ("q_rank",))
    f.weight(p + "w_index_k", ("hidden", *KEY), ("hidden",))
    f.norm_weight(p + "index_k_norm", "index_dim")
    f.tensor(p + "index_k_norm_bias", "weight", ("index_dim",), (0.0, 0.125))
    f.weight(p + "w_index_factor", ("hidden", "index_head"), ("hidden",))


def index(f: _Equations, i: int, p: str, normed: str, q_latent: str) -> tuple[str, str, str]:
    """What the indexer scores with, as it leaves its projections: queries, keys and a factor of every head."""
    q, k = f.activation(p + "index_q", *_QUERY), f.activation(p + "index_k", *KEY)
    factor = f.activation(p + "index_factor", "index_head")
    f.define(i, "distribute.index_q", Linear(("q_rank",)), (q_latent, p + "w_index_q"), q)
    f.define(i, "distribute.index_k", Linear(("hidden",)), (normed, p + "w_index_k"), k)
    f.define(i, "distribute.index_factor", Linear(("hidden",), wide=True), (normed, p + "w_index_factor"), factor)
    return q, k, factor


def turned(f: _Equations, i: int, p: str, indexed: tuple[str, str, str], sparse: SparseSpec) -> tuple[str, str, str]:
    """The same, with keys normalised, and the first dims of queries and keys rotated."""
    spec, (q, k, factor) = f.block.attention, indexed
    if spec.rotary is None or spec.latent is None:
        raise TypeError(spec)  # the spec has seen to it
    norm = Norm("layer_norm", "index_dim", sparse.norm_eps, f.norm.unit_offset)
    normed = f.activation(p + "index_k_normed", *KEY)
    f.define(i, "attend.index_norm", norm, (k, p + "index_k_norm", p + "index_k_norm_bias"), normed)
    own = {"dims": spec.latent.rope_dim, "interleaved": sparse.interleaved}
    rotation = f.rotation(spec.rotary.model_copy(update=own))
    rotated = f.activation(p + "index_q_rotated", *_QUERY), f.activation(p + "index_k_rotated", *KEY)
    f.define(i, "attend.index_rotate", rotation, (q, normed, *f.held), *rotated)
    return (*rotated, factor)


def select(f: _Equations, i: int, p: str, indexed: tuple[str, str, str], sparse: SparseSpec) -> str:
    """The keys of a layer's tokens; of ``indexed`` the keys are those of the cache, where there is one."""
    chosen = f.activation(p + SELECTED, "choice")
    how = (f.extents["choice"], f.block.attention.causal, (sparse.heads * sparse.head_dim) ** -0.5)
    if not f.cached:
        f.define(i, "attend.select", Select(*how), indexed, chosen)
        return chosen
    inputs = (*indexed, *f.lengths)
    if not f.step.attends_to_lanes:
        f.define(i, "attend.select", CachedSelect(*how), inputs, chosen)
        return chosen
    best = [
        f.tensor(p + name, "activation", ("batch", "key_lane", "seq", "choice")) for name in ("best_score", "best_key")
    ]
    f.define(i, "attend.select", PartialSelect(*how), inputs, *best)
    f.define(i, "attend.merge_select", MergeSelect(), (best[0], best[1]), chosen)
    return chosen


def shared(f: _Equations, i: int) -> str:
    """The keys that the last layer with an indexer has chosen; to layers that are priced alone they are given."""
    own = next((n for n in range(i - 1, -1, -1) if f"l{n}.{SELECTED}" in f.tensors), None)
    if own is not None:
        return f"l{own}.{SELECTED}"
    if SELECTED not in f.tensors:
        f.tensor(SELECTED, "input", ("batch", "seq", "choice"), (-1.0, 0.0))
    return SELECTED
