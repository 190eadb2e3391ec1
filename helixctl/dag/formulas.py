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
    CacheWrite,
    Embed,
    Experts,
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
    ReduceScatter,
    Rotate,
    RotateAt,
    Route,
    Scale,
    SendReceive,
    SquareSums,
    TokenGate,
)

_MOST_MATRICES: Final = 3  # of an expert: up, down and, in the gated form, the gate's
_PER_ELEMENT: Final[dict[type, int]] = {Norm: 4, NormBySums: 2, Rotate: 3, RotateAt: 3}


def flops(  # noqa: PLR0911  one a kind
    op: Op, inputs: Sequence[Value], outputs: Sequence[Value], tensors: Mapping[str, Tensor]
) -> int:
    """Floating-point operations of a task, a multiply-add counted as two; 0 for a collective."""
    match op:
        case Linear():
            x = inputs[0]
            dims = tensors[x.tensor].dims
            depth = math.prod(x.shape[dims.index(dim)] for dim in op.contract)
            return 2 * depth * sum(y.numel for y in outputs)
        case Attention():
            batch, rows, heads, width = inputs[0].shape
            keys = inputs[1].shape[1]
            first_row = inputs[0].region[1][0]
            # A causal row r sees keys 0..r.
            pairs = rows * first_row + rows * (rows + 1) // 2 if op.causal else rows * keys
            return 4 * batch * heads * width * pairs
        case CachedAttention() | PartialAttention():
            batch, rows, heads, width = inputs[0].shape
            return 4 * batch * heads * width * _cached_pairs(op.causal, inputs, tensors)
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
        case Norm() | NormBySums() | Rotate() | RotateAt() | Bias() | Activation() | Multiply() | Add() | Scale():
            return _PER_ELEMENT.get(type(op), 1) * sum(y.numel for y in outputs)
        case _:
            return 0


def cached_keys(inputs: Sequence[Value], tensors: Mapping[str, Tensor]) -> int:
    """Keys of a sequence that a cached attention reads, of its lanes: those of the cache and the new ones.

    How many the cache holds is data; what ``length`` is seeded with counts.
    """
    q, k = inputs[:2]
    init = tensors[inputs[3].tensor].init
    held = (int(init[0]) if init else 0) + tensors[q.tensor].shape[1]
    lanes = tensors[k.tensor].shape[2]
    return -(-held * k.shape[2] // lanes)


def _cached_pairs(causal: bool, inputs: Sequence[Value], tensors: Mapping[str, Tensor]) -> int:  # noqa: FBT001
    """Pairs of a new query of a sequence and a key of the cache that it attends to."""
    q, k = inputs[:2]
    rows, (first, last), new = q.shape[1], q.region[1], tensors[q.tensor].shape[1]
    init = tensors[inputs[3].tensor].init
    held = int(init[0]) if init else 0
    pairs = rows * held + ((first + 1 + last) * rows // 2 if causal else rows * new)
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
    """Bytes of a task on so many ranks.

    Compute: read from and written to device memory, every input and output once; of an embedding's table, of the
    tokens from which the last are taken, and of what is narrowed, the part that is read; of experts no more than there
    are tokens to route; of a cache the positions that are read or written.
    Collective: what one rank must receive under a bandwidth-optimal algorithm (the rank that receives most; pieces are
    taken to be as large as the largest).
    """
    match op:
        case Embed():
            ids, table = inputs
            return ids.nbytes + outputs[0].nbytes + min(outputs[0].nbytes, table.nbytes)
        case CachedAttention() | PartialAttention():
            q, k, v, *counts = inputs
            positions = k.shape[1] * k.shape[2] * k.shape[3]
            read = sum(x.nbytes for x in (k, v)) // positions * min(positions, cached_keys(inputs, tensors))
            return q.nbytes + read + sum(x.nbytes for x in (*counts, *outputs))
        case CacheWrite():
            k, v, cache, _, *counts = inputs
            written = -(-(k.nbytes + v.nbytes) * cache.shape[2] // tensors[cache.tensor].shape[2])
            return k.nbytes + v.nbytes + written + sum(x.nbytes for x in counts)
        case Narrow():
            return 2 * outputs[0].nbytes
        case LastToken():
            return inputs[1].nbytes + 2 * outputs[0].nbytes
        case Experts():
            x, gates, *weights = inputs
            held = weights[0].shape[0]
            used = min(held, math.prod(x.shape[:-1]) * op.top_k)
            read = sum(w.nbytes for w in weights) // held * used
            return x.nbytes + gates.nbytes + read + outputs[0].nbytes
        case Broadcast() | SendReceive():
            return (outputs or inputs)[0].nbytes
        case AllGather():
            return (ranks - 1) * max(piece.nbytes for piece in inputs)
        case AllToAll():
            kept = max(_common(piece, out) for piece, out in zip(inputs, outputs, strict=True))
            return (ranks - 1) * kept
        case ReduceScatter():
            return (ranks - 1) * max(share.nbytes for share in outputs)
        case Packed(moves):
            each = zip(moves, *(shares(values, len(moves)) for values in (inputs, outputs)), strict=True)
            return sum(nbytes(move, ranks, its, made, tensors) for move, its, made in each)
        case AllReduce():
            return -(-2 * (ranks - 1) * outputs[0].nbytes // ranks)
        case _:
            return sum(v.nbytes for v in (*inputs, *outputs))


def _common(a: Value, b: Value) -> int:
    """Bytes of what two regions of one tensor have in common."""
    both = [min(x[1], y[1]) - max(x[0], y[0]) for x, y in zip(a.region, b.region, strict=True)]
    return math.prod(max(0, size) for size in both) * a.nbytes // a.numel
