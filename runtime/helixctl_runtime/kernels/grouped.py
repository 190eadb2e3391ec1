"""Experts: the tokens sorted by expert, so that each weight is one grouped product over all experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  its usual name

from helixctl.dag import Experts
from helixctl.spec import ClampSpec
from helixctl_runtime.dtypes import HALF
from helixctl_runtime.kernels.basic import Step, accumulator, activated, gated, linear, streaming, wide_of
from helixctl_runtime.kernels.fused import cuda_device

# torch's grouped product on CUDA (aten/src/ATen/native/cuda/GroupedBlas.cpp): where these hold the device finds the
# rows of each expert itself; elsewhere the host asks it for them first.
_GROUPED_CAPABILITY: Final = (9, 0)
_GROUPED_DTYPE: Final = torch.bfloat16
_ALIGNMENT_NBYTES: Final = 16


class ExpertBiases(NamedTuple):
    """Biases of experts.

    Attributes:
        up: (E, F).
        down: (E, H); None: they are counted elsewhere.
        gate: (E, F) in the gated form.
    """

    up: torch.Tensor
    down: torch.Tensor | None = None
    gate: torch.Tensor | None = None


def experts(
    op: Experts,
    x: torch.Tensor,
    gates: torch.Tensor,
    weights: Sequence[torch.Tensor],
    out: torch.Tensor,
    biases: ExpertBiases | None = None,
) -> Step:
    """The gated sum over experts: x (T, H), gates (T, E), weights (E, H, F), (E, F, H) [, (E, H, F)] -> out (T, H).

    Every token is computed by the experts for which its gate is not zero, whatever the routing: there is no capacity
    that could overflow. The sum over a token's experts is float32 or wider, and in the order of its gates, so that it
    is the same in every step. Where the products are grouped on the device (``on_device``), what an expert makes of a
    token is rounded to the dtype of ``x`` before it is scaled: torch's grouped product keeps no wider result.

    Args:
        op: the activation, and what the gates multiply. Here may be fewer experts than its ``top_k``, as others are
            held elsewhere.
        x: tokens.
        gates: of each token and expert, in the accumulator's dtype; at most ``top_k`` of a token are not zero.
        weights: up, down and, in the gated form, the gate's.
        out: the result.
        biases: of the experts; None: they have none.
    """
    cpu_half = x.device.type == "cpu" and x.dtype in HALF
    w_up, w_down, *w_gate = (w.float() if cpu_half else w for w in weights)
    held, total = w_up.shape[0], accumulator(out)
    each = min(op.top_k, held)
    product = _grouped if on_device(x, weights) else _one_by_one
    numbers, rows = (torch.arange(count, device=x.device) for count in (held, x.shape[0] * each))
    once = streaming() if x.is_cuda and out.is_contiguous() and gates.dtype == torch.float32 else None
    inner_of = _clamped(op.clamp) if op.clamp else _activated(op.function)

    def step() -> None:
        best = torch.topk(gates, each, dim=1)
        absent = best.values == 0
        # Token by token, its experts; those without a gate come last, behind all experts, and are not computed.
        chosen = best.indices.masked_fill(absent, held).flatten()
        by_expert, order = torch.sort(chosen, stable=True)
        ends = torch.searchsorted(by_expert, numbers, right=True, out_int32=True)
        routed, scales = (x.float() if cpu_half else x).index_select(0, order // each), best.values
        if op.gates_on == "input":
            routed = (routed * scales.flatten().index_select(0, order).unsqueeze(1)).to(routed.dtype)
            scales = absent.logical_not().to(scales.dtype)
        gate = product(routed, w_gate[0], ends, routed.dtype) if w_gate else None
        up = product(routed, w_up, ends, routed.dtype)
        if biases:
            row_of = by_expert.clamp(max=held - 1)
            up = up + biases.up.index_select(0, row_of)
            gate = gate + biases.gate.index_select(0, row_of) if gate is not None and biases.gate is not None else None
        made = product(inner_of(gate, up).to(routed.dtype), w_down, ends, total.dtype)
        if biases and biases.down is not None:
            made = (made + biases.down.index_select(0, row_of)).to(made.dtype)
        place = torch.empty_like(order).scatter_(0, order, rows).view(-1, each)
        if once:
            once.combine(made, place, scales, out)
            return
        scaled = made.index_select(0, place.flatten()).view(*place.shape, -1) * scales.unsqueeze(2)
        torch.sum(scaled.masked_fill_(absent.unsqueeze(2), 0), dim=1, out=total)
        if total is not out:
            out.copy_(total)

    return step


_Inner = Callable[[torch.Tensor | None, torch.Tensor], torch.Tensor]


def _activated(function: str) -> _Inner:
    """The activation of up, or in the gated form that of the gate times up, over the gate."""

    def inner(gate: torch.Tensor | None, up: torch.Tensor) -> torch.Tensor:
        if gate is None:
            return activated(function, up)
        gated(function, gate, up, gate)()
        return gate

    return inner


def _clamped(clamp: ClampSpec) -> _Inner:
    """Of gate and up, both within bounds, g * sigmoid(alpha * g) * (u + 1), in float32 or wider."""

    def inner(gate: torch.Tensor | None, up: torch.Tensor) -> torch.Tensor:
        if gate is None:
            raise TypeError
        g = gate.to(wide_of(gate.dtype)).clamp(max=clamp.limit)
        u = up.to(wide_of(up.dtype)).clamp(-clamp.limit, clamp.limit)
        return torch.sigmoid(g * clamp.alpha).mul_(g).mul_(u.add_(1))

    return inner


def on_device(x: torch.Tensor, weights: Sequence[torch.Tensor]) -> bool:
    """Whether the grouped products run without the host, so that a CUDA graph can hold them."""
    aligned = all(size * x.itemsize % _ALIGNMENT_NBYTES == 0 for w in weights for size in w.shape[1:])
    able = cuda_device()[0] >= _GROUPED_CAPABILITY
    return x.is_cuda and x.dtype == _GROUPED_DTYPE and aligned and able


def _grouped(rows: torch.Tensor, weights: torch.Tensor, ends: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Rows (N, K) sorted by expert, weights (E, K, M), ``ends`` (E) int32: the rows' products (N, M).

    Rows behind the last end are void. ``dtype`` is that of the product where it can be had.
    """
    del dtype
    return F.grouped_mm(rows, weights, offs=ends)


def _one_by_one(rows: torch.Tensor, weights: torch.Tensor, ends: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The same, expert by expert, idle ones left out; the host reads ``ends``."""
    made, first = rows.new_empty((rows.shape[0], weights.shape[2]), dtype=dtype), 0
    for expert, last in enumerate(ends.tolist()):
        if last > first:
            linear(rows[first:last], weights[expert], made[first:last], repeated=False)()
        first = last
    return made
