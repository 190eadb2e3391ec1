"""Routers: from a token's logits to the gates of its experts; and the score of a token for the shared expert."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch

from helixctl.spec import ExpertGroupsSpec, RouterSpec
from helixctl_runtime.dtypes import HALF
from helixctl_runtime.kernels.basic import Step, accumulator, wide_of

_PLAIN: Final = RouterSpec()


def route(
    x: torch.Tensor,
    weight: torch.Tensor,
    top_k: int,
    out: torch.Tensor,
    *,
    renormalise: bool = True,
    router: RouterSpec = _PLAIN,
    biases: Sequence[torch.Tensor] = (),
) -> Step:
    """Gates: (T, H) x (H, E) -> (T, E) in the dtype of ``out``, the accumulator's; of equal numbers the first wins.

    Args:
        x: tokens.
        weight: the router's matrix.
        top_k: gates of a token.
        out: the result.
        renormalise: the gates of a token are divided by their sum.
        router: how scores become gates.
        biases: (E) of the logits, (E) of the choice, and (E) numbers that gates are multiplied by, as far as the router
            has them.
    """
    wide_biases = [bias.to(out.dtype) for bias in biases]
    of_gates = wide_biases.pop() if router.gate_scales else None
    of_logits, of_choice = wide_biases[: int(router.bias)], wide_biases[int(router.bias) :]
    plain = router.scores == "softmax" and router == RouterSpec(bias=router.bias)
    logits_of = _logits(x, weight, router.logits_scale, of_logits, out.dtype)

    def step() -> None:
        logits = logits_of()
        if plain:
            # A stable sort, not topk: which of equal logits topk takes is not defined.
            best = torch.sort(logits, dim=-1, descending=True, stable=True)
            chosen = best.values[:, :top_k] if renormalise else best.values
            experts, gates = best.indices[:, :top_k], torch.softmax(chosen, dim=-1)[:, :top_k]
        elif router.scores == "sparse_mixer":
            experts, gates = _sparse_mixer(logits, router.jitter)
        else:
            scores = torch.softmax(logits, dim=-1) if router.scores == "softmax" else torch.sigmoid(logits)
            choice = scores if router.groups or of_choice else logits
            for bias in of_choice:
                choice = choice + bias
            if router.groups:
                choice = choice.masked_fill(_outside(choice, router.groups), float("-inf"))
            experts = torch.sort(choice, dim=-1, descending=True, stable=True).indices[:, :top_k]
            gates = scores.gather(1, experts)
            if renormalise:
                gates = gates / (gates.sum(dim=-1, keepdim=True) + router.sum_eps).clamp_(min=router.least_sum)
        if router.scale != 1:
            gates = gates * router.scale
        if of_gates is not None:
            gates = gates * of_gates[experts]
        out.zero_().scatter_(1, experts, gates)

    return step


def _logits(
    x: torch.Tensor, weight: torch.Tensor, scale: float, biases: Sequence[torch.Tensor], dtype: torch.dtype
) -> Callable[[], torch.Tensor]:
    """The logits of all experts, in the accumulator's dtype: in new memory at each call."""
    half = x.is_cuda and x.dtype in HALF
    wide_weight = weight if half else weight.to(dtype)

    def made() -> torch.Tensor:
        # Products of half-precision numbers are exact in float32, so that nothing need be widened for them on CUDA.
        logits: torch.Tensor = torch.ops.aten.mm.dtype(x, weight, dtype) if half else x.to(dtype) @ wide_weight
        if scale != 1:
            logits.mul_(scale)
        for bias in biases:
            logits.add_(bias)
        return logits

    return made


def token_gate(x: torch.Tensor, t: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> Step:
    """``out = x * sigmoid(t @ weight)``: x and out (T, F), t (T, H), weight (H); ``out`` may be ``x``."""
    wide = wide_of(x.dtype)
    column, total = weight.to(wide).unsqueeze(1), accumulator(out)

    def step() -> None:
        score = torch.sigmoid_(t.to(wide) @ column)
        torch.mul(x, score, out=total)
        if total is not out:
            out.copy_(total)

    return step


def _outside(choice: torch.Tensor, groups: ExpertGroupsSpec) -> torch.Tensor:
    """Which experts are in none of a token's best groups; of equal groups the first is the better."""
    tokens, experts = choice.shape
    by_group = choice.view(tokens, groups.count, experts // groups.count)
    best = by_group.amax(dim=-1) if groups.score == "best" else by_group.topk(2, dim=-1).values.sum(dim=-1)
    order = torch.sort(best, dim=-1, descending=True, stable=True).indices[:, groups.top_k :]
    worse = torch.zeros_like(best, dtype=torch.bool).scatter_(1, order, True)  # noqa: FBT003  a value
    return worse.unsqueeze(-1).expand_as(by_group).reshape(tokens, experts)


def _sparse_mixer(logits: torch.Tensor, jitter: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The best two experts (T, 2), and their gates: each the best's part of a softmax over the logits near it."""
    size, left = logits.abs(), logits
    experts, gates = list[torch.Tensor](), list[torch.Tensor]()
    for _ in range(2):
        most, best = left.max(dim=-1, keepdim=True)
        far = (most - logits) / torch.maximum(size, most) > 2 * jitter
        experts.append(best)
        gates.append(torch.softmax(left.masked_fill(far, float("-inf")), dim=-1).gather(1, best))
        left = left.scatter(1, best, float("-inf"))
    return torch.cat(experts, dim=1), torch.cat(gates, dim=1)
