"""A generation held against one pass: the unpartitioned model in float64 over prompts and tokens, without a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from helixctl.dag import Tensor
from helixctl.plan import Layout, Plan
from helixctl.spec import WorkloadSpec
from helixctl_runtime.check.choice import chosen
from helixctl_runtime.check.outputs import Check, tolerance_of
from helixctl_runtime.check.reference import LoadWhole, evaluate, relative_error
from helixctl_runtime.dtypes import TORCH


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """What was chosen, beside what the definition gives.

    Attributes:
        wrong: tokens that are not those that the run's own logits give, by the same random numbers.
        unlike_float64: tokens that are not those that the logits in float64 give: where rounding decides.
    """

    wrong: int
    unlike_float64: int


def check_generation(
    plan: Plan,
    weights: LoadWhole,
    prompts: Sequence[Sequence[int]],
    tokens: torch.Tensor,
    logits: torch.Tensor,
    seed: int = 0,
) -> tuple[Check, TokenCheck]:
    """Compare the logits of every token that was chosen, and the choice.

    Args:
        plan: whose model it is; causal, with a vocabulary.
        weights: gives a whole weight.
        prompts: the token ids of each sequence.
        tokens: int64 (batch, steps), -1 behind the end of a sequence.
        logits: (batch, steps, vocab), float64, those that each token was chosen by.
        seed: of the run.
    """
    dtype = TORCH[plan.model.dtype]
    found, single, exact = [], [], []
    with torch.inference_mode():
        for prompt, row, its in zip(prompts, tokens, logits, strict=True):
            made = row[row >= 0]
            # Of the last token nothing was asked.
            ids = torch.tensor([*prompt, *made[:-1].tolist()])[None]
            work = WorkloadSpec(seq_len=ids.shape[1], routing=plan.workload.routing)
            sketch = Plan.sketch(plan.model, plan.cluster, work, Layout(groups=1, slices=1))

            def load(tensor: Tensor, ids: torch.Tensor = ids) -> torch.Tensor:
                return ids if tensor.role == "input" else weights(tensor)

            exact.append(evaluate(sketch, load, torch.float64)[0, -len(made) :])
            single.append(evaluate(sketch, load, dtype)[0, -len(made) :])
            found.append(its[: len(made)])
    expected = torch.cat(exact)
    unpartitioned = relative_error(torch.cat(single), expected)
    check = Check(relative_error(torch.cat(found), expected), unpartitioned, tolerance_of(unpartitioned, dtype))
    wrong, unlike = (_unlike(plan, prompts, tokens, each, seed) for each in (found, exact))
    return check, TokenCheck(wrong, unlike)


def _unlike(
    plan: Plan, prompts: Sequence[Sequence[int]], tokens: torch.Tensor, logits: Sequence[torch.Tensor], seed: int
) -> int:
    """How many of the tokens are not those that logits (steps, vocab) of each sequence give."""
    how, count = plan.workload.sampling, 0
    for sequence, (prompt, row, its) in enumerate(zip(prompts, tokens, logits, strict=True)):
        for step, of_token in enumerate(its):
            at = {"seed": seed, "sequence": sequence, "position": len(prompt) + step}
            count += chosen(of_token, how, **at) != int(row[step])
    return count
