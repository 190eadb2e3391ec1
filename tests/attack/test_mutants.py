"""Some mutants of every mutation (`make mutants` tries many more), and a test that every proof is needed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import helixctl.verify
from helixctl.documents import load_document
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from tests.attack import bases
from tests.attack.judge import outputs
from tests.attack.mutants import MUTATIONS, attack
from tests.attack.mutation import Mutation
from tests.runtime.test_interpreter import distance, reference

NAMED = {mutation.name: mutation for mutation in MUTATIONS}
# A proof, and a mutation whose mutants it alone refuses with their code, or that crash what comes after it.
NEEDED = {
    "check_embedded_plan": "digest of the plan in a dag",
    "check_ids": "tensor declared twice",
    "check_references": "task dropped, but issued",
    "check_shapes": "region empty or reversed",
    "check_producers": "value on another rank",
    "check_issue": "a task never issued on a rank",
    "check_function": "eps of a norm",
    "check_regions": "partial sums of a collective all taken for wholes",
    "check_collectives": "collectives of two microbatches crossed on one rank",
    "check_tiling": "work done twice on one rank",
    "check_ownership": "weight owned twice",
    "check_state": "a state is read by another task",
    "check_costs": "flops of a task",
    "check_memory": "memory of a device too small, digests made anew",
    "check_layout": "layout of a dag changed, digests made anew",
}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutants_are_refused(mutation: Mutation) -> None:
    row = attack(mutation, 1, seed=1)
    assert row.verdicts.total() == 1
    assert not row.bad, row.bad


def test_names_of_mutations_are_unique() -> None:
    assert len(NAMED) == len(MUTATIONS) >= 40


@pytest.mark.parametrize("name", bases.PLANS)
def test_what_is_broken_is_good(name: str, tmp_path: Path) -> None:
    """The dags are proved, and compute the model in numpy."""
    (tmp_path / "x.json").write_text(bases.text(name, "dag"))
    load_document(str(tmp_path / "x.json"))
    if bases.plan(name).model.dtype == "float64":
        found = outputs(json.loads(bases.text(name, "dag")))
        expected = unpartitioned(name) if name in bases.STEPS else {"": reference(bases.dag(name))}
        for (_, tensor, region), numbers in found.items():
            if not tensor.endswith("_cached"):
                part = expected[tensor if name in bases.STEPS else ""]
                assert distance(numbers, part[tuple(slice(*interval) for interval in json.loads(region))]) < 1e-12


def unpartitioned(name: str) -> dict[str, np.ndarray]:
    """What a step makes on one device, by tensor."""
    plan = bases.plan(name)
    one = Plan.of(plan.model, plan.cluster, plan.workload, Layout(groups=1, slices=1, key_block=2))
    dag = lower(one, step=bases.STEPS[name])
    return {tensor: numbers for (_, tensor, _), numbers in outputs(json.loads(dag.to_json())).items()}


def test_what_is_broken_has_every_op_and_axis() -> None:
    ops = {task.kind for name in bases.PLANS for task in bases.dag(name).tasks}
    assert ops == {
        "broadcast", "embed", "norm", "linear", "bias", "rotate", "attention", "activation", "multiply", "route",
        "experts", "add", "last_token", "all_to_all", "all_gather", "all_reduce", "reduce_scatter", "send_receive",
        "packed", "narrow", "rotate_at", "cache_write", "cached_attention", "partial_attention", "merge", "best",
        "choose", "sample", "head_linear", "join", "token_gate", "square_sums", "norm_by_sums", "scale", "expand",
        "select", "cached_select", "partial_select", "merge_select", "scale_queries", "scale_by",
    }  # fmt: skip
    layouts = [bases.plan(name).layout for name in bases.PLANS]
    for axis, field in type(layouts[0]).model_fields.items():
        assert any(getattr(layout, axis) != (1 if field.is_required() else field.default) for layout in layouts), axis


def test_every_proof_is_named() -> None:
    assert NEEDED.keys() == {check.__name__ for stage in helixctl.verify.CHECKS for check in stage}


@pytest.mark.parametrize("name", NEEDED)
def test_without_one_proof_mutants_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one of the proofs its mutants pass, crash what follows, or get other codes, so they would show a hole."""
    mutation, bare = NAMED[NEEDED[name]], ("paper", "paper, groups first", "interleaved")
    if name == "check_state":
        bare = ("decode, by key", "decode, in stages", "prefill, sharded")
    whole = attack(mutation, 3, 1, bare)
    checks = tuple(tuple(c for c in stage if c.__name__ != name) for stage in helixctl.verify.CHECKS)
    monkeypatch.setattr(helixctl.verify, "CHECKS", checks)
    less = attack(mutation, 3, 1, bare)
    assert not whole.bad
    assert less.bad or less.codes != whole.codes


def test_a_mutation_without_its_reason_is_not_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is accepted must be declared as possibly harmless, and be shown to be so."""
    from dataclasses import replace

    mutation = NAMED["tables in another order"]
    assert not attack(mutation, 5, 1).bad
    assert attack(replace(mutation, harmless=""), 5, 1).bad


def test_a_wrong_sum_is_not_taken_for_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any proof, mutants that may be harmless are not all judged harmless: their numbers differ."""
    mutation = NAMED["input replaced by a value of the same rank"]
    monkeypatch.setattr(helixctl.verify, "CHECKS", ())
    verdicts = attack(mutation, 12, 1, ("paper", "paper, reduce")).verdicts
    assert verdicts["survived"] + verdicts["crashed"] > verdicts["harmless"]


def test_outputs_are_by_rank() -> None:
    found = outputs(json.loads(bases.text("paper", "dag")))
    assert {rank for rank, _, _ in found} == {0, 1, 2, 3}
    assert all(isinstance(numbers, np.ndarray) for numbers in found.values())
