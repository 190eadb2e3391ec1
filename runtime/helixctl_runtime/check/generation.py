"""A generation held against one pass: the unpartitioned model in float64 over prompts and tokens, without a cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from helixctl.dag import Tensor
from helixctl.plan import Layout, Plan
from helixctl.spec import WorkloadSpec
from helixctl_runtime.check.outputs import Check, tolerance_of
from helixctl_runtime.check.reference import LoadWhole, evaluate, relative_error
from helixctl_runtime.dtypes import TORCH


def check_generation(
    plan: Plan, weights: LoadWhole, prompts: Sequence[Sequence[int]], tokens: torch.Tensor, logits: torch.Tensor
) -> Check:
    """Compare the logits of every token that was chosen.

    Args:
        plan: whose model it is; causal, with a vocabulary.
        weights: gives a whole weight.
        prompts: the token ids of each sequence.
        tokens: int64 (batch, steps), -1 behind the end of a sequence.
        logits: (batch, steps, vocab), those that each token was chosen by.
    """
    dtype = TORCH[plan.model.dtype]
    found, single, exact = [], [], []
    with torch.inference_mode():
        for prompt, row, its in zip(prompts, tokens, logits, strict=True):
            made = row[row >= 0]
            # Of the last token nothing was asked.
            ids = torch.tensor([*prompt, *made[:-1].tolist()])[None]
            work = WorkloadSpec(seq_len=ids.shape[1])
            sketch = Plan.sketch(plan.model, plan.cluster, work, Layout(groups=1, slices=1))

            def load(tensor: Tensor, ids: torch.Tensor = ids) -> torch.Tensor:
                return ids if tensor.role == "input" else weights(tensor)

            exact.append(evaluate(sketch, load, torch.float64)[0, -len(made) :])
            single.append(evaluate(sketch, load, dtype)[0, -len(made) :])
            found.append(its[: len(made)])
    expected = torch.cat(exact)
    unpartitioned = relative_error(torch.cat(single), expected)
    return Check(relative_error(torch.cat(found), expected), unpartitioned, tolerance_of(unpartitioned, dtype))
