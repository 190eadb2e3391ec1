"""Shardings: how every tensor is cut over a tensor-parallel group. The one place that knows what an axis cuts.

A tensor has two: how it is *made* (or owned), and how it is *read*. Lowering puts a collective between the two where
they differ (helixctl.lower.reshard); the proofs compare what ranks own and make with the first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Final, Literal, NamedTuple

from helixctl.plan.layout import Axis, Interval, Layout, Microbatch, full_extents, share, weighted_shares
from helixctl.records import record
from helixctl.spec import ModelSpec, Step

Region = tuple[Interval, ...]
Rule = Literal["even", "weighted", "causal_rows", "kv_heads", "joined"]


class Cut(NamedTuple):
    """One dim, cut over one axis of the mesh.

    Attributes:
        dim: the dim that is cut; a tensor without it is whole.
        axis: the axis over which it is cut: share i is on the ranks with index i.
        rule: how large the shares are. even: ``share``. weighted: as ``group_shares`` of the layout weigh the groups;
            without it even. causal_rows: as even as can be in pairs (query row, key) of a causal model
            (``causal_share``). kv_heads: weighted, whole KV heads with the query heads that they serve; where there are
            more groups than KV heads, a part of the query heads of one KV head. joined: of the batch, and no share: the
            sequences of all replicas along the axis, where a tensor without this cut has those of its replica.
    """

    dim: str
    axis: Axis
    rule: Rule = "even"


@record
class Sharding:
    """How a tensor lies over a tensor-parallel group.

    Attributes:
        cuts: the dims that are cut; all others are whole on every rank.
        partial: contracted dims that are cut: what a rank has is a sum over its shares of them alone.
        owner: who has it: all ranks of the group, or the first alone.
    """

    cuts: tuple[Cut, ...] = ()
    partial: tuple[Cut, ...] = ()
    owner: Literal["all", "first"] = "all"


class Sharded(NamedTuple):
    """How a tensor is made, or owned where it is given, and how its readers take it."""

    made: Sharding
    read: Sharding


_NONE: Final = Microbatch((0, 0), (0, 0))
WHOLE: Final = Sharding()
WHOLE_ALWAYS: Final = Sharded(WHOLE, WHOLE)
_HEADS: Final = (Cut("head", "groups", "kv_heads"), Cut("kv_head", "groups", "kv_heads"))
_SLICED_HEADS: Final = (*_HEADS, Cut("head_dim", "slices"))
_COLUMNS: Final = (Cut("hidden", "tensor", "weighted"),)
_VOCABULARY: Final = (Cut("vocab", "tensor", "weighted"),)
_WIDTH: Final = (Cut("expert", "experts", "weighted"), Cut("ffn", "expert_tensor", "weighted"))
_SHARED_WIDTH: Final = (Cut("shared_ffn", "spread", "weighted"),)  # of one replica: all ranks of the team
JOINED: Final = Cut("batch", "replicas", "joined")


def kind_of(tensor: str) -> str:
    """A tensor's name without its layer: tensors of one kind are cut alike in all layers of one block."""
    return tensor.rpartition(".")[2]


def layer_of(tensor: str) -> int:
    """The layer of a tensor by its name, ``l12.q``; of those at the ends of a model, which no block changes, 0."""
    layer = tensor.partition(".")[0]
    return int(layer[1:]) if layer != tensor else 0


Table = Mapping[str, Sharded]  # by kind of tensor; what is not in it is whole whenever it is made and read


def shardings(layout: Layout, model: ModelSpec, step: Step) -> Table:
    """The table of a layout. Layouts that differ in the sizes of their axes alone have one and the same."""
    form = _Form(
        layout.shared_dim,
        layout.combine == "concat",
        residual(layout, step),
        _rows_of(model, step),
        model.attention.qkv_bias,
        model.attention.value_dim_name,
        model.attention.output_gate,
        model.attention.latent is not None,
        model.attention.sparse is not None,
        model.attention.qk_norm and model.attention.qk_norm_over == "projection",
        model.feed_forward.experts is not None,
        model.feed_forward.experts is not None and model.feed_forward.experts.shared is not None,
        model.feed_forward.experts is not None and model.feed_forward.experts.norms == "apart",
        step.logits == "last",
        step.cached is not None,
        step.sampling is not None,
        step.expanded,
        step.by_rows,
        layout.expert_data > 1 and model.feed_forward.experts is not None,
    )
    return _table(form)


