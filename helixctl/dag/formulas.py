"""Flops and bytes of a task, by kind; docs/formats.md states the same formulas."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from helixctl.dag.document import Tensor, Value
from helixctl.dag.ops import (
    Activation,
    Add,
    AllGather,
    AllReduce,
    Attention,
    Broadcast,
    Experts,
    Linear,
    Norm,
    Op,
    Route,
    SendReceive,
)


def flops(op: Op, inputs: Sequence[Value], outputs: Sequence[Value], tensors: Mapping[str, Tensor]) -> int:
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
        case Route():
            return 2 * inputs[0].numel * outputs[0].shape[-1]
        case Experts():
            x, _, w_up, _ = inputs
            return 4 * expert_rows(op, inputs, tensors) * x.shape[-1] * w_up.shape[-1]
        case Norm() | Activation() | Add():
            return (4 if isinstance(op, Norm) else 1) * outputs[0].numel
        case _:
            return 0


def expert_rows(op: Experts, inputs: Sequence[Value], tensors: Mapping[str, Tensor]) -> int:
    """Rows that the experts of a task compute, all together, where the routing is even; rounded up."""
    x, _, w_up, _ = inputs
    tokens, count = math.prod(x.shape[:-1]), tensors[w_up.tensor].shape[0]
    return -(-tokens * op.top_k * w_up.shape[0] // count)


def nbytes(op: Op, ranks: int, inputs: Sequence[Value], outputs: Sequence[Value]) -> int:
    """Bytes of a task on so many ranks.

    Compute: read from and written to device memory, every input and output once; of experts no more than there are
    tokens to route. Collective: what one rank must receive under a bandwidth-optimal algorithm (the rank that receives
    most).
    """
    match op:
        case Experts():
            x, gates, w_up, w_down = inputs
            held = w_up.shape[0]
            used = min(held, math.prod(x.shape[:-1]) * op.top_k)
            weights = (w_up.nbytes + w_down.nbytes) // held * used
            return x.nbytes + gates.nbytes + weights + outputs[0].nbytes
        case Broadcast() | SendReceive():
            return (outputs or inputs)[0].nbytes
        case AllGather():
            return max(out.nbytes - piece.nbytes for piece, out in zip(inputs, outputs, strict=True))
        case AllReduce():
            return -(-2 * (ranks - 1) * outputs[0].nbytes // ranks)
        case _:
            return sum(v.nbytes for v in (*inputs, *outputs))
