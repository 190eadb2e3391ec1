"""Computations: how the kernel of each kind takes its operands, and where it writes. A case a kind."""

from __future__ import annotations

from math import prod

from helixctl.dag import (
    Activation,
    Add,
    Attention,
    Best,
    Bias,
    CachedAttention,
    CachedSelect,
    CacheWrite,
    Choose,
    Embed,
    Expand,
    Experts,
    HeadLinear,
    Join,
    LastToken,
    Linear,
    Merge,
    MergeSelect,
    Multiply,
    Narrow,
    Norm,
    NormBySums,
    PartialAttention,
    PartialSelect,
    Rotate,
    RotateAt,
    Route,
    Sample,
    Scale,
    ScaleBy,
    ScaleQueries,
    Select,
    SquareSums,
    Task,
    TokenGate,
)
from helixctl.program.actions import Compute, Weights
from helixctl.program.axes import plain
from helixctl.program.constants import Constant, KeyPositions, QueryScales, RotaryTable
from helixctl.program.draft import Draft
from helixctl.program.row_blocks import mask_of
from helixctl.program.view import Buffer, View, refined
from helixctl.program.weights import held, side_by_side


def computation(draft: Draft, task: Task) -> None:  # noqa: C901, PLR0912  one case a kind
    """Add the actions of a computation at the draft's place."""
    match task.op:
        case Linear(contract):
            _linear(draft, task, contract)
        case Bias():
            _bias(draft, task)
        case HeadLinear():
            _head_linear(draft, task)
        case Join():
            _join(draft, task)
        case Rotate():
            _rotate(draft, task, task.op)
        case Attention():
            _attention(draft, task, task.op)
        case Activation() | Scale() | ScaleBy():
            _activation(draft, task)
        case Multiply() | Add():
            _elementwise(draft, task, draft.merged.get(task.id))
        case Narrow(dim):
            _narrow(draft, task, dim)
        case LastToken():
            _last_token(draft, task)
        case RotateAt():
            _rotate_at(draft, task, task.op)
        case ScaleQueries():
            _scale_queries(draft, task, task.op)
        case Expand():
            _expand(draft, task)
        case CacheWrite():
            _cache_write(draft, task)
        case CachedAttention() | PartialAttention():
            _cached_attention(draft, task)
        case Select() | CachedSelect() | PartialSelect():
            _select(draft, task)
        case Sample():
            _sample(draft, task)
        case SquareSums():
            _square_sums(draft, task)
        case NormBySums():
            _norm_by_sums(draft, task)
        case Embed() | Norm() | Route() | Experts() | TokenGate() | Merge() | MergeSelect() | Best() | Choose():
            _of_plain(draft, task)


def _kernel(
    draft: Draft,
    task: Task,
    reads: list[View],
    writes: list[View],
    weights: tuple[Weights, ...] = (),
    constants: tuple[Constant, ...] = (),
    operand: int = 0,
) -> None:
    draft.actions.append(Compute(draft.place, task, tuple(reads), tuple(writes), weights, constants, operand))


def _of_plain(draft: Draft, task: Task) -> None:
    """Operands and result with one axis per dim, in the tensor's order; weights as they are loaded.

    Some kernels take several axes as one, so that their operands must have no holes.
    """
    weights = [v for v in task.inputs if draft.is_weight(v)]
    lie = draft.plain if isinstance(task.op, Norm | Merge | MergeSelect | Choose) else draft.packed
    reads = [lie(v).view for v in task.inputs if v not in weights]
    writes = [draft.new(value).view for value in task.outputs]
    _kernel(draft, task, reads, writes, tuple(held(draft, v) for v in weights))


def _last_token(draft: Draft, task: Task) -> None:
    x, length = task.inputs
    reads = [draft.packed(x).view, _of_sequences(draft, length, x)]
    _kernel(draft, task, reads, [draft.new(task.outputs[0]).view])