class _Form(NamedTuple):
    """What the table depends on."""

    shared_dim: str
    concat: bool
    stream: Sharding
    rows: Rule
    qkv_bias: bool
    value_dim: str
    gated: bool
    latent: bool
    sparse: bool
    squares: bool
    experts: bool
    shared: bool
    apart: bool
    last: bool
    cached: bool
    sampled: bool
    expanded: bool
    by_rows: bool
    joined: bool


@cache
def _table(form: _Form) -> Table:
    table = (
        _attention(form)
        | (_latent(form) if form.latent else {})
        | (_sparse(form) if form.sparse else {})
        | _feed_forward(form)
        | _ends(form)
    )
    return {kind: entry for kind, entry in table.items() if entry != WHOLE_ALWAYS}


def _rows_of(model: ModelSpec, step: Step) -> Rule:
    """How query rows are dealt: evenly, too, where none of them attends to more than half of the others.

    Rows behind what a cache holds attend to that before all, so that they are dealt evenly.
    """
    attention = model.attention
    if step.cached:
        return "even"
    reach = attention.sliding_window or attention.chunk
    return "causal_rows" if attention.causal and (reach is None or 2 * reach > step.seq_len) else "even"


def residual(layout: Layout, step: Step) -> Sharding:
    """How the residual stream lies between the blocks: cut by query rows where there are enough, else by sequences."""
    if layout.residual == "replicated":
        return WHOLE
    return Sharding((Cut("seq" if step.seq_len >= layout.partitions else "batch", "tensor"),))


def _alike(*cuts: Cut) -> Sharded:
    """A tensor that is read as it is made."""
    return Sharded(Sharding(cuts), Sharding(cuts))


def _attention(form: _Form) -> dict[str, Sharded]:
    """Weights, Q, K and V are cut by heads and head_dim; attention takes them as the slicing has it."""
    concat, stream = form.concat, form.stream
    queries, keys = _attended(form)
    bias = "_biased" if form.qkv_bias else ""
    sliced, values = Sharding(_SLICED_HEADS), _of_values(form, Sharding(_SLICED_HEADS))
    made = {"q": sliced, "k": sliced, "v": values}
    read = {"q": queries, "k": keys, "v": _of_values(form, keys)}
    table = {f"{x}_{n}": Sharded(made[n], made[n]) for n in "qkv" for x in "wb"}
    table |= {n: Sharded(made[n], made[n]) for n in "qkv"}
    table |= {n + bias: Sharded(made[n], read[n]) for n in "qkv"}
    table |= {f"q{stage}": Sharded(queries, queries) for stage in ("_normed", "_rotated", "_scaled")}
    table |= {f"k{stage}": Sharded(keys, keys) for stage in ("_normed", "_rotated")}
    table |= {f"v{stage}": Sharded(read["v"], read["v"]) for stage in ("_normed", "_scaled")}
    if form.squares:  # normalised as they are made, and then exchanged
        table["qk_squares"] = Sharded(Sharding(partial=(_HEADS[0], Cut("head_dim", "slices"))), WHOLE)
        table |= {n + bias: _alike(*_SLICED_HEADS) for n in "qk"}
        table |= {f"{n}_normed": Sharded(Sharding(_SLICED_HEADS), queries if n == "q" else keys) for n in "qk"}
    table |= {f"{n}_norm": _alike(*(_SLICED_HEADS if form.squares else _HEADS)) for n in "qk"}  # of every head, if any
    merged = form.shared_dim == "key" and not form.by_rows
    attention = values if merged else _of_values(form, queries)
    table["attention"] = Sharded(attention, WHOLE if concat else values)
    if form.gated:  # made as queries are, and taken as what it gates lies
        table |= {"w_output_gate": Sharded(values, values), "output_gate": Sharded(values, attention)}
        table |= {n: Sharded(attention, attention) for n in ("output_gate_sigmoid", "attention_ungated")}
    if form.cached:
        table |= _cache(form)
    table["sinks"] = _alike(*_HEADS)
    table["w_o"] = _alike(*(_COLUMNS if concat else values.cuts))
    rows = tuple(cut for cut in values.cuts if cut.dim != "kv_head")
    table["projection"] = Sharded(Sharding(_COLUMNS) if concat else Sharding(partial=rows), stream)
    table |= {n: Sharded(stream, stream) for n in ("projection_biased", "projection_normed", "residual")}
    table["attention_in"] = Sharded(stream, WHOLE)
    return table


