"""Flops and bytes of a task, by kind; docs/formats.md states the same formulas."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from helixctl.dag.document import Tensor, Value
from helixctl.dag.ops import Activation, Add, AllGather, AllReduce, Attention, Broadcast, Linear, Norm, Op, SendReceive


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
        case Norm():
            return 4 * outputs[0].numel
        case Activation() | Add():
            return outputs[0].numel
        case Broadcast() | AllGather() | AllReduce() | SendReceive():
            return 0


def nbytes(op: Op, inputs: Sequence[Value], outputs: Sequence[Value]) -> int:
    """Bytes of a task.

    Compute: read from and written to device memory, every input and output once. Collective: what one rank must
    receive under a bandwidth-optimal algorithm (the rank that receives most).
    """
    match op:
        case Broadcast() | SendReceive():
            return outputs[0].nbytes
        case AllGather():
            return max(out.nbytes - piece.nbytes for piece, out in zip(inputs, outputs, strict=True))
        case AllReduce():
            ranks = len(outputs)
            return -(-2 * (ranks - 1) * outputs[0].nbytes // ranks)
        case _:
            return sum(v.nbytes for v in (*inputs, *outputs))
