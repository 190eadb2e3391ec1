"""The reference against a transformer written anew in plain torch: what helixctl.dag.function says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from helixctl_runtime.check.reference import evaluate
from helixctl_runtime.tensors.seeded import seeded_numbers
from tests.documents import SMALL, plan_of


@pytest.mark.parametrize("softmax_slices", [1, 4])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "relu", "silu"])
def test_a_plain_transformer(softmax_slices: int, causal: bool, activation: str) -> None:
    sets = (f"attention.softmax_slices={softmax_slices}", f"attention.causal={str(causal).lower()}", "layers=2")
    plan = plan_of(SMALL, 1, 1, *sets, f"feed_forward.activation={activation}", "hidden_size=48", "attention.heads=3",
                   "attention.head_dim=20", "feed_forward.intermediate_size=56", "workload.batch=2")  # fmt: skip
    numbers = {}

    def load(tensor):
        numbers[tensor.name] = seeded_numbers(tensor, tensor.full, 0, torch.float64)
        return numbers[tensor.name]

    actual = evaluate(plan, load, torch.float64)
    x, w = numbers["input"], numbers
    for i in range(2):
        p = f"l{i}."
        h = F.rms_norm(x, (48,), w[p + "attention_norm"], plan.model.norm.eps)
        q, k, v = (torch.einsum("bsh,hnd->bnsd", h, w[p + name]) for name in ("w_q", "w_k", "w_v"))
        heads = [
            F.scaled_dot_product_attention(*parts, is_causal=causal)
            for parts in zip(*(t.chunk(softmax_slices, dim=-1) for t in (q, k, v)), strict=True)
        ]
        x = x + torch.einsum("bnsd,ndh->bsh", torch.cat(heads, dim=-1), w[p + "w_o"])
        h = F.rms_norm(x, (48,), w[p + "feed_forward_norm"], plan.model.norm.eps)
        x = x + getattr(F, activation)(h @ w[p + "w_up"]) @ w[p + "w_down"]
    assert torch.allclose(actual, x, rtol=1e-12, atol=1e-12)