def _of_values(form: _Form, sharding: Sharding) -> Sharding:
    """The sharding of values, whose heads may have a dim of their own."""
    return Sharding(tuple(c._replace(dim=form.value_dim) if c.dim == "head_dim" else c for c in sharding.cuts))


def _cache(form: _Form) -> dict[str, Sharded]:
    """The KV cache lies as attention takes keys and values; by key each slice has the positions of its lane.

    By query rows a slice attends over those of all lanes.
    """
    lane, read = Cut("key_lane", "slices"), _attended(form)[1]
    keys = Sharding((*_HEADS, lane)) if form.shared_dim == "key" else read
    taken = read if form.by_rows else keys
    table = {f"{n}_cache": Sharded(its, its) for n, its in (("k", keys), ("v", _of_values(form, keys)))}
    table |= {"k_cached": Sharded(keys, taken), "v_cached": Sharded(*(_of_values(form, its) for its in (keys, taken)))}
    table["attention_part"] = Sharded(Sharding((*_HEADS, lane)), _of_values(form, Sharding(_SLICED_HEADS)))
    table["attention_lse"] = Sharded(Sharding((*_HEADS, lane)), Sharding(_HEADS))
    return table


def _latent(form: _Form) -> dict[str, Sharded]:
    """The latent and the rotated key are of all heads: no group cuts them, or the weights that make them.

    Queries are cut as ever. What one head makes of the latent is cut by heads alone, and so are its weights.
    """
    heads, lane = _HEADS[:1], Cut("key_lane", "slices")
    queries = Sharding(tuple(cut for cut in _attended(form)[0].cuts if cut.dim in {"head", "batch", "seq"}))
    keys = tuple(cut for cut in queries.cuts if cut.dim == "batch")
    kept = (lane,) if form.shared_dim == "key" else keys
    table = {n: Sharded(WHOLE, Sharding(keys)) for n in ("kv_down", "k_rope")}
    table |= {n: _alike(*keys) for n in ("kv_latent", "k_rope_rotated", "latent")}
    table |= {n: _alike(*heads) for n in ("w_k", "w_v")}
    table |= {n: _alike(*heads, *keys) for n in ("k_nope", "k", "v")}
    taken = keys if form.by_rows else kept
    table |= {"latent_cache": _alike(*kept), "latent_cached": Sharded(Sharding(kept), Sharding(taken))}
    if form.expanded:
        table |= {f"{n}_expanded": _alike(*heads, *taken) for n in "kv"}
    table |= {n: Sharded(queries, queries) for n in ("q_rotated", "q_scaled", "q_absorbed", "attention_latent")}
    if form.cached and form.shared_dim == "key" and not form.by_rows:
        table["attention_latent"] = _alike(*heads, lane)
    return table


def _sparse(form: _Form) -> dict[str, Sharded]:
    """The indexer is of all heads, so that no group cuts it; its cache lies as that of the latent does.

    By key every slice scores the keys of its lane. The best of all lanes are those of all tokens, for every slice. By
    query rows it scores all keys for its own tokens.
    """
    queries = Sharding(tuple(cut for cut in _attended(form)[0].cuts if cut.dim in {"batch", "seq"}))
    keys, lane = tuple(cut for cut in queries.cuts if cut.dim == "batch"), (Cut("key_lane", "slices"),)
    kept = lane if form.shared_dim == "key" else keys
    taken = keys if form.by_rows else kept
    table = {n: Sharded(WHOLE, queries) for n in ("index_q", "index_factor")}
    table["index_k"] = Sharded(WHOLE, Sharding(keys))
    table |= {n: _alike(*keys) for n in ("index_k_normed", "index_k_rotated")}
    table |= {n: _alike(*queries.cuts) for n in ("index_q_rotated", "selected")}
    table |= {"index_k_cache": _alike(*kept), "index_k_cached": Sharded(Sharding(kept), Sharding(taken))}
    table |= {n: Sharded(Sharding(lane), WHOLE) for n in ("best_score", "best_key")}
    return table