def _of_sequences(draft: Draft, counts: str, value_id: str) -> View:
    """Of a count of every sequence those of the sequences of a value."""
    first, (start, stop) = (draft.dag.value[v].region[0] for v in (counts, value_id))
    view = draft.plain(counts).view
    return view.parts(0, [start - first[0], stop - start])[1]


def _narrow(draft: Draft, task: Task, dim: str) -> None:
    """A part of the operand, copied: it would else keep all of the operand in memory."""
    source, out_id = task.inputs[0], task.outputs[0]
    axis = draft.dims(source).index(dim)
    first = draft.dag.value[source].region[axis][0]
    start, stop = draft.dag.value[out_id].region[axis]
    _, part = draft.plain(source).view.parts(axis, [start - first, stop - start])
    _kernel(draft, task, [part], [draft.new(out_id).view])


def _linear(draft: Draft, task: Task, contract: tuple[str, ...]) -> None:
    """One product with all weights side by side: the results are columns of one matrix."""
    x, columns = draft.matrix(task.inputs[0], contract)
    weights = side_by_side(draft, task.inputs[1:], columns)
    values = [draft.dag.value[v] for v in task.outputs]
    rows = len([d for d in draft.dims(task.inputs[0]) if d not in contract])
    if len(values) == 1:
        out = draft.new(values[0].id).view.shaped((x.sizes[0], prod(values[0].shape[rows:])))
        _kernel(draft, task, [x], [out], (weights,))
        return
    widths = [prod(v.shape[rows:]) for v in values]
    out = draft.block((x.sizes[0], sum(widths)), values[0].dtype)
    for value, cut in zip(values, out.parts(1, widths), strict=True):
        view = cut.unflattened(1, value.shape[rows:]).unflattened(0, value.shape[:rows])
        draft.hold(value.id, Buffer(view, plain(draft.dag, value)))
    _kernel(draft, task, [x], [out], (weights,))


def _bias(draft: Draft, task: Task) -> None:
    """Each sum is a kernel of its own; a bias lacks only leading axes of what it is added to."""
    made = len(task.outputs)
    for x_id, bias_id, out_id in zip(task.inputs[:made], task.inputs[made:], task.outputs, strict=True):
        x = draft.buffers[x_id]
        cut = draft.over(out_id, (x_id,)).split(x.factors())
        own = draft.dims(bias_id)
        weight = held(draft, bias_id, tuple([a for a in cut.axes if a.dim in own]))
        _kernel(draft, task, [x.in_order(cut.axes)], [cut.view], (weight,))


def _head_linear(draft: Draft, task: Task) -> None:
    """A product a head, all at once; the result is written as the gather that follows, if any, sends it."""
    x, weight = task.inputs
    _kernel(draft, task, [draft.packed(x).view], [_for_a_gather(draft, task.outputs[0])], (held(draft, weight),))


def _join(draft: Draft, task: Task) -> None:
    """Both inputs are copied into their places."""
    reads = [draft.plain(v).view for v in task.inputs]
    _kernel(draft, task, reads, [draft.new(task.outputs[0]).view])


def _for_a_gather(draft: Draft, value_id: str) -> View:
    """A new block for a value in the order in which the gather that follows, if any, sends it; a dim an axis."""
    out = draft.new(value_id, draft.made_for_a_gather(value_id))
    return out.in_order([out.parts(d)[0] for d in draft.dims(value_id)])


def _square_sums(draft: Draft, task: Task) -> None:
    reads = [draft.plain(x).view for x in task.inputs]
    _kernel(draft, task, reads, [draft.new(task.outputs[0]).view])


def _norm_by_sums(draft: Draft, task: Task) -> None:
    """Each operand is a kernel of its own, over the operand where it can be."""
    q, k, sums, *weights = task.inputs
    for x_id, weight_id, out_id in zip((q, k), weights, task.outputs, strict=True):
        buffer = draft.plain(x_id)
        out = draft.over(out_id, (x_id,) if buffer is draft.buffers[x_id] else ())
        _kernel(draft, task, [buffer.view, draft.plain(sums).view], [out.view], (held(draft, weight_id),))


