"""The unpartitioned model: its equations evaluated over whole tensors, in any dtype. What --check compares with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from helixctl.dag import (
    Activation,
    Add,
    Attention,
    Bias,
    Embed,
    Experts,
    Join,
    LastToken,
    Linear,
    Multiply,
    Norm,
    NormBySums,
    Rotate,
    Route,
    Scale,
    ScaleBy,
    ScaleQueries,
    Select,
    SquareSums,
    Tensor,
    TokenGate,
)
from helixctl.dag.function import Equation, function_of, input_of, output_of
from helixctl.plan import Plan
from helixctl_runtime.dtypes import HALF, TORCH
from helixctl_runtime.tensors.position_scaling import query_scales
from helixctl_runtime.tensors.rotary import rotations

_LARGEST_SCORES = 2**27  # elements of the score matrices that are made at once
_LARGEST_DIFFERENCE = 2**24  # elements of two tensors that are compared at once

LoadWhole = Callable[[Tensor], torch.Tensor]


def evaluate(plan: Plan, load: LoadWhole, dtype: torch.dtype) -> torch.Tensor:
    """The model's output, computed in ``dtype``.

    It is (batch, seq, hidden); of a model with a vocabulary its logits, (batch, seq, vocab), or those of the last
    tokens alone, (batch, vocab).

    Every operation is computed in ``dtype`` (half precision: in float32) and its result rounded once to ``dtype``.
    ``load`` gives the numbers of whole weights and inputs (token ids: int64); they are read when needed and not kept.
    """
    function = function_of(plan.model, plan.step())
    given, made = input_of(plan.model), output_of(plan.model)
    wide = torch.float32 if dtype in HALF else dtype
    uses = {name: i for i, eq in enumerate(function.equations) for name in eq.inputs}
    live: dict[str, torch.Tensor] = {}
    for i, equation in enumerate(function.equations):
        operands = [live[n] if n in live else load(function.tensors[n]) for n in equation.inputs]
        if equation.inputs[0] == given:
            live[given] = operands[0]
        if isinstance(equation.op, Embed):
            ids, table = operands
            results = [_embedded(equation.op, ids, table, TORCH[plan.model.dtype])]
        else:
            results = _apply(equation, operands, wide, function.tensors)
        op = equation.op
        decides = isinstance(op, Route | SquareSums) or (isinstance(op, Linear) and op.wide)
        kept = wide if decides else dtype  # gates, and what a choice is made by, are never rounded to half precision
        live.update(zip(equation.outputs, (y if y.dtype == torch.int64 else y.to(kept) for y in results), strict=True))
        live = {name: x for name, x in live.items() if uses.get(name, i + 1) > i}
    return live[made]


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Frobenius norm of the difference over that of ``expected`` (float64); infinite where ``actual`` is not finite."""
    difference = norm = 0.0
    for a, e in _parts(actual, expected):
        difference += float((a.to(torch.float64) - e).square_().sum())
        norm += float(torch.linalg.vector_norm(e)) ** 2
    error = math.sqrt(difference / norm) if norm else float("inf")
    return error if error == error else float("inf")  # noqa: PLR0124  NaN