def _attended(form: _Form) -> tuple[Sharding, Sharding]:
    """How attention takes queries, and keys and values."""
    match form.shared_dim:
        case "key" if not form.by_rows:
            return Sharding(_HEADS), Sharding(_HEADS)
        case "batch":
            both = Sharding((*_HEADS, Cut("batch", "slices")))
            return both, both
        case "seq" | "key":
            rows = Cut("seq", "slices", form.rows)
            return Sharding((*_HEADS, rows)), Sharding(_HEADS)
        case _:
            return Sharding(_SLICED_HEADS), Sharding(_SLICED_HEADS)


def _feed_forward(form: _Form) -> dict[str, Sharded]:
    """Columns up, rows down (Megatron-LM, Shoeybi et al. 2019, section 3), of every expert that a rank holds.

    Where replicas share experts, each of their ranks reads the tokens of all, which it routes as well.
    """
    width = _WIDTH if form.experts else (Cut("ffn", "tensor", "weighted"),)
    tokens = (JOINED,) if form.joined else ()
    read = Sharding(tokens)
    table = {n: _alike(*width) for n in ("w_gate", "w_up", "w_down")}
    table |= {n: _alike(*width) for n in ("gate", "up", "activated", "inner")}
    table |= {n: _alike(*width) for n in ("b_gate", "b_up", "gate_biased", "up_biased")}
    table |= {n: Sharded(form.stream, form.stream) for n in ("down_biased", "down_normed")}
    if form.experts:
        table["b_down"] = _alike(*width[:1])
        table["gates"] = Sharded(read, read)
    shared = _SHARED_WIDTH if form.shared else ()
    if form.shared:
        table |= {f"w_shared_{n}": _alike(*shared) for n in ("gate", "up", "down")}
        table |= {f"shared_{n}": _alike(*shared, *tokens) for n in ("gate", "up", "activated", "inner", "scored")}
        # Both are partial sums; one reduction is of their sum.
        table["routed"] = Sharded(*(Sharding(tokens, partial=width),) * 2)
        table["shared_down"] = Sharded(*(Sharding(tokens, partial=shared),) * 2)
    table["down"] = Sharded(Sharding(tokens, partial=(*width, *shared)), form.stream)
    if form.apart:  # each is normalised, and so reduced, by itself
        table |= {n: Sharded(table[n].made, form.stream) for n in ("routed", "shared_down")}
        table |= {n: Sharded(form.stream, form.stream) for n in ("routed_normed", "shared_down_normed", "down")}
        table |= {n: Sharded(form.stream, read) for n in ("experts_in", "router_in")}
    table["feed_forward_in"] = Sharded(form.stream, read)
    table |= {n: Sharded(form.stream, form.stream) for n in ("output", "unscaled_output")}
    return table


def _ends(form: _Form) -> dict[str, Sharded]:
    """The first rank has the input; embedding, head and logits are cut by vocabulary."""
    stream = form.stream
    first = Sharding(owner="first")
    table = {"input": Sharded(first, stream), "input_ids": WHOLE_ALWAYS if form.cached else Sharded(first, WHOLE)}
    table |= {n: _alike(*_VOCABULARY) for n in ("embedding", "w_head", "unscaled_logits", "logits")}
    if form.sampled:
        table["logits"] = Sharded(Sharding(_VOCABULARY), WHOLE)
    table |= {n: Sharded(Sharding((Cut("vocab_share", "tensor"),)), WHOLE) for n in ("best_logit", "best_token")}
    table["embedded"] = Sharded(Sharding(partial=_VOCABULARY), stream)
    if form.last and any(cut.dim == "seq" for cut in stream.cuts):
        # Whose rows hold a sequence's last token is data: all look, and a sum has it.
        table["last_hidden"] = Sharded(Sharding(partial=stream.cuts), WHOLE)
    else:
        table["length"] = WHOLE_ALWAYS if form.cached else Sharded(stream, stream)
        table["last_hidden"] = Sharded(stream, stream)
        table["normed"] = Sharded(stream, WHOLE)
    return table


# --- shares: all index arithmetic ------------------------------------------------------------------------------------