def _rotate(draft: Draft, task: Task, op: Rotate) -> None:
    """Each operand is a kernel of its own."""
    for x_id, out_id in zip(task.inputs, task.outputs, strict=True):
        buffer = draft.plain(x_id)
        x = buffer.view
        positions, dtype = draft.dag.value[x_id].region[1], _wide(x.dtype)
        width = op.last or x.sizes[-1]
        tables = [RotaryTable(f, op.rotary, width, positions, dtype, op.long) for f in ("cos", "sin")]
        constants = tuple(draft.constant(table) for table in tables)
        out = draft.over(out_id, (x_id,) if buffer is draft.buffers[x_id] else ())
        _kernel(draft, task, [x], [out.view], constants=constants)


def _rotate_at(draft: Draft, task: Task, op: RotateAt) -> None:
    """Each operand is a kernel of its own. The tables are of all positions of the cache."""
    *xs, length = task.inputs
    positions = (0, draft.dag.work.positions)
    for operand, (x_id, out_id) in enumerate(zip(xs, task.outputs, strict=True)):
        buffer = draft.plain(x_id)
        x = buffer.view
        width = op.last or x.sizes[-1]
        tables = [RotaryTable(f, op.rotary, width, positions, _wide(x.dtype), op.long) for f in ("cos", "sin")]
        constants = tuple(draft.constant(table) for table in tables)
        out = draft.over(out_id, (x_id,) if buffer is draft.buffers[x_id] else ())
        reads = [x, _of_sequences(draft, length, x_id)]
        _kernel(draft, task, reads, [out.view], constants=constants, operand=operand)


def _scale_queries(draft: Draft, task: Task, op: ScaleQueries) -> None:
    """Over the operand where it can be. With a cache the numbers are of all of its positions."""
    (x_id, *lengths), (out_id,) = task.inputs, task.outputs
    buffer = draft.plain(x_id)
    positions = (0, draft.dag.work.positions) if lengths else draft.dag.value[x_id].region[1]
    scales = draft.constant(QueryScales(op.scaling, positions, _wide(buffer.view.dtype)))
    out = draft.over(out_id, (x_id,) if buffer is draft.buffers[x_id] else ())
    reads = [buffer.view, *(_of_sequences(draft, length, x_id) for length in lengths)]
    _kernel(draft, task, reads, [out.view], constants=(scales,))


def _cache_write(draft: Draft, task: Task) -> None:
    """Over the cache, which is nowhere else."""
    *pairs, length, count = task.inputs
    kept, caches = pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]
    news = [draft.plain(x).view for x in kept]
    counts = [_of_sequences(draft, its, kept[0]) for its in (length, count)]
    writes = [draft.hold(out, draft.state(cache)).view for out, cache in zip(task.outputs, caches, strict=True)]
    _kernel(draft, task, [*news, *counts], writes, constants=(_positions(draft, caches[0]),))


def _expand(draft: Draft, task: Task) -> None:
    """The weights as they are loaded: a decode step takes them so."""
    x, w_k, w_v, *counts = task.inputs
    reads = [_keys(draft, x)] + [_of_sequences(draft, count, x) for count in counts]
    writes = [draft.new(out_id).view for out_id in task.outputs]
    _kernel(draft, task, reads, writes, (held(draft, w_k), held(draft, w_v)), (_positions(draft, x),))


def _cached_attention(draft: Draft, task: Task) -> None:
    q, k, v, *counts = task.inputs[:5]
    reads = [draft.plain(q).view, *(_keys(draft, x) for x in (k, v))]
    reads += [_of_sequences(draft, count, q) for count in counts]
    reads += [draft.plain(x).view for x in task.inputs[5:] if not draft.is_weight(x)]  # the keys that were chosen
    if len(task.outputs) > 1:
        writes = [draft.new(out_id).view for out_id in task.outputs]
    else:
        writes = [_for_a_gather(draft, task.outputs[0])]
    _kernel(draft, task, reads, writes, _sinks(draft, task), (_positions(draft, k),))


