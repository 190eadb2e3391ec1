"""What every computing task makes, derived from its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from helixctl.dag import Attention, Dag, Linear, Norm, Task, Value
from helixctl.dag.ops import contracted
from helixctl.plan import Interval
from helixctl.plan.layout import full_extents
from helixctl.verify.rule import Made, RuleError, all_of, axis_of, interval, made, op_of, whole_sum


def _embed(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    ids, table = values
    rows, size = table.region[0], dag.tensor[table.tensor].shape[0]
    partial = () if rows == (0, size) else (("vocab", rows),)
    return [made(dag, task.op, (*ids.region, table.region[1]), partial)]


def _norm(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    x, weight = values
    whole_sum(x, weight)
    tensor, dim = dag.tensor[x.tensor], op_of(task, Norm).dim
    axis = axis_of(tensor, dim)
    if x.region[axis] != (0, tensor.shape[axis]):
        msg = f"normalises {dim} {interval(x.region[axis])} of {x.id}; the mean needs all {tensor.shape[axis]}"
        raise RuleError(msg)
    if weight.region != (x.region[axis],):
        msg = f"weight {weight.id} has {weight.region}, its input has {dim} {interval(x.region[axis])}"
        raise RuleError(msg)
    return [made(dag, task.op, x.region)]


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
        all_of(dag, x, axis_of(dag.tensor[x.tensor], "head_dim"), "a rotation needs all")
    return [made(dag, task.op, x.region) for x in values]


def _attention(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    q, k, v = values
    softmax_width = op_of(task, Attention).softmax_width
    whole_sum(*values)
    keys = _key_heads(dag, q, k)
    for other in (k, v):
        if (other.region[0], other.region[3]) != (q.region[0], q.region[3]):
            msg = f"{q.id} and {other.id} differ in batch or head_dim"
            raise RuleError(msg)
        if other.region[2] != keys:
            have, need = interval(other.region[2]), interval(keys)
            msg = f"{other.id} has kv_head {have}; the heads {interval(q.region[2])} need {need}"
            raise RuleError(msg)
        all_of(dag, other, 1, "a softmax needs all")
    start, stop = q.region[3]
    if start % softmax_width or stop % softmax_width:
        msg = f"head_dim {start}:{stop} cuts a softmax of {softmax_width} dims"
        raise RuleError(msg)
    return [made(dag, task.op, q.region)]


def _key_heads(dag: Dag, q: Value, k: Value) -> Interval:
    """The heads of keys that heads of queries attend with: each with all of its queries, or one with some of them."""
    first, last = q.region[2]
    each = dag.tensor[q.tensor].shape[2] // dag.tensor[k.tensor].shape[2]
    keys = (first // each, -(-last // each))
    if keys[1] - keys[0] > 1 and (first % each or last % each):
        msg = f"heads {interval(q.region[2])} of {q.id} are not all of those of kv_head {interval(keys)}, {each} each"
        raise RuleError(msg)
    return keys


def _elementwise(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    whole_sum(*values)
    first = values[0]
    for other in values[1:]:
        if dag.tensor[first.tensor].dims != dag.tensor[other.tensor].dims or first.region != other.region:
            msg = f"takes {first.id} and {other.id}, which are different regions"
            raise RuleError(msg)
    return [made(dag, task.op, first.region)]


def _route(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    x, weight = values
    whole_sum(x, weight)
    for value, axis in ((x, 2), (weight, 0), (weight, 1)):
        all_of(dag, value, axis, "a token's gates need all")
    return [made(dag, task.op, (*x.region[:2], weight.region[1]))]


def _experts(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    x, gates, w_up, w_down, *w_gate = values
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
    extents = full_extents(dag.plan.model, dag.plan.workload)
    cuts = zip(contracted(task.op), w_down.region[:2], strict=True)
    partial = tuple((dim, iv) for dim, iv in cuts if iv != (0, extents[dim]))
    return [made(dag, task.op, (*x.region[:2], w_down.region[2]), partial)]


def _last_token(dag: Dag, task: Task, values: list[Value]) -> list[Made]:
    x, length = values
    whole_sum(*values)
    rows, extent = x.region[1], dag.tensor[x.tensor].shape[1]
    if length.region != x.region[:1]:
        msg = f"{x.id} and {length.id} are of different sequences"
        raise RuleError(msg)
    partial = () if rows == (0, extent) else (("seq", rows),)
    return [made(dag, task.op, (x.region[0], *x.region[2:]), partial)]


COMPUTED: Final[dict[str, Callable[[Dag, Task, list[Value]], list[Made]]]] = {
    "embed": _embed,
    "norm": _norm,
    "linear": _linear,
    "bias": _bias,
    "rotate": _rotate,
    "attention": _attention,
    "activation": _elementwise,
    "multiply": _elementwise,
    "route": _route,
    "experts": _experts,
    "add": _elementwise,
    "last_token": _last_token,
}
