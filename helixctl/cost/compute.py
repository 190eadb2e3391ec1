"""What one compute task takes with a device, or a core, to itself: a roofline by the shape of the work.

A calibrated rate replaces peak and share where the cluster has one for the kind of task and its dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, inf, log2, prod
from typing import Final, Literal, NamedTuple, cast

from helixctl.cost import constants as c
from helixctl.cost.interpolate import covers, multilinear
from helixctl.cost.origin import Constant, Cost, Rule
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
    Dag,
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
    Value,
)
from helixctl.dag.formulas import (
    cached_keys,
    expanded_keys,
    expert_matrices,
    expert_rows,
    product_width,
    scored_pairs,
)  # fmt: skip
from helixctl.dag.reach import AnyAttention, causal_pairs, reaches_back
from helixctl.dag.storage import held_nbytes
from helixctl.errors import HelixError
from helixctl.program import Kernel
from helixctl.program.row_blocks import row_blocks
from helixctl.spec import (
    DTYPE_NBYTES,
    Arithmetic,
    ClusterSpec,
    Dtype,
    EqualHosts,
    ExpertsTable,
    LatentDecodeTable,
    QuantisedTables,
    RouterSpec,
    SamplingSpec,
)
from helixctl.spec.base import RateDtype
from helixctl.spec.calibration import ExpertsFactors, MatmulTable, ProductFactors
from helixctl.spec.cluster import no_peak
from helixctl.spec.rates import rates_of
from helixctl.spec.routing import EVEN, fullest_load


def compute_cost(dag: Dag, task: Task, kernel: Kernel = "own") -> Cost:  # noqa: C901, PLR0912, PLR0915  one case a kind
    """Seconds of a compute task. A new op needs a case here: which roofline, and what makes its shape.

    Args:
        dag: the dag, whose cluster it runs on.
        task: a task of one rank.
        kernel: whether a kernel computes it alone; one that the next task's kernel computes takes no time of its own.
    """
    if kernel == "next":
        return Cost(0.0, ())
    device = _Device(dag.plan.cluster.hosts_of(task.ranks[0]), _dtype(dag, task))
    match task.op:
        case Linear(contract):
            x = dag.value[task.inputs[0]]
            depth = prod(size for dim, size in _sizes(dag, x) if dim in contract)
            rows = x.numel // depth
            cost = device.matmul(rows, task.flops // (2 * rows * depth), depth, task.nbytes, _less(dag, task.inputs))
        case HeadLinear(contract):
            x, w = (dag.value[v] for v in task.inputs)
            depth, wide = w.shape[dag.tensor[w.tensor].dims.index(contract)], product_width(task.op, w, dag.tensor)
            # A product a head, side by side: as many tiles as one with all heads' columns.
            heads = x.shape[-2]
            less = _less(dag, task.inputs)
            cost = device.matmul(x.numel // x.shape[-1] // heads, heads * wide, depth, task.nbytes, less)
        case Expand():
            cost = _expand(dag, task, device)
        case Attention(top_k=int()):
            cost = _under_a_mask(dag, task, device)
        case CachedAttention(top_k=int()) | PartialAttention(top_k=int()):
            cost = _over_chosen_keys(dag, task, task.op, device)
        case Select() | CachedSelect() | PartialSelect():
            cost = _choice(dag, task, task.op, device)
        case MergeSelect():
            cost = device.best_keys(dag.value[task.inputs[0]].numel, task.nbytes)
        case Attention(width):
            queries, keys, values = (dag.value[v] for v in task.inputs[:3])
            if _composed(task.op, queries, values, device):
                cost = device.composed(queries, values.shape[3], task.flops, capped=task.op.soft_cap is not None)
            else:
                flops = int(task.flops * _looked_at(task.op, queries))
                cost = device.attention(queries, keys.shape[1], width, values.shape[3], flops, task.nbytes)
        case CachedAttention(width) | PartialAttention(width):
            cost = _over_a_cache(dag, task, task.op, width, device)
        case Multiply() if kernel == "both":
            cost = device.gated(task.nbytes)
        case Norm() | Activation() | Add() | Multiply() | Rotate() | Bias() | Embed() | LastToken() | Narrow():
            cost = device.elementwise(task.kind, task.nbytes)
        case RotateAt() | CacheWrite() | Merge() | Best() | Choose() | Join() | SquareSums() | NormBySums() | Scale():
            cost = device.elementwise(task.kind, task.nbytes)
        case ScaleBy() | ScaleQueries():
            cost = device.elementwise(task.kind, task.nbytes)
        case TokenGate():
            cost = device.elementwise(task.kind, task.nbytes)
            cost = Cost(cost.seconds + (_STEPS_OF_A_SCORE - 1) * device.task_overhead.value, cost.origins)
        case Route():
            x, gates = dag.value[task.inputs[0]], dag.value[task.outputs[0]]
            rows = x.numel // x.shape[-1]
            cost = device.route(rows, gates.shape[-1], x.shape[-1], task.nbytes, _steps_of_a_route(task.op.router))
        case Experts():
            cost = _experts(dag, task, task.op, device)
        case Sample(sampling):
            sequences, vocabulary = dag.value[task.inputs[0]].shape
            cost = device.sample(sequences, vocabulary, sampling)
        case _:
            raise TypeError(task.kind)  # a collective
    overhead = device.task_overhead
    return Cost(cost.seconds + overhead.value, (*cost.origins, overhead))


class _Less(NamedTuple):
    """What quantised weights save.

    Attributes:
        nbytes: that they take less than in the dtype of the computation.
        arithmetic: what the product is of. None: of that dtype.
    """

    nbytes: int
    arithmetic: Arithmetic | None


_NOTHING_LESS: Final = _Less(0, None)


def _less(dag: Dag, weights: Sequence[str]) -> _Less:
    values = [dag.value[name] for name in weights]
    stored = [storage for v in values if (storage := dag.tensor[v.tensor].storage)]
    kinds = {storage.arithmetic for storage in stored}
    nbytes = sum(v.nbytes - held_nbytes(v, dag.tensor) for v in values)
    return _Less(nbytes, kinds.pop() if len(kinds) == 1 else None)


def _composed(op: AnyAttention, queries: Value, values: Value, device: _Device) -> bool:
    """Whether an attention is made of products: no fused kernel computes it."""
    return op.soft_cap is not None or (not device.cuda and values.shape[-1] != queries.shape[-1])


def _looked_at(op: Attention, queries: Value) -> float:
    """Pairs of a query and a key that are computed, to those that count: in blocks of rows under a mask there are more.

    Without a window or chunks the masks that cut rows need are passed over.
    """
    if reaches_back(op) is None:
        return 1.0
    first, last = queries.region[1]
    computed = 0
    for block in row_blocks(op, first, last - first):
        rows = block.last - block.first
        computed += rows * (block.last - block.key) if block.masked else causal_pairs(op, block.first, rows)
    return computed / causal_pairs(op, first, last - first)


def _over_a_cache(dag: Dag, task: Task, op: CachedAttention | PartialAttention, width: int, device: _Device) -> Cost:
    """Attention over a cache; on CUDA the keys that a window or a chunk reaches are copied together first."""
    inputs = [dag.value[v] for v in task.inputs]
    held, (queries, k, values) = cached_keys(op, inputs, dag.tensor), inputs[:3]
    if _composed(op, queries, values, device):
        return device.composed(queries, values.shape[-1], task.flops, capped=op.soft_cap is not None)
    once = k.id == values.id
    kept = held_nbytes(k, dag.tensor) / max(1, k.nbytes)
    cost = device.cached_attention(queries, held, values, width, task.flops, task.nbytes, once=once, kept=kept)
    if not device.cuda or reaches_back(op) is None:
        return cost
    row = (k.nbytes + values.nbytes) // (k.shape[1] * k.shape[3])  # of one position of all sequences
    return Cost(cost.seconds + device.elementwise("copy", 2 * held * row).seconds, cost.origins)


def _expand(dag: Dag, task: Task, device: _Device) -> Cost:
    """A product with both weights side by side; what it makes of keys is copied beside what is rotated."""
    inputs = [dag.value[v] for v in task.inputs]
    x, w_k, w_v, *_ = inputs
    rows, depth = x.shape[0] * expanded_keys(inputs, dag.tensor), w_k.shape[0]
    less = _less(dag, task.inputs)
    product = device.matmul(rows, (w_k.numel + w_v.numel) // depth, depth, task.nbytes, less)
    keys = dag.value[task.outputs[0]]
    copied = device.elementwise("copy", 2 * rows * keys.shape[4] * keys.shape[5] * DTYPE_NBYTES[device.dtype])
    return Cost(product.seconds + copied.seconds, tuple(dict.fromkeys((*product.origins, *copied.origins))))


def _choice(dag: Dag, task: Task, op: Select | CachedSelect | PartialSelect, device: _Device) -> Cost:
    """A sparse choice of keys: products of all heads, which go through memory in float32, and the best of their sums.

    Over a cache all keys for which there is room are scored: how many it holds is data.
    """
    inputs = [dag.value[v] for v in task.inputs]
    (batch, rows, heads, width), k = inputs[0].shape, inputs[1]
    pairs = scored_pairs(op, inputs, dag.tensor) if isinstance(op, Select) else rows * prod(k.shape[1:4])
    share = device.matmul_share if device.cuda else c.CPU_MATMUL_SHARE
    arithmetic = 2 * batch * pairs * heads * width / (device.peak.value * share.value)
    wide = max(_WIDE_NBYTES, DTYPE_NBYTES[device.dtype])
    scored = device.elementwise("add", _PASSES_OVER_PRODUCTS * batch * pairs * heads * wide)
    best = device.best_keys(batch * pairs, task.nbytes)
    steps = device.task_overhead.value * _STEPS_OF_SCORED_KEYS
    return Cost(arithmetic + scored.seconds + best.seconds + steps, (device.peak, share, *best.origins))


def _under_a_mask(dag: Dag, task: Task, device: _Device) -> Cost:
    """Attention of a pass to chosen keys: over all keys, under a mask of its own."""
    queries, keys, values, _ = (dag.value[v] for v in task.inputs)
    batch, rows, heads, head_dim = queries.shape
    dense = 2 * batch * heads * (head_dim + values.shape[-1]) * rows * keys.shape[1]
    masked = _masks(batch * rows * keys.shape[1], device)
    if not device.cuda and values.shape[-1] != head_dim:
        cost = device.composed(queries, values.shape[-1], dense, capped=False)
    else:
        cost = device.attention(queries, keys.shape[1], head_dim, values.shape[-1], dense, task.nbytes)
    return Cost(cost.seconds + masked.seconds, (*cost.origins, *masked.origins))


def _over_chosen_keys(dag: Dag, task: Task, op: CachedAttention | PartialAttention, device: _Device) -> Cost:
    """Attention over a cache to chosen keys, which are copied together for each query; or over all under a mask.

    What lies in a lane is data: every lane has room for all chosen keys.
    """
    inputs = [dag.value[v] for v in task.inputs]
    (queries, k, values), top_k = inputs[:3], op.top_k or 1
    batch, rows, heads, width = queries.shape
    positions, once = prod(k.shape[1:4]), k.id == values.id
    if rows * top_k >= positions:
        dense = 2 * batch * heads * rows * positions * (width + values.shape[-1])
        cost = device.cached_attention(queries, positions, values, width, dense, task.nbytes, once=once)
        masked = _masks(batch * rows * positions * heads // k.shape[4], device)
        copied = device.elementwise("copy", 2 * (k.nbytes if once else k.nbytes + values.nbytes))
        return Cost(cost.seconds + masked.seconds + copied.seconds, (*cost.origins, *masked.origins))
    cost = device.decode(batch, heads, k.shape[4], (width, values.shape[-1]), top_k, once=once)
    row = (k.nbytes if once else k.nbytes + values.nbytes) // (batch * positions)
    copied = device.elementwise("copy", 2 * batch * top_k * row)
    steps = device.task_overhead.value * _STEPS_OF_CHOSEN_KEYS
    return Cost(rows * (cost.seconds + copied.seconds + steps), (*cost.origins, *copied.origins))


def _masks(keys: int, device: _Device) -> Cost:
    """Masks of ``pairs`` pairs, and what is added to their scores: each made, turned over and read."""
    return device.elementwise("add", keys * (_PASSES_OVER_A_MASK + 2 * DTYPE_NBYTES[device.dtype]))


def copy_cost(dag: Dag, rank: int, dtype: str, nbytes: int) -> Cost:
    """Seconds of a copy on a rank that reads and writes so many bytes, all together."""
    its = dag.plan.model.dtype if dtype == "int64" else cast("Dtype", dtype)
    device = _Device(dag.plan.cluster.hosts_of(rank), its)
    cost, overhead = device.elementwise("copy", nbytes), device.task_overhead
    return Cost(cost.seconds + overhead.value, (*cost.origins, overhead))


def decode_attention_cost(
    cluster: ClusterSpec,
    dtype: Dtype,
    *,
    batch: int,
    heads: int,
    kv_heads: int,
    width: int,
    keys: int,
    queries: int = 1,
) -> Cost:
    """Seconds of attention of a few new tokens over a cache, on one device, the start of the task included.

    Args:
        cluster: of equal hosts, whose device it is; its measured rates come first.
        dtype: of the cache, and of the arithmetic.
        batch: sequences.
        heads: query heads of the device.
        kv_heads: heads of keys and values of the device.
        width: elements of a head, which is one softmax.
        keys: positions of the cache that the new tokens attend to, their own included.
        queries: new tokens of each sequence.

    Raises:
        HelixError: HX114, the device has no rate for the dtype.
    """
    device = _Device(cluster.only, dtype)
    cost, overhead = device.decode(batch, heads, kv_heads, (width, width), keys, queries), device.task_overhead
    return Cost(cost.seconds + overhead.value, (*cost.origins, overhead))


def rates_of_quantised(
    cluster: EqualHosts, dtype: Dtype, arithmetic: Arithmetic | None
) -> Literal["as measured", "by the peaks"] | None:
    """What products of quantised numbers are predicted by; None: they are not, and computed in the dtype."""
    device = _Device(cluster, dtype)
    tables = device.quantised(arithmetic)
    if tables.products or tables.matmul or tables.experts:
        return "as measured"
    return "by the peaks" if device.faster(arithmetic, None, ()) else None


# Sort the tokens by expert, collect them, and put together what the experts made of each.
_STEPS_AROUND_EXPERTS = 10
_STEPS_OF_A_ROUTE = 8
_STEPS_OF_SCORES = 4  # where gates are not a softmax over the best: scores, gather, sum, quotient
_STEPS_OF_GROUPS = 8
_STEPS_OF_A_SCORE = 3
_STEPS_OF_A_DRAW = 60
_GATED = 3  # weights of a gated expert
# How often a score is read or written where attention is made of products: made, scaled, masked, its maximum and sum
# taken, subtracted from, raised, rounded and read; and divided, bent and multiplied by a soft cap.
_PASSES_OVER_SCORES = 16
_PASSES_OF_A_CAP = 6
# Products of an indexer: made, cut off at 0 in place, and summed over the heads. Scores and positions as one number of
# 8 bytes: made of the scores, and searched digit by digit for the best.
_WIDE_NBYTES = 4
_PASSES_OVER_PRODUCTS = 4
_PASSES_OVER_KEYS = 8
_KEY_NBYTES = 8
_STEPS_OF_SCORED_KEYS = 16
_STEPS_OF_CHOSEN_KEYS = 12
_PASSES_OVER_A_MASK = 4


def _steps_of_a_route(router: RouterSpec) -> int:
    """Kernels that make the gates from the logits."""
    scored = router.scores != "softmax" or router.choice_bias or router.gate_scales or router.groups is not None
    added = router.bias + router.choice_bias + router.gate_scales + (router.scale != 1) + (router.logits_scale != 1)
    twice = _STEPS_OF_A_ROUTE if router.scores == "sparse_mixer" else 0
    return _STEPS_OF_A_ROUTE + added + twice + scored * _STEPS_OF_SCORES + bool(router.groups) * _STEPS_OF_GROUPS


def _experts(dag: Dag, task: Task, op: Experts, device: _Device) -> Cost:
    """As they were measured; else a product over all experts for each weight, each with an equal part of the tokens.

    Where the device cannot group the products, one follows the other.
    """
    inputs = [dag.value[v] for v in task.inputs]
    weights, biases = expert_matrices(inputs), len(inputs[2:]) > _GATED
    held, hidden, ffn = weights[0].shape
    rows = _rows_of_experts(dag, op, inputs)
    used = min(held, rows)
    row_nbytes = inputs[0].nbytes // (inputs[0].numel // hidden)
    inner_nbytes = row_nbytes * ffn // hidden
    more = []
    if biases:  # collected by row, and added
        more = [device.elementwise("add", 4 * rows * inner_nbytes)] * (len(weights) - 1)
        more += [device.elementwise("add", 4 * rows * row_nbytes)]
    if op.gates_on == "input":
        more += [device.elementwise("multiply", 2 * rows * row_nbytes)]
    if op.clamp:
        more += [device.elementwise("activation", 4 * rows * inner_nbytes)]
    if table := device.experts_table:
        whole = sum(weight.nbytes for weight in weights)
        less = _less(dag, [weight.id for weight in weights])
        ranks = dag.tensor[weights[0].tensor].shape[0] / held
        measured = device.measured_experts(table, (used, rows, hidden, ffn, ranks), len(weights), whole, less)
        parts, steps = [measured, *more], 0
    else:
        product = device.grouped if device.cuda and device.dtype == GROUPED_DTYPE else device.one_by_one
        stored = [held_nbytes(weight, dag.tensor) // held for weight in weights[:2]]
        kind = _less(dag, [weight.id for weight in weights]).arithmetic
        spared = [_Less(weight.nbytes // held - its, kind) for weight, its in zip(weights, stored, strict=False)]
        up = product(used, rows, ffn, hidden, stored[0], spared[0])
        down = product(used, rows, hidden, ffn, stored[1], spared[1])
        gated = len(weights) == _GATED
        inner = (
            device.gated(3 * rows * inner_nbytes)
            if gated
            else device.elementwise("activation", 2 * rows * inner_nbytes)
        )
        # Rows collected, and results scaled and added: read and written once each.
        moved = device.elementwise("add", 4 * rows * row_nbytes)
        parts, steps = [up, down, inner, moved, *([up] * gated), *more], _STEPS_AROUND_EXPERTS + gated
        if device.cuda:
            parts += [Cost(c.SORTED_TOKENS.value, (c.SORTED_TOKENS,))]
    origins = tuple(dict.fromkeys(origin for part in parts for origin in part.origins))
    seconds = sum(part.seconds for part in parts) + device.task_overhead.value * (steps + 2 * len(more))
    return Cost(seconds, origins)


def _rows_of_experts(dag: Dag, op: Experts, inputs: Sequence[Value]) -> int:
    """Rows that the experts of the fullest device compute, for which the others wait; rounded up."""
    if dag.work.routing == EVEN:
        return expert_rows(op, inputs, dag.tensor)
    x, w_up = inputs[0], inputs[2]
    load = fullest_load(dag.work.routing, dag.tensor[w_up.tensor].shape[0], op.top_k, w_up.shape[0])
    return ceil(x.numel // x.shape[-1] * load)


def shape_key(dag: Dag, task: Task) -> tuple[object, ...]:
    """Compute tasks with equal keys cost the same in one dag."""
    first = [dag.value[v] for v in task.inputs[:3]]
    stored = [storage.arithmetic for v in first if (storage := dag.tensor[v.tensor].storage)]
    return (task.op, task.flops, task.nbytes, *[(v.shape, v.dtype) for v in first], *stored)


def _dtype(dag: Dag, task: Task) -> Dtype:
    """What is computed in; a look-up of token ids is of the model's dtype."""
    dtype = dag.value[task.inputs[0]].dtype
    return dag.plan.model.dtype if dtype == "int64" else dtype