def _select(draft: Draft, task: Task) -> None:
    q, k, factor, *counts = task.inputs
    keys = _keys(draft, k) if counts else draft.plain(k).view
    reads = [draft.plain(q).view, keys, draft.plain(factor).view, *(_of_sequences(draft, count, q) for count in counts)]
    writes = [draft.new(out_id).view for out_id in task.outputs]
    _kernel(draft, task, reads, writes, constants=(_positions(draft, k),) if counts else ())


def _sample(draft: Draft, task: Task) -> None:
    logits, *numbers = task.inputs
    reads = [draft.packed(logits).view] + [_of_sequences(draft, number, logits) for number in numbers]
    _kernel(draft, task, reads, [draft.new(task.outputs[0]).view])


def _keys(draft: Draft, cache: str) -> View:
    """Of a rank's part of a cache the keys one after the other: as a lane lies; gathered ones are put together."""
    first, last = draft.dag.value[cache].region[2]
    return (draft.plain if last - first == 1 else draft.packed)(cache).view


def _positions(draft: Draft, cache: str) -> Constant:
    """Where the keys of a rank's part of a cache stand in their sequences; all lanes are one with longer blocks."""
    value = draft.dag.value[cache]
    _, cycles, lanes, block, *_ = draft.dag.tensor[value.tensor].shape
    if value.region[2] == (0, lanes):
        return draft.constant(KeyPositions(cycles, 1, 0, lanes * block))
    return draft.constant(KeyPositions(cycles, lanes, value.region[2][0], block))


def _attention(draft: Draft, task: Task, op: Attention) -> None:
    """The result is written as the gather that follows, if any, sends it."""
    qkv = [draft.plain(v).view for v in task.inputs if not draft.is_weight(v)]  # and the keys that were chosen, if any
    start, stop = draft.dag.value[task.inputs[0]].region[1]
    mask = mask_of(op, start, stop - start, qkv[0].dtype) if op.top_k is None else None
    constants = () if mask is None else (draft.constant(mask),)
    _kernel(draft, task, qkv, [_for_a_gather(draft, task.outputs[0])], _sinks(draft, task), constants)


def _sinks(draft: Draft, task: Task) -> tuple[Weights, ...]:
    """Those of an attention, if it has some."""
    return tuple(held(draft, v) for v in task.inputs[3:] if draft.is_weight(v))


def _activation(draft: Draft, task: Task) -> None:
    """In the axes of its first operand, and over it where it can be; a second is a weight."""
    x, out_id = draft.buffers[task.inputs[0]], task.outputs[0]
    if x.axes == plain(draft.dag, draft.dag.value[out_id]):
        out = draft.over(out_id, task.inputs[:1])
    else:
        out = draft.new(out_id, x.axes)
    _kernel(draft, task, [x.view], [out.view], tuple(held(draft, v) for v in task.inputs[1:]))


def _elementwise(draft: Draft, task: Task, activation: Task | None = None) -> None:
    """Both operands as they lie, cut alike; plain where they are cut in ways that do not go together.

    Of a product with an activation merged into it the operand of that comes first.
    """
    operands = task.inputs
    if activation is not None:
        operands = (*activation.inputs, *[v for v in task.inputs if v not in activation.outputs])
    a, b = (draft.buffers[v] for v in operands)
    factors = refined(a, b)
    if factors is None:
        a, b = (draft.plain(v) for v in operands)
        factors = {}
    out = draft.over(task.outputs[0], operands, columns=False)
    a, b, cut = a.split(factors), b.split(factors), out.split(factors)
    reads = (a.in_order(cut.axes), b.in_order(cut.axes))
    draft.actions.append(Compute(draft.place, task, reads, (cut.view,), merged=activation))


def _wide(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"
