"""Flops and bytes of a task, by kind; docs/formats.md states the same formulas."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from helixctl.dag.document import Tensor, Value, shares
from helixctl.dag.ops import (
    Activation,
    Add,
    AllGather,
    AllReduce,
    AllToAll,
    Attention,
    Bias,
    Broadcast,
    CachedAttention,
    CachedSelect,
    CacheWrite,
    Embed,
    Expand,
    Experts,
    HeadLinear,
    LastToken,
    Linear,
    Merge,
    Multiply,
    Narrow,
    Norm,
    NormBySums,
    Op,
    Packed,
    PartialAttention,
    PartialSelect,
    ReduceScatter,
    Rotate,
    RotateAt,
    Route,
    Scale,
    ScaleBy,
    ScaleQueries,
    Select,
    SendReceive,
    SquareSums,
    TokenGate,
)
from helixctl.dag.reach import causal_pairs, first_key, pairs_of_all, reaches_back
from helixctl.dag.storage import held_nbytes

_WITHOUT_CACHE: Final = 3  # inputs of a choice of keys: queries, keys and factors
_MOST_MATRICES: Final = 3  # of an expert: up, down and, in the gated form, the gate's
_PER_ELEMENT: Final[dict[type, int]] = {Norm: 4, NormBySums: 2, Rotate: 3, RotateAt: 3}


def flops(  # noqa: C901, PLR0911, PLR0912  one a kind
    op: Op, inputs: Sequence[Value], outputs: Sequence[Value], tensors: Mapping[str, Tensor]
) -> int:
    """Floating-point operations of a task, a multiply-add counted as two; 0 for a collective."""
    match op:
        case Linear():
            x = inputs[0]
            dims = tensors[x.tensor].dims
            depth = math.prod(x.shape[dims.index(dim)] for dim in op.contract)
            return 2 * depth * sum(y.numel for y in outputs)
        case HeadLinear(contract):
            x, w = inputs
            depth = w.shape[tensors[w.tensor].dims.index(contract)]
            return 2 * x.numel // x.shape[-1] * depth * product_width(op, w, tensors)
        case Attention():
            batch, rows, heads, _ = inputs[0].shape
            most = min(inputs[1].shape[1], op.top_k or inputs[1].shape[1])
            pairs = causal_pairs(op, inputs[0].region[1][0], rows) if op.causal else rows * most
            return 2 * batch * heads * _widths(inputs) * pairs
        case Select() | CachedSelect() | PartialSelect():
            batch, _, heads, width = inputs[0].shape
            return 2 * batch * heads * (width + 1) * scored_pairs(op, inputs, tensors)
        case CachedAttention() | PartialAttention():
            batch, _, heads, _ = inputs[0].shape
            return 2 * batch * heads * _widths(inputs) * _cached_pairs(op, inputs, tensors)
        case Expand():
            x, w_k, w_v, *_ = inputs
            return 2 * x.shape[0] * expanded_keys(inputs, tensors) * (w_k.numel + w_v.numel)
        case Merge():
            return 2 * inputs[0].numel
        case SquareSums():
            return 2 * sum(x.numel for x in inputs)
        case Route():
            return 2 * inputs[0].numel * outputs[0].shape[-1]
        case TokenGate():
            return inputs[0].numel + 2 * inputs[1].numel
        case Experts():
            x, w_up = inputs[0], inputs[2]
            return 2 * len(expert_matrices(inputs)) * expert_rows(op, inputs, tensors) * x.shape[-1] * w_up.shape[-1]
        case (
            Norm()
            | NormBySums()
            | Rotate()
            | RotateAt()
            | Bias()
            | Activation()
            | Multiply()
            | Add()
            | Scale()
            | ScaleBy()
            | ScaleQueries()
        ):
            return _PER_ELEMENT.get(type(op), 1) * sum(y.numel for y in outputs)
        case _:
            return 0


def product_width(op: HeadLinear, w: Value, tensors: Mapping[str, Tensor]) -> int:
    """How many dims the product with a head's part of a weight has."""
    return math.prod(w.shape[i] for i, d in enumerate(tensors[w.tensor].dims) if d not in {"head", op.contract})


def _widths(inputs: Sequence[Value]) -> int:
    """Dims of a head of keys, and of one of values, together."""
    return inputs[1].shape[-1] + inputs[2].shape[-1]


