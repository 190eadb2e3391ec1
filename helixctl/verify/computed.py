"""What every computing task makes, derived from its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from helixctl.dag import (
    Attention,
    CachedAttention,
    CachedSelect,
    Dag,
    HeadLinear,
    Linear,
    Norm,
    PartialAttention,
    PartialSelect,
    Select,
    Task,
    Value,
)
from helixctl.dag.formulas import expert_matrices
from helixctl.dag.ops import contracted
from helixctl.plan import Interval
from helixctl.verify.findings import partial_text
from helixctl.verify.rule import (
    Made,
    RuleError,
    all_of,
    axis_of,
    interval,
    made,
    op_of,
    same_tokens,
    summed,
    whole_sum,
)


def _embed(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    ids, table = values
    rows, size = table.region[0], dag.tensor[table.tensor].shape[0]
    partial = () if rows == (0, size) else (("vocab", rows),)
    return [made(dag, task.op, (*ids.region, table.region[1]), partial)]


def _norm(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    x, *weights = values
    whole_sum(*values)
    tensor, dim = dag.tensor[x.tensor], op_of(task, Norm).dim
    axis = axis_of(tensor, dim)
    if x.region[axis] != (0, tensor.shape[axis]):
        msg = f"normalises {dim} {interval(x.region[axis])} of {x.id}; the mean needs all {tensor.shape[axis]}"
        raise RuleError(msg)
    for weight in weights:
        dims = dag.tensor[weight.tensor].dims
        if tensor.dims[-len(dims) :] != dims or weight.region != x.region[-len(dims) :]:
            msg = f"weight {weight.id} has {weight.region}, its input has {', '.join(dims)} {x.region[-len(dims) :]}"
            raise RuleError(msg)
    return [made(dag, task.op, x.region)]


def _square_sums(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    q, k = values
    whole_sum(*values)
    keys = _key_heads(dag, q, k)
    if (*k.region[:2], k.region[3]) != (*q.region[:2], q.region[3]) or k.region[2] != keys:
        msg = f"{k.id} is not the keys of {q.id}, which are those of kv_head {interval(keys)}"
        raise RuleError(msg)
    tensor = dag.tensor[q.tensor]
    cuts = zip(contracted(task.op), q.region[2:], tensor.full[2:], strict=True)
    partial = tuple((dim, iv) for dim, iv, whole in cuts if iv != whole)
    return [made(dag, task.op, (*q.region[:2], (0, 2)), partial)]


def _norm_by_sums(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    q, k, sums, *weights = values
    whole_sum(*values)
    all_of(dag, sums, 2, "a norm of q and k needs all")
    for x, weight in zip((q, k), weights, strict=True):
        if x.region[:2] != sums.region[:2]:
            msg = f"{x.id} and {sums.id} are of different tokens"
            raise RuleError(msg)
        if dag.tensor[weight.tensor].dims != dag.tensor[x.tensor].dims[2:] or weight.region != x.region[2:]:
            msg = f"weight {weight.id} has {weight.region}, its input has {x.region[2:]}"
            raise RuleError(msg)
    return [made(dag, task.op, x.region, output=i) for i, x in enumerate((q, k))]


def _linear(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    return [_product(dag, op_of(task, Linear), values[0], weight) for weight in values[1:]]


def _product(dag: Dag, op: Linear, x: Value, weight: Value) -> Made:
    whole_sum(x, weight)
    tx, tw = dag.tensor[x.tensor], dag.tensor[weight.tensor]
    partial = []
    for dim in op.contract:
        i, j = axis_of(tx, dim), axis_of(tw, dim)
        if x.region[i] != weight.region[j]:
            have, other = interval(x.region[i]), interval(weight.region[j])
            msg = f"contracts {dim} {have} of {x.id} with {dim} {other} of {weight.id}"
            raise RuleError(msg)
        if x.region[i] != (0, tx.shape[i]):
            partial.append((dim, x.region[i]))
    kept = [iv for dim, iv in zip(tx.dims, x.region, strict=True) if dim not in op.contract]
    kept += [iv for dim, iv in zip(tw.dims, weight.region, strict=True) if dim not in op.contract]
    return made(dag, op, tuple(kept), tuple(partial))


def _head_linear(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    x, w = values
    whole_sum(x, w)
    op, tensor = op_of(task, HeadLinear), dag.tensor[w.tensor]
    heads, summed = axis_of(tensor, "head"), axis_of(tensor, op.contract)
    (third,) = (axis for axis in range(len(tensor.dims)) if axis not in {heads, summed})
    if x.region[-2] != w.region[heads]:
        have, other = interval(x.region[-2]), interval(w.region[heads])
        msg = f"{x.id} has head {have}, its weight {w.id} head {other}"
        raise RuleError(msg)
    for value, axis in ((x, len(x.region) - 1), (w, summed), (w, third)):
        all_of(dag, value, axis, "a head's product needs all")
    over = x.shape[-1] - w.shape[summed]
    if over < 0:
        msg = f"sums {w.shape[summed]} dims of {x.id}, which has {x.shape[-1]}"
        raise RuleError(msg)
    return [made(dag, op, (*x.region[:-1], (0, w.shape[third] + (over if op.rest else 0))))]


def _join(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    a, b = values
    whole_sum(*values)
    if a.region[:2] != b.region[:2]:
        msg = f"{a.id} and {b.id} are of different tokens"
        raise RuleError(msg)
    for value, axis in ((a, len(a.region) - 1), (b, 3), (b, 2)):
        all_of(dag, value, axis, "every head takes all")
    if b.shape[2] != 1:
        msg = f"{b.id} has {b.shape[2]} heads; one of all heads is joined"
        raise RuleError(msg)
    heads = a.region[2:-1] or b.region[2:3]
    return [made(dag, task.op, (*a.region[:2], *heads, (0, a.shape[-1] + b.shape[-1])))]


def _bias(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    whole_sum(*values)
    xs, biases = values[: len(values) // 2], values[len(values) // 2 :]
    for x, bias in zip(xs, biases, strict=True):
        dims = dag.tensor[bias.tensor].dims
        if dag.tensor[x.tensor].dims[-len(dims) :] != dims or x.region[-len(dims) :] != bias.region:
            msg = f"adds {bias.id} to {x.id}, whose {', '.join(dims)} is another region"
            raise RuleError(msg)
    return [made(dag, task.op, x.region) for x in xs]


def _rotate(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    whole_sum(*values)
    for x in values:
        all_of(dag, x, 3, "a rotation needs all")
    return [made(dag, task.op, x.region) for x in values]


def _attention(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    q, k, v, *more = values
    softmax_width, top_k = op_of(task, Attention).softmax_width, op_of(task, Attention).top_k
    _besides(dag, q, more, top_k)
    whole_sum(*values)
    keys = _key_heads(dag, q, k)
    for other in (k, v):
        _same_part(dag, q, other)
        if other.region[2] != keys:
            have, need = interval(other.region[2]), interval(keys)
            msg = f"{other.id} has kv_head {have}; the heads {interval(q.region[2])} need {need}"
            raise RuleError(msg)
        all_of(dag, other, 1, "a softmax needs all")
    start, stop = q.region[3]
    if start % softmax_width or stop % softmax_width:
        msg = f"head_dim {start}:{stop} cuts a softmax of {softmax_width} dims"
        raise RuleError(msg)
    return [made(dag, task.op, (*q.region[:3], v.region[3]))]


def _besides(dag: Dag, q: Value, more: list[Value], top_k: int | None) -> None:
    """Refuse sinks of other heads than those of the queries; or, with ``top_k``, keys chosen for other tokens."""
    if top_k is None:
        _sinks_of(more, q.region[2])
        return
    for selected in more:
        dims = dag.tensor[selected.tensor].dims
        if dims != ("batch", "seq", "choice") or selected.region[:2] != q.region[:2]:
            msg = f"{selected.id} is not of the tokens of {q.id}"
            raise RuleError(msg)
        all_of(dag, selected, 2, "a token attends to all")
        if selected.shape[2] != top_k:
            msg = f"{selected.id} has {selected.shape[2]} keys of a token, not {top_k}"
            raise RuleError(msg)


def _sinks_of(sinks: list[Value], heads: Interval) -> None:
    """Refuse sinks of other heads."""
    for sink in sinks:
        if sink.region != (heads,):
            msg = f"{sink.id} has head {interval(sink.region[0])}; the heads are {interval(heads)}"
            raise RuleError(msg)


def _same_part(dag: Dag, q: Value, other: Value) -> None:
    """Refuse keys or values of other sequences than those of the queries, or of other dims.

    Values that have a dim of their own must have all of it.
    """
    mine, its = (dag.tensor[value.tensor].dims[-1] for value in (q, other))
    if other.region[0] != q.region[0] or (mine == its and other.region[-1] != q.region[-1]):
        msg = f"{q.id} and {other.id} differ in batch or {its}"
        raise RuleError(msg)
    if mine != its:
        all_of(dag, other, len(other.region) - 1, "a head of values has")


def _key_heads(dag: Dag, q: Value, k: Value, axis: int = 2) -> Interval:
    """The heads of keys that heads of queries attend with: each with all of its queries, or one with some of them."""
    first, last = q.region[2]
    each = dag.tensor[q.tensor].shape[2] // dag.tensor[k.tensor].shape[axis]
    keys = (first // each, -(-last // each))
    if keys[1] - keys[0] > 1 and (first % each or last % each):
        msg = f"heads {interval(q.region[2])} of {q.id} are not all of those of kv_head {interval(keys)}, {each} each"
        raise RuleError(msg)
    return keys


def _add(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    """Of partial sums the sum has a term of each, if no dim is in both."""
    first, second = values
    if not (first.partial and second.partial):
        return _elementwise(dag, task, values)
    _alike(dag, values)
    partial = (*first.partial, *second.partial)
    dims = [dim for dim, _ in partial]
    apart = summed(dag, [dim for dim, _ in first.partial]) + summed(dag, [dim for dim, _ in second.partial])
    if summed(dag, dims) != apart or len(set(dims)) < len(dims):
        msg = f"adds {first.id}, {partial_text(first.partial)}, and {second.id}, {partial_text(second.partial)}"
        raise RuleError(msg)
    return [made(dag, task.op, first.region, partial)]


def _elementwise(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    whole_sum(*values)
    _alike(dag, values)
    return [made(dag, task.op, values[0].region)]


def _alike(dag: Dag, values: list[Value]) -> None:
    """Refuse values of other dims or of another region than the first."""
    first = values[0]
    for other in values[1:]:
        if dag.tensor[first.tensor].dims != dag.tensor[other.tensor].dims or first.region != other.region:
            msg = f"takes {first.id} and {other.id}, which are different regions"
            raise RuleError(msg)


def _token_gate(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    x, t, weight = values
    whole_sum(*values)
    for value, axis in ((t, 2), (weight, 0)):
        all_of(dag, value, axis, "a token's score needs all")
    if x.region[:2] != t.region[:2]:
        msg = f"{x.id} and {t.id} are of different tokens"
        raise RuleError(msg)
    return [made(dag, task.op, x.region)]


def _route(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    x, weight, *biases = values
    whole_sum(*values)
    for value, axis in ((x, 2), (weight, 0), (weight, 1), *((bias, 0) for bias in biases)):
        all_of(dag, value, axis, "a token's gates need all")
    return [made(dag, task.op, (*x.region[:2], weight.region[1]))]


def _experts(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    x, gates, *weights = values
    w_up, w_down, *w_gate = expert_matrices(values)
    biases = weights[2 + len(w_gate) :]
    whole_sum(*values)
    for value, axis in ((x, 2), (w_up, 1), (gates, 2)):
        all_of(dag, value, axis, "an expert needs all")
    if gates.region[:2] != x.region[:2]:
        msg = f"{x.id} and {gates.id} are of different tokens"
        raise RuleError(msg)
    if (w_up.region[0], w_up.region[2]) != w_down.region[:2]:
        msg = f"{w_up.id} and {w_down.id} differ in expert or ffn"
        raise RuleError(msg)
    if w_gate and w_gate[0].region != w_up.region:
        msg = f"{w_gate[0].id} and {w_up.id} are different regions"
        raise RuleError(msg)
    for bias, weight in zip(biases, (w_up, w_down, *w_gate), strict=False):
        if bias.region != (weight.region[0], weight.region[2]):
            msg = f"{bias.id} and {weight.id} differ in more than the dim that is summed"
            raise RuleError(msg)
    cuts = zip(contracted(task.op), w_down.region[:2], dag.tensor[w_down.tensor].full[:2], strict=True)
    partial = tuple((dim, iv) for dim, iv, whole in cuts if iv != whole)
    return [made(dag, task.op, (*x.region[:2], w_down.region[2]), partial)]


def _rotate_at(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    *xs, length = values
    whole_sum(*values)
    for x in xs:
        all_of(dag, x, 3, "a rotation needs all")
        same_tokens(length, x)
    return [made(dag, task.op, x.region) for x in xs]


def _scale_by(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    x, weight = values
    whole_sum(*values)
    if dag.tensor[weight.tensor].shape != (1,):
        msg = f"{weight.id} is not one number"
        raise RuleError(msg)
    return [made(dag, task.op, x.region)]


def _scale_queries(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    q, *lengths = values
    whole_sum(*values)
    for length in lengths:
        same_tokens(length, q)
    return [made(dag, task.op, q.region)]


def _cache_write(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    *pairs, length, count = values
    whole_sum(*values)
    news, caches = pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]
    for x, cache in zip(news, caches, strict=True):
        if (x.region[0], *x.region[2:]) != (cache.region[0], *cache.region[4:]):
            msg = f"{x.id} and {cache.id} differ in batch, kv_head or {dag.tensor[x.tensor].dims[-1]}"
            raise RuleError(msg)
        all_of(dag, x, 1, "the cache takes all")
        for axis in (1, 3):
            all_of(dag, cache, axis, "a lane of the cache has all")
        same_tokens(length, x)
        same_tokens(count, x)
    for cache in caches[1:]:
        _same_positions(caches[0], cache)
    return [made(dag, task.op, cache.region, output=i) for i, cache in enumerate(caches)]


def _expand(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    x, *weights, length, count = values
    whole_sum(*values)
    for axis in (1, 3):
        all_of(dag, x, axis, "a lane of the cache has all")
    for axis in (4, 5):
        all_of(dag, x, axis, "every head takes all")
    if x.shape[4] != 1:
        msg = f"{x.id} has {x.shape[4]} heads; one of all heads is expanded"
        raise RuleError(msg)
    for weight in weights:
        for axis in (0, 2):
            all_of(dag, weight, axis, "a head's product needs all")
    w_k, w_v = weights
    if w_k.region[:2] != w_v.region[:2]:
        msg = f"{w_k.id} and {w_v.id} differ in {' or '.join(dag.tensor[w_k.tensor].dims[:2])}"
        raise RuleError(msg)
    over = x.shape[5] - w_k.shape[0]
    if over < 0:
        msg = f"sums {w_k.shape[0]} dims of {x.id}, which has {x.shape[5]}"
        raise RuleError(msg)
    for number in (length, count):
        same_tokens(number, x)
    where = (*x.region[:4], w_k.region[1])
    widths = (w_k.shape[2] + over, w_v.shape[2])
    return [made(dag, task.op, (*where, (0, width)), output=i) for i, width in enumerate(widths)]


def _same_positions(k: Value, v: Value) -> None:
    """Refuse caches of keys and of values that hold other sequences, positions or heads."""
    if k.region[:5] != v.region[:5]:
        msg = f"{k.id} and {v.id} are different regions"
        raise RuleError(msg)


def _over_cache(dag: Dag, values: list[Value], op: CachedAttention | PartialAttention) -> None:
    """What attention over a cache asks of its operands, lanes apart."""
    q, k, v, length, count, *more = values
    softmax_width = op.softmax_width
    _besides(dag, q, more, op.top_k)
    whole_sum(*values)
    _same_positions(k, v)
    for other in (k, v):
        _same_part(dag, q, other)
    keys = _key_heads(dag, q, k, axis=4)
    if k.region[4] != keys:
        have, need = interval(k.region[4]), interval(keys)
        msg = f"{k.id} has kv_head {have}; the heads {interval(q.region[2])} need {need}"
        raise RuleError(msg)
    for axis in (1, 3):
        all_of(dag, k, axis, "a softmax needs all")
    start, stop = q.region[3]
    if start % softmax_width or stop % softmax_width:
        msg = f"head_dim {start}:{stop} cuts a softmax of {softmax_width} dims"
        raise RuleError(msg)
    same_tokens(length, q)
    same_tokens(count, q)


def _cached_attention(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    _over_cache(dag, values, op_of(task, CachedAttention))
    all_of(dag, values[1], 2, "a softmax needs all")
    q, _, v = values[:3]
    return [made(dag, task.op, (*q.region[:3], v.region[-1]))]


def _partial_attention(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    q, k, v = values[:3]
    _over_cache(dag, values, op_of(task, PartialAttention))
    all_of(dag, q, 3, "a lane attends with all")
    lane = k.region[2]
    if lane[1] - lane[0] != 1:
        msg = f"{k.id} has key_lane {interval(lane)}; a partial attention is over one lane"
        raise RuleError(msg)
    batch, rows, heads, _ = q.region
    softmaxes = (0, dag.tensor[dag.value[task.outputs[1]].tensor].shape[-1])
    part, lse = ((batch, lane, rows, heads, last) for last in (v.region[-1], softmaxes))
    return [made(dag, task.op, part), made(dag, task.op, lse, output=1)]


def _scored(dag: Dag, values: list[Value], keys: list[int]) -> None:
    """What a choice of keys asks of its operands; ``keys``: the axes of the keys that it must have all of."""
    q, k, factor = values[:3]
    whole_sum(*values)
    if k.region[0] != q.region[0]:
        msg = f"{q.id} and {k.id} differ in batch"
        raise RuleError(msg)
    if factor.region != q.region[:3]:
        msg = f"{factor.id} is not of the tokens and heads of {q.id}"
        raise RuleError(msg)
    for value, axes in ((q, (2, 3)), (k, (*keys, len(k.region) - 2, len(k.region) - 1))):
        for axis in axes:
            all_of(dag, value, axis, "a score needs all")
    for number in values[3:]:
        same_tokens(number, q)


def _select(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    _scored(dag, values, [1])
    return [made(dag, task.op, (*values[0].region[:2], (0, op_of(task, Select).top_k)))]


def _cached_select(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    _scored(dag, values, [1, 2, 3])
    return [made(dag, task.op, (*values[0].region[:2], (0, op_of(task, CachedSelect).top_k)))]


def _partial_select(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    _scored(dag, values, [1, 3])
    lane = values[1].region[2]
    if lane[1] - lane[0] != 1:
        msg = f"{values[1].id} has key_lane {interval(lane)}; a partial choice is among one lane"
        raise RuleError(msg)
    batch, rows = values[0].region[:2]
    region = (batch, lane, rows, (0, op_of(task, PartialSelect).top_k))
    return [made(dag, task.op, region, output=i) for i in range(2)]


def _merge_select(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    score, key = values
    whole_sum(*values)
    if score.region != key.region:
        msg = f"{score.id} and {key.id} are different regions"
        raise RuleError(msg)
    for axis in (1, 3):
        all_of(dag, score, axis, "the best of all lanes need all")
    return [made(dag, task.op, (score.region[0], *score.region[2:]))]


def _merge(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    part, lse, *sinks = values
    _sinks_of(sinks, part.region[3])
    whole_sum(*values)
    if (part.region[0], *part.region[2:4]) != (lse.region[0], *lse.region[2:4]):
        msg = f"{part.id} and {lse.id} differ in batch, seq or head"
        raise RuleError(msg)
    for value in (part, lse):
        all_of(dag, value, 1, "a merge needs all")
    all_of(dag, lse, 4, "a merge needs all")
    return [made(dag, task.op, (part.region[0], *part.region[2:]))]


def _best(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    (logits,) = values
    whole_sum(logits)
    size = dag.tensor[logits.tensor].shape[1]
    parts = dag.tensor[dag.value[task.outputs[0]].tensor].shape[1]
    layout = dag.plan.layout
    shares = [layout.share("tensor", rank, size) for rank in layout.team(0, 0)]
    held = next((i for i, its in enumerate(shares) if its == logits.region[1]), None)
    if held is None:
        msg = f"{logits.id} has vocab {interval(logits.region[1])}, which is no share of {parts} of {size}"
        raise RuleError(msg)
    region = (logits.region[0], (held, held + 1))
    return [made(dag, task.op, region, output=i) for i in range(2)]


def _choose(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    logit, token = values
    whole_sum(*values)
    if logit.region != token.region:
        msg = f"{logit.id} and {token.id} are different regions"
        raise RuleError(msg)
    all_of(dag, logit, 1, "a choice needs all")
    return [made(dag, task.op, logit.region[:1])]


def _sample(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    logits, *numbers = values
    whole_sum(*values)
    all_of(dag, logits, 1, "a draw needs all")
    for number in numbers:
        same_tokens(number, logits)
    return [made(dag, task.op, logits.region[:1])]


def _last_token(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    x, length = values
    whole_sum(*values)
    rows, extent = x.region[1], dag.tensor[x.tensor].shape[1]
    same_tokens(length, x)
    partial = () if rows == (0, extent) else (("seq", rows),)
    return [made(dag, task.op, (x.region[0], *x.region[2:]), partial)]


COMPUTED: Final[dict[str, Callable[[Dag, Task, list[Value]], list[Made]]]] = {
    "embed": _embed,
    "norm": _norm,
    "square_sums": _square_sums,
    "norm_by_sums": _norm_by_sums,
    "scale": _elementwise,
    "linear": _linear,
    "head_linear": _head_linear,
    "join": _join,
    "bias": _bias,
    "rotate": _rotate,
    "attention": _attention,
    "activation": _elementwise,
    "multiply": _elementwise,
    "route": _route,
    "experts": _experts,
    "token_gate": _token_gate,
    "add": _add,
    "last_token": _last_token,
    "rotate_at": _rotate_at,
    "scale_by": _scale_by,
    "scale_queries": _scale_queries,
    "cache_write": _cache_write,
    "expand": _expand,
    "cached_attention": _cached_attention,
    "partial_attention": _partial_attention,
    "select": _select,
    "cached_select": _cached_select,
    "partial_select": _partial_select,
    "merge_select": _merge_select,
    "merge": _merge,
    "best": _best,
    "choose": _choose,
    "sample": _sample,
}