def _sizes(dag: Dag, value: Value) -> list[tuple[str, int]]:
    return list(zip(dag.tensor[value.tensor].dims, value.shape, strict=True))


GROUPED_DTYPE: Final = "bfloat16"  # of torch's grouped product without the host


def _attention_share(width: int) -> Constant:
    """Of the nearest width that was measured, or a part of that of the narrowest."""
    if width > c.WIDEST_FLASH_HEAD:
        return c.WIDE_ATTENTION_SHARE
    nearest = min(c.ATTENTION_SHARES, key=lambda measured: abs(log2(measured / width)))
    share = c.ATTENTION_SHARES[nearest]
    return replace(share, value=share.value * min(1.0, width / nearest)) if width < min(c.ATTENTION_SHARES) else share


_NO_TABLES: Final = QuantisedTables()

# Kinds of elementwise work that a calibration measures; all others stream as an addition does.
_MEASURED = ("norm", "activation", "add")


class _Device:
    """One device, or one core where the devices of a host share cores, at work in one dtype."""

    def __init__(self, cluster: EqualHosts, dtype: Dtype) -> None:
        spec, source = cluster.device, f"cluster spec {cluster.name}, device {cluster.device.name}"
        self.cuda = spec.torch_kind == "cuda"
        self.dtype = dtype
        self._spec, self._source = spec, source
        self.bandwidth = Constant("memory_bandwidth", spec.memory_bandwidth, source, "B/s")
        self.sms = Constant("sms", spec.sms, source) if spec.sms else c.SMS
        share = spec.matmul_share
        self.matmul_share = Constant("matmul_share", share, source) if share else c.MATMUL_SHARE
        self.calibration = rates_of(cluster)

    @property
    def peak(self) -> Constant:
        """The rate of the datasheet.

        Raises:
            HelixError: HX114, there is none for this dtype; another dtype's would be a number without a source.
        """
        if self.dtype not in self._spec.peak:
            raise HelixError(no_peak(self.dtype, self._spec))
        return Constant(f"peak {self.dtype}", self._spec.peak[self.dtype], self._source, "FLOP/s")

    @property
    def task_overhead(self) -> Constant:
        if self.calibration:
            return Constant("task_overhead", self.calibration.task_overhead, self._calibrated, "s")
        return c.TASK_OVERHEAD if self.cuda else c.CPU_TASK_OVERHEAD

    def matmul(self, rows: int, columns: int, depth: int, nbytes: int, less: _Less = _NOTHING_LESS) -> Cost:
        """(rows, depth) x (depth, columns).

        Without a calibration, on CUDA, the output is cut in tiles, and every SM makes one at a time: a last wave
        of tiles takes as long as a full one, and so does a tile that sticks out. Where that leaves SMs idle the tiles
        are smaller, or the depth is split, for the price of writing and reading the partial sums. A library has more
        tile sizes to choose from, to which a calibration has the corrections.

        ``less``: where the weights are quantised. If the activations are too, the product has the rate of such numbers.
        If they are not, a kernel reads the weights as they are stored and computes in the dtype: what a product takes
        becomes less by the bytes, down to the rate of many rows, at which it is bound by its arithmetic.
        """
        if less.nbytes:
            measured = self.quantised(less.arithmetic)
            if measured.products:
                return self._by_rates(f"matmul in {less.arithmetic}", measured.products, (rows, columns, depth), nbytes)
            whole = self.matmul(rows, columns, depth, nbytes + less.nbytes)
            factors = measured.matmul
            if (faster := self.faster(less.arithmetic, factors, (rows, columns, depth))) is not None:
                return self._sped_up(whole, faster, 0 if factors else nbytes)
            many = self.matmul(max(rows, c.MANY_ROWS), columns, depth, 0)
            bound = many.seconds * rows / max(rows, c.MANY_ROWS)
            kept = nbytes / (nbytes + less.nbytes)
            return Cost(max(whole.seconds * kept, bound), (*whole.origins, c.QUANTISED))
        flops = 2 * rows * columns * depth
        table = self.calibration.matmul.get(self.dtype) if self.calibration else None
        if table:
            return self._by_rates(f"matmul in {self.dtype}", table, (rows, columns, depth), nbytes)
        if not self.cuda:
            return self._roofline(flops / (self.peak.value * c.CPU_MATMUL_SHARE.value), nbytes, c.CPU_MATMUL_SHARE)
        rate = self.peak.value * self.matmul_share.value
        streaming = self.bandwidth.value * c.MEMORY_SHARE.value
        partial = {s: 2 * s * rows * columns * c.PARTIAL_NBYTES / streaming if s > 1 else 0.0 for s in c.SPLITS}
        seconds = inf
        for (high, wide), share in c.TILES:
            tiles = min(ceil(rows / high) * ceil(columns / wide), ceil(rows / wide) * ceil(columns / high))
            wave = self.sms.value * 2 * high * wide * depth / (rate * share)
            seconds = min(seconds, *(ceil(tiles * s / self.sms.value) * wave / s + partial[s] for s in c.SPLITS))
        return self._roofline(seconds, nbytes, self.matmul_share, self.sms)

    def _by_rates(self, name: str, table: MatmulTable, shape: tuple[int, int, int], nbytes: int) -> Cost:
        seconds = 2 * prod(shape) / multilinear(table.grid, table.rates, shape)
        return self._measured(name, seconds, nbytes, inside=covers(table.grid, shape))

    def quantised(self, arithmetic: Arithmetic | None) -> QuantisedTables:
        """What was measured of products of such numbers; of those in blocks, where nothing was, that of others."""
        found = self.calibration.quantised if self.calibration else {}
        names = (arithmetic, "float8") if arithmetic == "float8_blocks" else (arithmetic,)
        return next((found[name] for name in names if name in found), _NO_TABLES)

    def faster(
        self, arithmetic: Arithmetic | None, factors: ProductFactors | ExpertsFactors | None, point: Sequence[float]
    ) -> Constant | None:
        """How many times the dtype's rate a product of such numbers has: measured, or by the rates of the datasheet.

        None: the device has no rate of them, so that a kernel computes in the dtype.
        """
        if arithmetic is None:
            return None
        if factors:
            factor = multilinear(factors.grid, factors.rates, point)
            return Constant(f"{arithmetic} to {self.dtype}", factor, self._calibrated)
        number: RateDtype = "float8" if arithmetic == "float8_blocks" else arithmetic
        if number not in self._spec.peak or self.dtype not in self._spec.peak:
            return None
        quotient = self._spec.peak[number] / self.peak.value
        return Constant(f"{number} to {self.dtype}", quotient * c.QUANTISED_SHARE.value, c.QUANTISED_SHARE.source)

    def _sped_up(self, whole: Cost, faster: Constant, nbytes: int) -> Cost:
        """What takes ``whole`` in the dtype, by how many times faster it is; no less than to read and write so much."""
        return Cost(max(whole.seconds / faster.value, self._traffic(nbytes)), (*whole.origins, faster))

    def route(self, tokens: int, experts: int, depth: int, nbytes: int, steps: int) -> Cost:
        """The logits of all experts, and the best of every token, which are sorted on CUDA row by row."""
        logits = self.matmul(tokens, experts, depth, nbytes)
        if not self.cuda:
            return logits
        overhead = (steps - 1) * self.task_overhead.value
        return Cost(logits.seconds + tokens * c.SORTED_ROW.value + overhead, (*logits.origins, c.SORTED_ROW))

    def sample(self, sequences: int, vocabulary: int, sampling: SamplingSpec) -> Cost:
        """A token of each sequence: logits sorted, where some are left out, and random numbers for those kept."""
        logits = sequences * vocabulary
        kept = sequences * min(sampling.top_k or vocabulary, vocabulary)
        drawn = self.elementwise("sample", int(kept * c.DRAWN_NBYTES.value))
        seconds, origins = drawn.seconds, [*drawn.origins, c.DRAWN_NBYTES]
        if sampling.leaves_out(vocabulary) and self.cuda:
            seconds += self.elementwise("sample", int(logits * c.SORTED_NBYTES.value)).seconds
            origins.append(c.SORTED_NBYTES)
        elif sampling.leaves_out(vocabulary):
            seconds += logits * c.CPU_SORTED_LOGIT.value
            origins.append(c.CPU_SORTED_LOGIT)
        if self.cuda:  # on CPU a call of next to no work takes less than a task
            seconds += (_STEPS_OF_A_DRAW - 1) * self.task_overhead.value
        return Cost(seconds, tuple(origins))

    def one_by_one(
        self, groups: int, rows: int, columns: int, depth: int, weight_nbytes: int, less: _Less = _NOTHING_LESS
    ) -> Cost:
        """Products of several weights (depth, columns), each with an equal part of the rows, one after the other."""
        each = ceil(rows / groups)
        nbytes = weight_nbytes + each * (depth + columns) * DTYPE_NBYTES[self.dtype]
        cost = self.matmul(each, columns, depth, nbytes, less)
        return Cost(groups * (cost.seconds + self.task_overhead.value), cost.origins)

    def grouped(
        self, groups: int, rows: int, columns: int, depth: int, weight_nbytes: int, less: _Less = _NOTHING_LESS
    ) -> Cost:
        """The same in one kernel on CUDA: tiles of the output as ``matmul`` has them, or the reading of the weights.

        The rows of a weight are never a whole number of tiles: half a tile more is the mean.
        """
        if less.nbytes and (faster := self.faster(less.arithmetic, None, ())) is not None:
            whole = self.grouped(groups, rows, columns, depth, weight_nbytes + less.nbytes)
            return self._sped_up(whole, faster, groups * weight_nbytes)
        spared = less.nbytes
        traffic = groups * weight_nbytes / (self.bandwidth.value * c.GROUPED_MEMORY_SHARE.value)
        shares: tuple[Constant | Rule, ...] = (c.GROUPED_SHARE, c.GROUPED_MEMORY_SHARE, self.bandwidth)
        if spared:
            shares = (*shares, c.QUANTISED)
        high, wide = c.TILE
        filled = rows + groups * high / 2
        table = self.calibration.matmul.get(self.dtype) if self.calibration else None
        if spared and not table:
            rate = self.peak.value * self.matmul_share.value * c.GROUPED_SHARE.value
            seconds = max(2 * filled * columns * depth / rate, traffic)
            return Cost(seconds, (self.peak, self.matmul_share, *shares))
        if table:
            # The rate of few rows is that of reading weights of the dtype, which quantised ones are not.
            measured = max(rows, c.MANY_ROWS) if spared else rows
            rate = multilinear(table.grid, table.rates, (measured, columns, depth)) * c.GROUPED_SHARE.value
            origin = Rule(f"matmul in {self.dtype}: rates by shape", self._calibrated)
            return Cost(max(2 * filled * columns * depth / rate, traffic), (origin, *shares))
        tiles = groups * (rows / groups / high + 0.5) * ceil(columns / wide)
        rate = self.peak.value * self.matmul_share.value * c.GROUPED_SHARE.value
        arithmetic = ceil(tiles / self.sms.value) * self.sms.value * 2 * high * wide * depth / rate
        return Cost(max(arithmetic, traffic), (self.peak, self.matmul_share, self.sms, *shares))

    @property
    def experts_table(self) -> ExpertsTable | None:
        return self.calibration.experts.get(self.dtype) if self.calibration else None

    def measured_experts(
        self,
        table: ExpertsTable,
        shape: tuple[int, int, int, int, float],
        matrices: int,
        weights_nbytes: int,
        less: _Less,
    ) -> Cost:
        """Experts with all that is around their products, as they were measured.

        Args:
            table: the rates.
            shape: experts that have rows, rows of all of them, hidden, width of the device's part of an expert, and
                ranks over which the experts are spread.
            matrices: of an expert.
            weights_nbytes: of all experts of the device, in the dtype.
            less: what their quantised weights save; see ``matmul``.
        """
        used, rows, *sizes = shape
        flops = 2 * matrices * rows * sizes[0] * sizes[1]
        origin = Rule(f"experts in {self.dtype}: rates by shape", self._calibrated)
        seconds = flops / multilinear(table.grid, table.rates, (used, rows / used, *sizes))
        if not less.nbytes:
            return Cost(seconds, (origin,))
        factors, kept = self.quantised(less.arithmetic).experts, 1 - less.nbytes / weights_nbytes
        if (faster := self.faster(less.arithmetic, factors, (rows / used, sizes[1]))) is not None:
            read = int(kept * matrices * used * sizes[0] * sizes[1] * DTYPE_NBYTES[self.dtype])
            return self._sped_up(Cost(seconds, (origin,)), faster, 0 if factors else read)
        many = multilinear(table.grid, table.rates, (used, max(rows / used, c.MANY_ROWS), *sizes))
        return Cost(max(kept * seconds, flops / many), (origin, c.QUANTISED))

    def attention(self, queries: Value, keys: int, width: int, values: int, flops: int, nbytes: int) -> Cost:
        """Fused attention of queries (batch, rows, heads, head_dim) over ``keys`` keys, in softmaxes of ``width`` dims.

        ``values``: dims of a head of values.

        Without a calibration, or where it has no softmax as wide as those of another kernel, on CUDA, the rate grows
        with the keys that a row sees, and a tile of queries takes its time however few keys there are. What the kernel
        makes is then copied into place.
        """
        batch, rows, heads, head_dim = queries.shape
        seen = flops / (2 * batch * rows * heads * (head_dim + values))  # keys of a row, on average
        table = self.calibration.attention.get(self.dtype) if self.calibration else None
        if table and (width <= c.WIDEST_FLASH_HEAD or table.width[-1] > c.WIDEST_FLASH_HEAD):
            # Measured causal: a row of s tokens sees (s + 1) / 2 keys on average. One that sees more takes as long
            # where the start of a head decides, and has the rate of longer sequences where the arithmetic does.
            length, softmaxes = 2 * seen - 1, batch * heads * head_dim // width

            def rate_of(tokens: float) -> tuple[tuple[float, ...], float]:
                """Of sequences of that number of tokens that keep as many SMs busy with tiles of their queries.

                A longer sequence than any that was measured has the rate of the longest, with as many tiles.
                """
                tiles = ceil(rows / c.ATTENTION_ROWS) / ceil(min(tokens, table.seq_len[-1]) / c.ATTENTION_ROWS)
                at = (softmaxes * tiles, tokens, width) if table.softmaxes else (tokens, width)
                return at, multilinear(table.grid, table.rates, at)

            point, rate = rate_of(length)
            rate = min(rate_of(keys)[1] * 2 * seen / (keys + 1), rate)
            return self._measured(f"attention in {self.dtype}", flops / rate, nbytes, inside=covers(table.grid, point))
        if not self.cuda:
            return self._roofline(
                flops / (self.peak.value * c.CPU_ATTENTION_SHARE.value), nbytes, c.CPU_ATTENTION_SHARE
            )
        share = _attention_share(width)
        rate = self.peak.value * share.value * seen / (seen + c.ATTENTION_HALF_KEYS.value)
        tiles = batch * heads * (head_dim / width) * ceil(rows / c.ATTENTION_ROWS)
        seconds = max(flops / rate, tiles * c.ATTENTION_TILE.value / self.sms.value)
        seconds *= ceil(tiles / self.sms.value) * self.sms.value / tiles  # the last wave takes as long as a full one
        cost = self._roofline(seconds, nbytes, share, c.ATTENTION_HALF_KEYS, c.ATTENTION_TILE, self.sms)
        made = queries.nbytes // head_dim * values
        return Cost(cost.seconds + self.elementwise("copy", 2 * made).seconds, cost.origins)

    def composed(self, queries: Value, values: int, flops: int, *, capped: bool) -> Cost:
        """Attention made of products, with a matrix of scores in float32 between them.

        Args:
            queries: (batch, rows, heads, head_dim).
            values: dims of a head of values.
            flops: of both products.
            capped: whether scores have a soft cap.
        """
        scores = flops // (2 * (queries.shape[-1] + values))
        share = self.matmul_share if self.cuda else c.CPU_MATMUL_SHARE
        passes = _PASSES_OVER_SCORES + (_PASSES_OF_A_CAP if capped else 0)
        streamed = self.elementwise("add", passes * scores * max(4, DTYPE_NBYTES[self.dtype]))
        arithmetic = flops / (self.peak.value * share.value)
        return Cost(arithmetic + streamed.seconds, (self.peak, share, *streamed.origins))

    def best_keys(self, keys: int, nbytes: int) -> Cost:
        """The best keys, of all queries together."""
        return self.elementwise("add", nbytes + _PASSES_OVER_KEYS * keys * _KEY_NBYTES)

    def cached_attention(
        self,
        queries: Value,
        keys: int,
        values: Value,
        width: int,
        flops: int,
        nbytes: int,
        *,
        once: bool,
        kept: float = 1.0,
    ) -> Cost:
        """Attention of new queries (batch, rows, heads, head_dim) over keys of a cache, ``values`` its values.

        ``once``: the keys are the values. ``kept``: bytes of the cache to those that it would have in the dtype.

        A few rows read the cache and compute little; many are computed as ``attention`` is.
        """
        batch, rows, heads, head_dim = queries.shape
        if rows >= c.ATTENTION_ROWS:
            return self.attention(queries, keys, width, values.shape[-1], flops, nbytes)
        parts = head_dim // width
        widths = (width, values.shape[-1] // parts)
        return self.decode(batch, heads * parts, values.shape[4] * parts, widths, keys, rows, once=once, kept=kept)

    def decode(
        self,
        batch: int,
        heads: int,
        kv_heads: int,
        widths: tuple[int, int],
        keys: int,
        queries: int = 1,
        *,
        once: bool = False,
        kept: float = 1.0,
    ) -> Cost:
        """Attention of a few new tokens of every sequence over a cache; ``decode_attention_cost`` has the parameters.

        ``widths``: dims of a softmax, of queries and keys, and of values. ``once``: the keys are the values. ``kept``:
        bytes of the cache to those that it would have in the dtype.

        The cache is read once, which decides; the arithmetic is looked at too, for many queries share a head of keys.
        Without a calibration, on CUDA, the keys of a head are split in pieces, and every SM reads one at a time:
        where there are too few of them to keep all SMs busy, the memory is not.
        """
        width = widths[0]
        cached = int(kept * batch * kv_heads * keys * (width if once else sum(widths)) * DTYPE_NBYTES[self.dtype])
        if once and self.calibration and (latent := self.calibration.latent_decode.get(self.dtype)):
            return self._latent_decode(latent, batch * kv_heads, keys, heads // kv_heads * queries, cached)
        share = _attention_share(width) if self.cuda else c.CPU_ATTENTION_SHARE
        arithmetic = 2 * batch * heads * queries * keys * sum(widths) / (self.peak.value * share.value)
        table = self.calibration.decode.get(self.dtype) if self.calibration else None
        if table:
            caches = batch * kv_heads
            # Kernels cut the keys in pieces and read these side by side, whichever head they are of: what is longer
            # than any cache that was measured is as busy as several of the longest.
            longer = max(1.0, keys / table.keys[-1])
            last = (width, heads / kv_heads) if table.query_heads else (width,)
            seconds = cached / multilinear(table.grid, table.rates, (caches * longer, keys / longer, *last))
            cost = self._measured(
                f"decode in {self.dtype}", seconds, cached, inside=covers(table.grid, (caches, keys, *last))
            )
            return cost if cost.seconds >= arithmetic else Cost(arithmetic, (*cost.origins, self.peak, share))
        if not self.cuda:
            return self._roofline(arithmetic, cached, share)
        busy = min(batch * kv_heads * ceil(keys / c.DECODE_KEYS), self.sms.value)
        reading = cached / min(self.bandwidth.value * c.DECODE_MEMORY_SHARE.value, busy * c.DECODE_SM.value)
        origins = (self.bandwidth, c.DECODE_MEMORY_SHARE, self.sms, c.DECODE_SM, c.DECODE_START, self.peak, share)
        return Cost(c.DECODE_START.value + max(reading, arithmetic), origins)

    def _latent_decode(self, table: LatentDecodeTable, sequences: int, keys: int, heads: int, cached: int) -> Cost:
        """Attention of ``heads`` queries over each sequence's latents, of ``cached`` bytes in all.

        Its arithmetic is in the rates, by the number of heads. More of them than were measured take as much longer.
        """
        longer = max(1.0, keys / table.keys[-1])  # as of other caches
        more = max(1.0, heads / table.query_heads[-1])
        rate = multilinear(table.grid, table.rates, (sequences * longer, keys / longer, heads / more))
        inside = covers(table.grid, (sequences, keys, heads))
        return self._measured(f"latent decode in {self.dtype}", more * cached / rate, cached, inside=inside)

    def elementwise(self, kind: str, nbytes: int) -> Cost:
        """Work that streams through memory."""
        measured = self.calibration.elementwise if self.calibration else {}
        name = kind if kind in _MEASURED else "add"
        for found, rate in measured.items():
            if found == name:
                return Cost(nbytes / rate, (Constant(name, rate, self._calibrated, "B/s"),))
        return Cost(self._traffic(nbytes), (self.bandwidth, c.MEMORY_SHARE))

    def gated(self, nbytes: int) -> Cost:
        """An activation and the product that it is merged into, f(gate) * up, which read and write so many bytes.

        On CUDA it is one kernel, at the rate of activations; torch, on CPU and in float64, has none.
        """
        if self.cuda and self.dtype != "float64":
            return self.elementwise("activation", nbytes)
        return self.in_two_calls(nbytes)

    def in_two_calls(self, nbytes: int) -> Cost:
        """The same where what the activation makes is written and read again."""
        both = self.elementwise("activation", nbytes * 2 // 3), self.elementwise("multiply", nbytes)
        seconds = sum(cost.seconds for cost in both) + self.task_overhead.value
        return Cost(seconds, tuple(dict.fromkeys(origin for cost in both for origin in cost.origins)))

    @property
    def _calibrated(self) -> str:
        return f"calibrated: {self.calibration.source}" if self.calibration else ""

    def _measured(self, name: str, seconds: float, nbytes: int, *, inside: bool) -> Cost:
        """By a measured rate. Beyond the sizes that were measured memory may bind where it did not before."""
        table = Rule(f"{name}: rates by shape", self._calibrated)
        if inside:
            return Cost(seconds, (table,))
        return Cost(max(seconds, self._traffic(nbytes)), (table, self.bandwidth, c.MEMORY_SHARE))

    def _roofline(self, arithmetic: float, nbytes: int, *shares: Constant) -> Cost:
        seconds = max(arithmetic, self._traffic(nbytes))
        return Cost(seconds, (self.peak, *shares, self.bandwidth, c.MEMORY_SHARE))

    def _traffic(self, nbytes: int) -> float:
        return nbytes / (self.bandwidth.value * c.MEMORY_SHARE.value)