def _heads(dim: str, layout: Layout, rank: int, model: ModelSpec) -> Interval:
    """The heads of queries (``head``), or of keys and values, of a rank's group."""
    count, each = model.attention.key_heads, model.attention.queries_per_key
    groups, group = layout.groups, layout.group_of(rank)
    if groups <= count:
        first, last = layout.share("groups", rank, count)
        return (first * each, last * each) if dim == "head" else (first, last)
    several = groups // count  # that hold one KV head
    key, part = divmod(group, several)
    if dim == "kv_head":
        return (key, key + 1)
    weights = layout.weights_of_groups[key * several : (key + 1) * several]
    first, last = weighted_shares(each, weights or (1,) * several)[part]
    return (key * each + first, key * each + last)


@cache
def causal_share(size: int, parts: int, index: int) -> Interval:
    """The ``index``-th of ``parts`` runs of ``range(size)`` that have about as many pairs (row, row or one before)."""
    ends = [0]
    for part in range(1, parts + 1):
        pairs = size * (size + 1) * part // parts  # twice those of the first parts
        row = math.isqrt(1 + 4 * pairs) // 2
        ends.append(min(max(row, ends[-1] + 1), size - parts + part))  # every part has a row
    return (ends[index], ends[index + 1])


def shares_of_blocks(layout: Layout, model: ModelSpec, step: Step) -> dict[str, Shares]:
    """What the tables give the ranks of one plan, by the name of the block: see ``ModelSpec.kind``."""
    return {kind: Shares(layout, model.alike(kind), step) for kind in model.kinds}


class Shares:
    """What the table gives the ranks of one plan, in the layers of one block."""

    def __init__(self, layout: Layout, model: ModelSpec, step: Step) -> None:
        """Make the table.

        Args:
            layout: how the plan cuts, legal for the model.
            model: what is cut, as if all its layers were of that block.
            step: gives the sizes of batch and seq, and of the KV cache.
        """
        self.layout, self.model, self.step = layout, model, step
        self.table = shardings(layout, model, step)
        self._extents = full_extents(model, step)
        self._intervals: dict[tuple[Cut, int], Interval] = {}
        self._places: dict[tuple[Axis, int], tuple[int, int]] = {}
        self._sharded: dict[str, Sharded] = {}

    def of(self, tensor: str) -> Sharded:
        """How a tensor is made and read."""
        found = self._sharded.get(tensor)
        if found is None:
            self._sharded[tensor] = found = self.table.get(kind_of(tensor), WHOLE_ALWAYS)
        return found

    def cut(self, sharding: Sharding, rank: int, batch: Microbatch = _NONE) -> dict[str, Interval]:
        """A rank's share of every dim that a sharding cuts, contracted ones among them.

        Args:
            sharding: how a tensor is cut.
            rank: whose share.
            batch: the microbatch.
        """
        return {c.dim: self.interval(c, rank, batch) for c in (*sharding.cuts, *sharding.partial)}

    def region(self, dims: tuple[str, ...], sharding: Sharding, rank: int, batch: Microbatch) -> Region:
        """A rank's region of a tensor with these dims, in a microbatch."""
        cut = {"batch": batch.own, **{c.dim: self.interval(c, rank, batch) for c in sharding.cuts if c.dim in dims}}
        return tuple([cut.get(dim) or (0, self._extents[dim]) for dim in dims])

    def interval(self, cut: Cut, rank: int, batch: Microbatch) -> Interval:
        """A rank's share of a dim; of the batch its share of a microbatch of its replica, or all that is joined."""
        if cut.dim == "batch":
            if cut.rule == "joined":
                return batch.joined
            start, stop = batch.own
            first, last = share(stop - start, *self.place(cut.axis, rank))
            return (start + first, start + last)
        key = (cut, rank)
        if key not in self._intervals:
            self._intervals[key] = self._share(cut, rank)
        return self._intervals[key]

    def place(self, axis: Axis, rank: int) -> tuple[int, int]:
        """Into how many shares an axis cuts, and which of them is a rank's."""
        found = self._places.get((axis, rank))
        if found is None:
            found = self._places[axis, rank] = (self.layout.ways(axis), self.layout.index(axis, rank))
        return found

    def _share(self, cut: Cut, rank: int) -> Interval:
        ways, index = self.place(cut.axis, rank)
        match cut.rule:
            case "kv_heads":
                return _heads(cut.dim, self.layout, rank, self.model)
            case "weighted":
                return self.layout.share(cut.axis, rank, self._extents[cut.dim])
            case "causal_rows":
                return causal_share(self._extents[cut.dim], ways, index)
            case _:
                return share(self._extents[cut.dim], ways, index)
