"""Mixtures of experts against the unpartitioned reference, whatever the routing."""

from __future__ import annotations

import json

import pytest
import torch

from helixctl.dag import Dag
from helixctl_runtime import kernels
from helixctl_runtime.tensors.seeded import seeded_numbers
from tests.documents import SMALL_MOE, dag_of
from tests.interpreter import execute
from tests.runtime.together import run_together

SIZES = ("layers=2", "hidden_size=64", "attention.head_dim=8", "feed_forward.intermediate_size=128")


def skewed(dag: Dag, favourite: int) -> dict[str, torch.Tensor]:
    """Whole tensors; the routers send every token to one expert, because all their inputs are positive."""
    given = {t.name: seeded_numbers(t, t.full, 0, torch.float32).abs() for t in dag.tensors if t.name != "output"}
    for name in [name for name in given if name.endswith("w_router")]:
        given[name][:, favourite] += 8
    return given


def tokens_of(dag: Dag, gates: str, given: dict[str, torch.Tensor] | None = None) -> list[int]:
    """Tokens that each expert computes, by the interpreter."""
    arrays = {name: tensor.numpy() for name, tensor in (given or {}).items()}
    numbers = execute(json.loads(dag.to_json()), given=arrays)[gates]
    return (numbers != 0).reshape(-1, numbers.shape[-1]).sum(axis=0).tolist()


@pytest.mark.parametrize("top_k", [1, 2, 8])
@pytest.mark.parametrize("experts", [1, 2, 4, 8])
def test_every_spread_of_experts_is_the_reference(experts: int, top_k: int) -> None:
    dag = dag_of(SMALL_MOE, 4, 2, *SIZES, f"feed_forward.experts.top_k={top_k}", experts=experts)
    ran = run_together(dag)
    assert ran.error <= 2 * ran.unpartitioned


@pytest.mark.parametrize("favourite", [0, 5])
@pytest.mark.parametrize("experts", [1, 8])
def test_all_tokens_to_one_expert(experts: int, favourite: int) -> None:
    """No token is dropped: one expert computes all tokens, and the others none."""
    dag = dag_of(SMALL_MOE, 4, 2, *SIZES, "feed_forward.experts.top_k=1", experts=experts)
    given = skewed(dag, favourite)
    ran = run_together(dag, given=given)
    assert ran.error <= 2 * ran.unpartitioned
    for layer in range(2):
        counts = tokens_of(dag, f"l{layer}.gates@3", given)
        assert counts == [dag.plan.workload.tokens if expert == favourite else 0 for expert in range(8)]


def test_tokens_are_spread_unevenly_by_the_seed() -> None:
    """The plain case is not an even one: experts compute different numbers of tokens."""
    dag = dag_of(SMALL_MOE, 4, 2, *SIZES)
    counts = tokens_of(dag, "l0.gates@0")
    assert len(set(counts)) > 2
    assert sum(counts) == 2 * dag.plan.workload.tokens


def test_gates_of_equal_logits_go_to_the_first_experts() -> None:
    x, weight, out = torch.ones(3, 4), torch.ones(4, 6), torch.empty(3, 6)
    kernels.route(x, weight, 2, out)()
    assert out.tolist() == [[0.5, 0.5, 0, 0, 0, 0]] * 3