def _parts(a: torch.Tensor, b: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Two tensors side by side in parts: a copy of the whole in float64 may be too large."""
    if a.numel() <= _LARGEST_DIFFERENCE:
        yield a, b
        return
    axis = a.shape.index(max(a.shape))
    size = max(1, a.shape[axis] * _LARGEST_DIFFERENCE // a.numel())
    for pair in zip(a.split(size, axis), b.split(size, axis), strict=True):
        yield from _parts(*pair)


def _apply(  # noqa: C901, PLR0912  one case a kind
    equation: Equation, operands: list[torch.Tensor], wide: torch.dtype, tensors: dict[str, Tensor]
) -> list[torch.Tensor]:
    op = equation.op
    if isinstance(op, LastToken):
        rows, length = operands  # numbers are moved, so that none need be widened
        return [rows[torch.arange(len(length), device=length.device), length - 1]]
    x = [operand if operand.dtype == torch.int64 else operand.to(wide) for operand in operands]
    match op:
        case Linear(contract):
            left = [tensors[equation.inputs[0]].dims.index(d) for d in contract]
            rights = [[tensors[w].dims.index(d) for d in contract] for w in equation.inputs[1:]]
            return [torch.tensordot(x[0], w, dims=(left, right)) for w, right in zip(x[1:], rights, strict=True)]
        case Bias():
            return [a + b for a, b in zip(x[: len(x) // 2], x[len(x) // 2 :], strict=True)]
        case Rotate():
            return [_rotated(op, each) for each in x]
        case Select():
            made = _selected(op, *x)
        case Attention():
            made = _attention(op, *x)
        case ScaleBy():
            made = x[0] * x[1]
        case ScaleQueries(scaling):
            made = x[0] * query_scales(scaling, (0, x[0].shape[1])).to(x[0].device, wide)[:, None, None]
        case Join():
            made = torch.cat((x[0], x[1].expand(*x[0].shape[:3], -1)), dim=-1)
        case Norm():
            made = _normed(op, *x)
        case SquareSums():
            made = torch.stack([each.square().sum(dim=(2, 3)) for each in x], dim=-1)
        case NormBySums(eps, unit_offset):
            q, k, sums, *weights = x
            return [
                each / torch.sqrt(sums[..., i, None, None] / weight.numel() + eps) * (weight + unit_offset)
                for i, (each, weight) in enumerate(zip((q, k), weights, strict=True))
            ]
        case Scale(multiplier, cap):
            made = x[0] * multiplier
            made = made if cap is None else cap * torch.tanh(made / cap)
        case Activation(function):
            made = _activated(function, x[0])
        case Route():
            made = _gates(op, x[0] @ x[1], x[2:])
        case Experts():
            made = _experts(op, *x)
        case TokenGate():
            made = x[0] * torch.sigmoid(x[1] @ x[2]).unsqueeze(-1)
        case Add(multiplier):
            made = x[0] + multiplier * x[1]
        case Multiply():
            made = x[0] * x[1]
        case _:
            raise TypeError(op)
    return [made]


def _embedded(op: Embed, ids: torch.Tensor, table: torch.Tensor, model: torch.dtype) -> torch.Tensor:
    """The rows of a table that ids name, times a number, which may be one of the model's dtype."""
    multiplier = float(torch.tensor(op.multiplier, dtype=model)) if op.in_dtype else op.multiplier
    return table[ids] if multiplier == 1 else table[ids] * multiplier


def _activated(function: str, x: torch.Tensor) -> torch.Tensor:
    match function:
        case "gelu_tanh":
            return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
        case "relu_squared":
            return torch.nn.functional.relu(x) ** 2
        case _:
            made: torch.Tensor = getattr(torch.nn.functional, function)(x)
            return made


def _normed(op: Norm, x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
    """Over the last dim; then a product with the weight, and the sum with the bias."""
    if op.function == "layer_norm":
        x = x - x.mean(dim=-1, keepdim=True)
    made = x / torch.sqrt(x.square().mean(dim=-1, keepdim=True) + op.eps)
    if weights:
        made = made * (weights[0] + op.unit_offset)
    return made + weights[1] if weights[1:] else made


def _rotated(op: Rotate, x: torch.Tensor) -> torch.Tensor:
    """Every pair of dims turned by its angle, as complex numbers are multiplied."""
    if op.last is not None and op.last < x.shape[3]:
        return torch.cat((x[..., : -op.last], _rotated(op, x[..., -op.last :])), dim=-1)
    seq, head_dim = x.shape[1], x.shape[3]
    tables = rotations(op.rotary, head_dim, (0, seq), long=op.long)
    cos, sin = (t.to(x.device, x.dtype).unsqueeze(1) for t in tables)
    dims = op.rotary.dims or head_dim
    turned, rest = x[..., :dims], x[..., dims:]
    if op.rotary.interleaved:
        a, b = turned.unflatten(-1, (-1, 2)).unbind(-1)
        pairs = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    else:
        a, b = turned.chunk(2, dim=-1)
        pairs = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    return torch.cat((pairs, rest), dim=-1)


def _gates(op: Route, logits: torch.Tensor, biases: list[torch.Tensor]) -> torch.Tensor:
    """The scores of the best ``top_k`` of the last dim, renormalised and scaled; zero for all but the best."""
    router = op.router
    scale: float | torch.Tensor = router.scale
    if router.gate_scales:
        *biases, scales = biases
        scale = scales * router.scale
    logits = logits * router.logits_scale
    if router.bias:
        logits = logits + biases[0]
    if router.scores == "sparse_mixer":
        return scale * _sparse_mixer(logits, router.jitter)
    scores = torch.softmax(logits, dim=-1) if router.scores == "softmax" else torch.sigmoid(logits)
    choice = scores if router.choice_bias or router.groups else logits
    if router.choice_bias:
        choice = choice + biases[-1]
    if router.groups:
        best = choice.unflatten(-1, (router.groups.count, -1)).sort(dim=-1, descending=True).values
        of_groups = best[..., 0] + (best[..., 1] if router.groups.score == "sum_of_two" else 0)
        outside = ~_best(of_groups, router.groups.top_k)
        choice = choice.masked_fill(outside.repeat_interleave(best.shape[-1], dim=-1), float("-inf"))
    chosen = _best(choice, op.top_k)
    added = router.sum_eps or router.least_sum
    if op.renormalise and not (added or router.choice_bias or router.groups or router.scores == "sigmoid"):
        return scale * torch.softmax(logits.masked_fill(~chosen, float("-inf")), dim=-1)
    gates = scores.masked_fill(~chosen, 0)
    if op.renormalise:
        gates = gates / (gates.sum(dim=-1, keepdim=True) + router.sum_eps).clamp(min=router.least_sum)
    return scale * gates


def _best(x: torch.Tensor, count: int) -> torch.Tensor:
    """Which are the best ``count`` of the last dim; of equal ones the first are."""
    order = torch.argsort(x, dim=-1, descending=True, stable=True)
    place = torch.arange(x.shape[-1], device=x.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, place) < count


def _sparse_mixer(logits: torch.Tensor, jitter: float) -> torch.Tensor:
    """Gates of the best two, each the best's part of a softmax over those of the left ones that are near it."""
    gates, chosen = torch.zeros_like(logits), torch.zeros_like(logits, dtype=torch.bool)
    for _ in range(2):
        left = logits.masked_fill(chosen, float("-inf"))
        its, most = _best(left, 1), left.amax(dim=-1, keepdim=True)
        near = ~((most - logits) / torch.maximum(logits.abs(), most) > 2 * jitter)
        gates += torch.softmax(left.masked_fill(~near, float("-inf")), dim=-1).masked_fill(~its, 0)
        chosen = chosen | its
    return gates


def _experts(
    op: Experts,
    x: torch.Tensor,
    gates: torch.Tensor,
    w_up: torch.Tensor,
    w_down: torch.Tensor,
    *others: torch.Tensor,
) -> torch.Tensor:
    """Every expert over every token, weighted by its gate: no routing to get wrong."""
    gated = len(others) in {1, 4}  # of three matrices, and of as many biases
    w_gate, biases = others[: int(gated)], others[int(gated) :]
    total = torch.zeros_like(x)
    for expert in range(w_up.shape[0]):
        gate = gates[..., expert : expert + 1]
        row = x * gate if op.gates_on == "input" else x
        up = row @ w_up[expert] + (biases[0][expert] if biases else 0)
        inner = _activated(op.function, up)
        if w_gate:
            slope = row @ w_gate[0][expert] + (biases[2][expert] if biases else 0)
            if op.clamp:
                slope, up = slope.clamp(max=op.clamp.limit), up.clamp(-op.clamp.limit, op.clamp.limit)
                inner = slope * torch.sigmoid(op.clamp.alpha * slope) * (up + 1)
            else:
                inner = _activated(op.function, slope) * up
        made = inner @ w_down[expert] + (biases[1][expert] if biases else 0)
        total += made * (gate != 0) if op.gates_on == "input" else gate * made
    return total


def _selected(op: Select, q: torch.Tensor, k: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """The positions of the best keys of every token, the best first; of equal ones the first. -1 where none is left."""
    batch, seq, heads, _ = q.shape
    scores = torch.zeros(batch, seq, seq, dtype=q.dtype, device=q.device)
    for head in range(heads):
        products = q[:, :, head] @ k[:, :, 0].transpose(1, 2)
        scores += factor[..., head, None] * torch.relu(op.scale * products)
    if op.causal:
        later = torch.ones(seq, seq, dtype=torch.bool, device=q.device).triu_(1)
        scores = scores.masked_fill(later, float("-inf"))
    found, order = torch.sort(scores, dim=-1, descending=True, stable=True)
    return order.masked_fill(found == float("-inf"), -1)[..., : op.top_k]


def _attention(
    op: Attention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, more: torch.Tensor | None = None
) -> torch.Tensor:
    """Softmax(q k^T scale) v for every sequence, head and softmax slice.

    ``more``: sinks, each one more score without a value; or the keys that were chosen for each token.
    """
    batch, seq, heads, _ = q.shape
    sinks, chosen = (more, None) if op.top_k is None else (None, more)
    own_keys = None
    if chosen is not None:
        own_keys = torch.zeros(batch, seq, seq + 1, dtype=torch.bool, device=q.device)
        own_keys.scatter_(2, chosen.masked_fill(chosen < 0, seq), True)  # noqa: FBT003  a value
        own_keys = own_keys[..., :seq].repeat_interleave(heads, dim=0)
    # Head h attends with the head h // (heads / kv_heads) of keys and values.
    k, v = (t.repeat_interleave(heads // t.shape[2], dim=2) for t in (k, v))
    parts = q.shape[3] // op.softmax_width
    q, k, v = (t.unflatten(3, (parts, -1)).flatten(2, 3).transpose(1, 2).flatten(0, 1) for t in (q, k, v))
    mask = _seen(op, seq, q.device) if op.causal else None
    own = None if sinks is None else sinks.repeat(batch).view(-1, 1, 1).expand(-1, seq, 1)
    chunk = max(1, _LARGEST_SCORES // (seq * seq))
    outputs = []
    for first in range(0, q.shape[0], chunk):
        part = slice(first, first + chunk)
        scores = q[part] @ k[part].transpose(-1, -2) * op.factor
        if op.soft_cap is not None:
            scores = op.soft_cap * torch.tanh(scores / op.soft_cap)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        if own_keys is not None:
            scores = scores.masked_fill(~own_keys[part], float("-inf"))
        if own is not None:
            scores = torch.cat((scores, own[part]), dim=-1)
        outputs.append(torch.softmax(scores, dim=-1)[..., :seq] @ v[part])
    return torch.cat(outputs).unflatten(0, (batch, -1)).transpose(1, 2).reshape(batch, seq, heads, -1)


def _seen(op: Attention, seq: int, device: torch.device) -> torch.Tensor:
    """Which positions (columns) a causal token (row) attends to."""
    i, j = torch.arange(seq, device=device).unsqueeze(1), torch.arange(seq, device=device)
    seen = j <= i
    if op.window is not None:
        seen &= j > i - op.window
    return seen if op.chunk is None else seen & (j // op.chunk == i // op.chunk)
