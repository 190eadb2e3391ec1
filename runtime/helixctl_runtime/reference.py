"""The unpartitioned model: its equations evaluated over whole tensors, in any dtype. What --check compares with."""

from __future__ import annotations

from collections.abc import Callable

import torch

from helixctl.dag import Activation, Add, Attention, Experts, Linear, Norm, Route, Tensor
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
        kept = wide if isinstance(equation.op, Route) else dtype  # gates are never rounded to half precision
        live.update(zip(equation.outputs, (y.to(kept) for y in results), strict=True))
        live = {name: x for name, x in live.items() if uses.get(name, i + 1) > i}
    return live["output"]


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Frobenius norm of the difference over that of ``expected`` (float64); infinite where ``actual`` is not finite."""
    difference = torch.linalg.vector_norm(actual.to(torch.float64) - expected)
    error = float(difference / torch.linalg.vector_norm(expected))
    return error if error == error else float("inf")  # noqa: PLR0124  NaN


def _apply(equation: Equation, x: list[torch.Tensor], tensors: dict[str, Tensor]) -> list[torch.Tensor]:
    op = equation.op
    match op:
        case Linear(contract):
            left = [tensors[equation.inputs[0]].dims.index(d) for d in contract]
            rights = [[tensors[w].dims.index(d) for d in contract] for w in equation.inputs[1:]]
            return [torch.tensordot(x[0], w, dims=(left, right)) for w, right in zip(x[1:], rights, strict=True)]
        case Attention():
            made = _attention(op, *x)
        case Norm(_, _, eps):
            made = x[0] / torch.sqrt(x[0].square().mean(dim=-1, keepdim=True) + eps) * x[1]
        case Activation(function):
            made = getattr(torch.nn.functional, function)(x[0])
        case Route(top_k):
            made = _gates(x[0] @ x[1], top_k)
        case Experts(function):
            made = _experts(function, *x)
        case Add():
            made = x[0] + x[1]
        case _:
            raise TypeError(op)
    return [made]


def _gates(logits: torch.Tensor, top_k: int) -> torch.Tensor:
    """Softmax over the best ``top_k`` of the last dim, zero for the others; of equal logits the first are the best."""
    order = torch.argsort(logits, dim=-1, descending=True, stable=True)
    place = torch.arange(logits.shape[-1], device=logits.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(-1, order, place)
    return torch.softmax(logits.masked_fill(rank >= top_k, float("-inf")), dim=-1)


def _experts(
    function: str, x: torch.Tensor, gates: torch.Tensor, w_up: torch.Tensor, w_down: torch.Tensor
) -> torch.Tensor:
    """Every expert over every token, weighted by its gate: no routing to get wrong."""
    total = torch.zeros_like(x)
    for expert in range(w_up.shape[0]):
        inner = getattr(torch.nn.functional, function)(x @ w_up[expert])
        total += gates[..., expert : expert + 1] * (inner @ w_down[expert])
    return total


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
