"""The unpartitioned model: its equations evaluated over whole tensors, in any dtype. What --check compares with."""

from __future__ import annotations

from collections.abc import Callable

import torch

from helixctl.dag import Activation, Add, Attention, Linear, Norm, Tensor
from helixctl.dag.function import Equation, function_of
from helixctl.plan import Plan
from helixctl_runtime.dtypes import HALF

_LARGEST_SCORES = 2**27  # elements of the score matrix that are made at once

LoadWhole = Callable[[Tensor], torch.Tensor]


def evaluate(plan: Plan, load: LoadWhole, dtype: torch.dtype) -> torch.Tensor:
    """The model's output, (batch, seq, hidden), computed in ``dtype``.

    Every operation is computed in ``dtype`` (half precision: in float32) and its result rounded once to ``dtype``.
    ``load`` gives the numbers of whole weights and inputs; they are read when needed and not kept.
    """
    function = function_of(plan.model, plan.workload)
    wide = torch.float32 if dtype in HALF else dtype
    uses = {name: i for i, eq in enumerate(function.equations) for name in eq.inputs}
    live: dict[str, torch.Tensor] = {}
    for i, equation in enumerate(function.equations):
        operands = [live[n] if n in live else load(function.tensors[n]) for n in equation.inputs]
        if equation.inputs[0] == "input":
            live["input"] = operands[0]
        results = _apply(equation, [x.to(wide) for x in operands], function.tensors)
        live.update(zip(equation.outputs, (y.to(dtype) for y in results), strict=True))
        live = {name: x for name, x in live.items() if uses.get(name, i + 1) > i}
    return live["output"]


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Frobenius norm of the difference over that of ``expected`` (float64); infinite where ``actual`` is not finite."""
    difference = torch.linalg.vector_norm(actual.to(torch.float64) - expected)
    error = float(difference / torch.linalg.vector_norm(expected))
    return error if error == error else float("inf")  # noqa: PLR0124  NaN


def _apply(equation: Equation, x: list[torch.Tensor], tensors: dict[str, Tensor]) -> list[torch.Tensor]:
    match equation.op:
        case Linear(contract):
            left = [tensors[equation.inputs[0]].dims.index(d) for d in contract]
            rights = [[tensors[w].dims.index(d) for d in contract] for w in equation.inputs[1:]]
            return [torch.tensordot(x[0], w, dims=(left, right)) for w, right in zip(x[1:], rights, strict=True)]
        case Attention():
            return [_attention(equation.op, *x)]
        case Norm(_, _, eps):
            return [x[0] / torch.sqrt(x[0].square().mean(dim=-1, keepdim=True) + eps) * x[1]]
        case Activation(function):
            return [getattr(torch.nn.functional, function)(x[0])]
        case Add():
            return [x[0] + x[1]]
    raise TypeError(equation.op)


def _attention(op: Attention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T / sqrt(width)) v for every sequence, head and softmax slice."""
    batch, seq, heads, head_dim = q.shape
    q, k, v = (t.reshape(batch, seq, -1, op.softmax_width).transpose(1, 2) for t in (q, k, v))
    mask = torch.ones(seq, seq, dtype=torch.bool, device=q.device).tril() if op.causal else None
    chunk = max(1, _LARGEST_SCORES // (q.shape[1] * seq * seq))
    outputs = []
    for rows in range(0, batch, chunk):
        part = slice(rows, rows + chunk)
        scores = q[part] @ k[part].transpose(-1, -2) / op.softmax_width**0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        outputs.append(torch.softmax(scores, dim=-1) @ v[part])
    return torch.cat(outputs).transpose(1, 2).reshape(batch, seq, heads, head_dim)