def cached_keys(op: CachedAttention | PartialAttention, inputs: Sequence[Value], tensors: Mapping[str, Tensor]) -> int:
    """Keys of a sequence that a cached attention reads, of its lanes: those of the cache and the new ones.

    How many the cache holds is data; what ``length`` is seeded with counts.
    """
    held = _held(inputs, tensors)
    return _of_lanes(inputs, tensors, first_key(op, held + inputs[0].region[1][0]))


def scored_keys(inputs: Sequence[Value], tensors: Mapping[str, Tensor]) -> int:
    """Keys of a sequence that an indexer scores, of its lanes."""
    return _of_lanes(inputs, tensors) if len(inputs) > _WITHOUT_CACHE else inputs[1].shape[1]


def scored_pairs(
    op: Select | CachedSelect | PartialSelect, inputs: Sequence[Value], tensors: Mapping[str, Tensor]
) -> int:
    """Pairs of a query of a sequence and a key that an indexer scores for it, of its lanes."""
    q, k = inputs[:2]
    rows, first = q.shape[1], q.region[1][0]
    if isinstance(op, Select):
        return pairs_of_all(first, rows) if op.causal else rows * k.shape[1]
    held = _held(inputs, tensors)
    pairs = pairs_of_all(held + first, rows) if op.causal else rows * (held + tensors[q.tensor].shape[1])
    return -(-pairs * k.shape[2] // tensors[k.tensor].shape[2])


def _of_lanes(inputs: Sequence[Value], tensors: Mapping[str, Tensor], first: int = 0) -> int:
    """Positions of a sequence from one on, up to the last new one, that are of the lanes of a cache; rounded up."""
    q, k = inputs[:2]
    read = _held(inputs, tensors) + tensors[q.tensor].shape[1] - first
    return -(-read * k.shape[2] // tensors[k.tensor].shape[2])


def _held(inputs: Sequence[Value], tensors: Mapping[str, Tensor]) -> int:
    """Tokens of a sequence in the cache before the step, as they are counted."""
    init = tensors[inputs[3].tensor].init
    return int(init[0]) if init else 0


def expanded_keys(inputs: Sequence[Value], tensors: Mapping[str, Tensor]) -> int:
    """Positions of a sequence whose latents are expanded, of a rank's lanes: those of the cache and the new ones."""
    x, count = inputs[0], tensors[inputs[4].tensor]
    read = _held(inputs, tensors) + int(count.init[0] if count.init else 0)
    return min(math.prod(x.shape[1:4]), -(-read * x.shape[2] // tensors[x.tensor].shape[2]))


def _cached_pairs(
    op: CachedAttention | PartialAttention, inputs: Sequence[Value], tensors: Mapping[str, Tensor]
) -> int:
    """Pairs of a new query of a sequence and a key of the cache that it attends to."""
    q, k = inputs[:2]
    rows, held = q.shape[1], _held(inputs, tensors)
    new = tensors[q.tensor].shape[1]
    most = min(held + new, op.top_k or held + new)
    pairs = causal_pairs(op, held + q.region[1][0], rows) if op.causal else rows * most
    return -(-pairs * k.shape[2] // tensors[k.tensor].shape[2])


def expert_matrices(inputs: Sequence[Value]) -> Sequence[Value]:
    """The matrices among the inputs of a task of experts; biases stand behind them, one for each."""
    weights = inputs[2:]
    return weights[: len(weights) // 2] if len(weights) > _MOST_MATRICES else weights


def expert_rows(op: Experts, inputs: Sequence[Value], tensors: Mapping[str, Tensor]) -> int:
    """Rows that the experts of a task compute, all together, where the routing is even; rounded up."""
    x, w_up = inputs[0], inputs[2]
    tokens, count = math.prod(x.shape[:-1]), tensors[w_up.tensor].shape[0]
    return -(-tokens * op.top_k * w_up.shape[0] // count)


def nbytes(  # noqa: C901, PLR0911, PLR0912  one a kind
    op: Op, ranks: int, inputs: Sequence[Value], outputs: Sequence[Value], tensors: Mapping[str, Tensor]
) -> int:
    """Bytes of a task on a number of ranks.

    Compute: read from and written to device memory, every input and output once; of an embedding's table, of the
    tokens from which the last are taken, and of what is narrowed, the part that is read; of experts no more than there
    are tokens to route; of a cache the positions that are read or written.
    Collective: what one rank must receive under a bandwidth-optimal algorithm (the rank that receives most; pieces are
    taken to be as large as the largest).
    """
    match op:
        case Embed():
            ids, table = inputs
            held = held_nbytes(table, tensors)
            read = min(outputs[0].nbytes * held // max(1, table.nbytes), held)
            return ids.nbytes + outputs[0].nbytes + read
        case CachedAttention() | PartialAttention():
            q, k, v, *others = inputs
            positions = k.shape[1] * k.shape[2] * k.shape[3]
            caches = {x.id: held_nbytes(x, tensors) for x in (k, v)}  # one alone may be both
            keys = min(positions, cached_keys(op, inputs, tensors))
            if op.top_k is not None:  # of several lanes one may have all of them
                keys = min(keys, q.shape[1] * op.top_k)
            read = sum(caches.values()) // positions * keys
            return q.nbytes + read + sum(x.nbytes for x in (*others, *outputs))
        case Attention(causal=True) if reaches_back(op) is not None:
            q, k, v, *others = inputs
            start, stop = q.region[1]
            seen, keys = min(k.shape[1], stop) - first_key(op, start), k.shape[1]
            read = sum(x.nbytes for x in (k, v)) // keys * seen
            return q.nbytes + read + sum(x.nbytes for x in (*others, *outputs))
        case Expand():
            x, *others = inputs
            positions = math.prod(x.shape[1:4])
            moved = (
                (held_nbytes(x, tensors) + sum(y.nbytes for y in outputs)) // positions * expanded_keys(inputs, tensors)
            )
            return moved + sum(held_nbytes(v, tensors) for v in others)
        case CachedSelect() | PartialSelect():
            q, k, *others = inputs
            positions = k.shape[1] * k.shape[2] * k.shape[3]
            read = held_nbytes(k, tensors) // positions * min(positions, scored_keys(inputs, tensors))
            return q.nbytes + read + sum(x.nbytes for x in (*others, *outputs))
        case CacheWrite():
            *kept, length, count = inputs
            news, cache = sum(new.nbytes for new in kept[: len(kept) // 2]), kept[-1]
            kept_in = held_nbytes(cache, tensors), max(1, cache.nbytes)
            written = -(-news * cache.shape[2] * kept_in[0] // (tensors[cache.tensor].shape[2] * kept_in[1]))
            return news + written + length.nbytes + count.nbytes
        case Narrow():
            return 2 * outputs[0].nbytes
        case LastToken():
            return inputs[1].nbytes + 2 * outputs[0].nbytes
        case Experts():
            x, gates, *weights = inputs
            held = weights[0].shape[0]
            used = min(held, math.prod(x.shape[:-1]) * op.top_k)
            read = sum(held_nbytes(w, tensors) for w in weights) // held * used
            return x.nbytes + gates.nbytes + read + outputs[0].nbytes
        case Broadcast() | SendReceive():
            return (outputs or inputs)[0].nbytes
        case AllGather():
            return (ranks - 1) * max(piece.nbytes for piece in inputs)
        case AllToAll():
            most = max(_common(piece, out) for piece, out in zip(inputs, outputs, strict=True))
            return (ranks - 1) * most
        case ReduceScatter():
            return (ranks - 1) * max(share.nbytes for share in outputs)
        case Packed(moves):
            each = zip(moves, *(shares(values, len(moves)) for values in (inputs, outputs)), strict=True)
            return sum(nbytes(move, ranks, its, made, tensors) for move, its, made in each)
        case AllReduce():
            return -(-2 * (ranks - 1) * outputs[0].nbytes // ranks)
        case _:
            return sum(held_nbytes(v, tensors) for v in inputs) + sum(v.nbytes for v in outputs)


def _common(a: Value, b: Value) -> int:
    """Bytes of what two regions of one tensor have in common."""
    both = [min(x[1], y[1]) - max(x[0], y[0]) for x, y in zip(a.region, b.region, strict=True)]
    return math.prod(max(0, size) for size in both) * a.nbytes // a.numel
