"""A sparse choice of keys: the runtime against tests/interpreter.py, and against attention to all keys."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from helixctl.dag import Dag, PartialSelect, Select
from helixctl.dag.function import function_of
from helixctl.dag.retype import retyped
from helixctl.errors import HelixError
from helixctl.lower import lower
from helixctl.plan import Plan
from helixctl.plan.steps import steps_of
from helixctl.spec import ModelSpec, WorkloadSpec
from helixctl.verify import verify
from helixctl_runtime import kernels
from tests.interpreter import execute
from tests.runtime.models import LATENT, SPARSE, merged, plan_for
from tests.runtime.test_interpreted_steps import BATCH, CHUNK, COUNTS, LONGEST, NEW, ran, says_what_runs
from tests.runtime.test_interpreter import distance
from tests.runtime.test_latent import PASSES, STEPS, proved_and_computed
from tests.runtime.together import run_together

EXACT = {"dtype": "float64"}
SHARED = {**SPARSE["attention"], "sparse": {**SPARSE["attention"]["sparse"], "shared": True}}
# Two layers choose, and each is followed by one that shares its choice, or by two.
SHARING: dict[str, Any] = {
    **EXACT, "layers": 5, "blocks": [{"name": "shared", "attention": SHARED}],
    "pattern": ["main", "shared", "main", "shared", "shared"],
}  # fmt: skip

ALWAYS = ("key", "batch", "expanded, key")  # those of several slices: the other steps differ from them in less


def one_pass(name: str, changes: dict[str, Any] | None = None) -> Dag:
    groups, slices, axes = PASSES[name]
    return lower(plan_for(merged(SPARSE, changes or {}), (7, 8), groups, slices, **axes))


def generation(name: str, changes: dict[str, Any]) -> Plan:
    groups, slices, axes = STEPS[name]
    one = plan_for(merged(SPARSE, changes), (BATCH, LONGEST), groups, slices, **{"key_block": 2} | axes)
    work = WorkloadSpec(batch=BATCH, seq_len=LONGEST, output_len=NEW, prefill_tokens=CHUNK * BATCH)
    return Plan.of(one.model, one.cluster, work, one.layout)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *[pytest.param(name, EXACT, id=name) for name in PASSES],
        pytest.param("query, reduce", SHARING, id="query, reduce, shared"),
    ],
)
def test_one_pass(name: str, changes: dict[str, Any]) -> None:
    proved_and_computed(one_pass(name, changes))


@pytest.mark.parametrize(("dtype", "top_k"), [("float32", 3), ("bfloat16", 8)])
def test_one_pass_in_other_dtypes(dtype: str, top_k: int) -> None:
    """In half precision to all keys: which of two is the better the rounding of what they are made of decides."""
    for name in ("groups", "batch", "query, reduce"):
        dag = one_pass(name, {"attention": {"sparse": {"top_k": top_k}}})
        ran_together = run_together(retyped(dag, dtype), steps=1)
        assert ran_together.overall <= 2 * ran_together.unpartitioned


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *[pytest.param(name, EXACT, id=name, marks=[] if name in ALWAYS else pytest.mark.sweep) for name in STEPS],
        pytest.param("key, stages", SHARING, id="key, stages, shared"),
        pytest.param("expanded, batch", SHARING, id="expanded, batch, shared", marks=pytest.mark.sweep),
    ],
)
def test_tokens_and_logits(name: str, changes: dict[str, Any]) -> None:
    """Every step, of every rank."""
    says_what_runs(generation(name, changes))


@pytest.mark.sweep
def test_all_layouts_continue_alike() -> None:
    first = ran(generation("one device", EXACT), new=8)[0]
    for name in ("groups", "rows", *ALWAYS):
        assert np.array_equal(ran(generation(name, EXACT), new=8)[0], first), name


def test_steps_are_the_pass() -> None:
    """The logits behind a prompt of steps over a cache are those of one pass without one."""
    plan = generation("key", EXACT)
    _, logits = ran(plan, new=1)
    ids = np.random.default_rng(7).integers(0, 53, (BATCH, LONGEST))
    one = plan_for(merged(SPARSE, EXACT), (BATCH, LONGEST), 1, 1)
    whole = execute(json.loads(lower(one).to_json()), given={"input_ids": ids})["logits@0"]
    ends = [0, *np.cumsum([CHUNK] * (len(COUNTS) - 1))]
    for a, count, first in zip(logits, COUNTS, ends, strict=True):
        for b in np.flatnonzero(count):
            assert distance(a[b], whole[b, first + count[b] - 1]) < 1e-12


def test_up_to_top_k_tokens_it_is_attention_to_all() -> None:
    """Position by position: the same up to as many tokens as are chosen, and another function from there on."""
    ids = np.random.default_rng(7).integers(0, 53, (2, 8))

    def logits(model: dict[str, Any]) -> np.ndarray:
        dag = lower(plan_for(merged(model, {**EXACT, "layers": 1}), (2, 8), 1, 1))
        return np.asarray(execute(json.loads(dag.to_json()), given={"input_ids": ids})["logits@0"])

    all_keys, some = logits(LATENT), logits(SPARSE)
    assert distance(some[:, :3], all_keys[:, :3]) < 1e-12
    assert all(distance(some[:, t], all_keys[:, t]) > 1e-6 for t in range(5, 8))


def test_of_equal_scores_the_lower_position_is_chosen() -> None:
    """In one lane, and in several, whose lists are put together; negative zero is zero."""
    q, k = torch.ones(1, 4, 1, 2), torch.zeros(1, 4, 1, 2)
    k[0, 2] = 1.0
    factor = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 4, 1)
    out = torch.empty(1, 4, 3, dtype=torch.int64)
    kernels.select(Select(3, causal=True, scale=0.5), (q, k, factor), 0, out)()
    assert out[0].tolist() == [[0, -1, -1], [0, 1, -1], [2, 0, 1], [0, 1, 3]]
    for dtype in (torch.float32, torch.float64):
        score = torch.tensor([[0.0, 0.0, -1.0], [-0.0, -0.0, -1.0]], dtype=dtype).view(1, 2, 1, 3)
        key = torch.tensor([[1, 4, 0], [2, 3, 5]]).view(1, 2, 1, 3)
        merged_keys = torch.empty(1, 1, 3, dtype=torch.int64)
        kernels.merge_select(score, key, merged_keys)()
        assert merged_keys.flatten().tolist() == [1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lanes_choose_what_one_lane_does(dtype: torch.dtype) -> None:
    """The best of the best of every lane, against a sort of all; some lanes have fewer keys than are chosen."""
    random = torch.Generator().manual_seed(0)
    batch, rows, heads, width, keys, top_k, block = 3, 2, 3, 4, 24, 7, 2
    q, k = (torch.randn(batch, n, h, width, generator=random, dtype=dtype) for n, h in ((rows, heads), (keys, 1)))
    factor = torch.randn(batch, rows, heads, generator=random, dtype=dtype)
    length, count = torch.tensor([0, 9, 20]), torch.tensor([1, 2, 2])
    op = PartialSelect(top_k, causal=True, scale=0.3)
    for lanes in (1, 2, 3, 6):
        found = []
        for lane in range(lanes):
            at = torch.arange(keys)[(torch.arange(keys) // block) % lanes == lane]
            out, best = (torch.empty(batch, rows, top_k, dtype=d) for d in (torch.int64, dtype))
            mine = kernels.Lane(at, lanes, lane, block)
            kernels.cached_select(op, (q, k[:, at], factor), (length, count), mine, 0, out, best)()
            found.append((best, out))
        score, key = (torch.stack(each, dim=1) for each in zip(*found, strict=True))
        chosen = torch.empty(batch, rows, top_k, dtype=torch.int64)
        kernels.merge_select(score, key, chosen)()
        scores = torch.einsum("bth,bthk->btk", factor, torch.relu(0.3 * torch.einsum("bthd,bkd->bthk", q, k[:, :, 0])))
        for b in range(batch):
            for t in range(int(count[b])):
                seen = int(length[b]) + t + 1
                order = torch.argsort(scores[b, t, :seen], descending=True, stable=True)[:top_k].tolist()
                assert chosen[b, t].tolist() == order + [-1] * (top_k - len(order))


@pytest.mark.parametrize("stages", ["3-2", pytest.param("1-3-1", marks=pytest.mark.sweep)])
def test_a_choice_is_sent_to_the_stages_that_share_it(stages: str) -> None:
    """From stage to stage, as far as the layers that share it go; by every rank to its counterpart."""
    layout = {"slicing": "key", "pipeline": stages.count("-") + 1, "stages": stages, "key_block": 2, "microbatches": 2}
    one = plan_for(merged(SPARSE, SHARING), (BATCH, LONGEST), 1, 2, **layout)
    work = WorkloadSpec(batch=BATCH, seq_len=LONGEST, output_len=NEW, prefill_tokens=CHUNK * BATCH)
    plan = Plan.of(one.model, one.cluster, work, one.layout)
    dags = [lower(plan, step=step) for step in steps_of(work)]
    assert [verify(dag) for dag in dags] == [[], []]
    begins = [one.layout.layers(stage, one.model).start for stage in range(1, one.layout.pipeline)]
    sends = [task for task in dags[0].tasks if task.level == "transfer" and "selected" in task.id]
    assert len(sends) == 4 * sum(one.model.kind(layer) == "shared" for layer in begins)
    tokens, _ = ran(plan)
    assert np.array_equal(tokens, ran(generation("one device", SHARING))[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"pattern": ["shared", "main"]},
        {"blocks": [{"name": "shared", "attention": {**SHARED, "sparse": {**SHARED["sparse"], "top_k": 4}}}]},
        {"attention": {"sparse": {"shared": True}}, "blocks": None, "pattern": None},
        {"attention": {"sparse": {"head_dim": 5}}},
        {"attention": {"latent": {"q_rank": None}}},
    ],
)
def test_what_is_no_model(changes: dict[str, Any]) -> None:
    with pytest.raises((ValueError, HelixError), match=r"shares a choice|sparse"):
        ModelSpec.model_validate(merged(merged(SPARSE, SHARING), changes))


def test_the_choice_has_no_more_places_than_there_are_positions() -> None:
    changes = {"attention": {"sparse": {"top_k": 1000}}}
    plan = generation("key", changes)
    for step in plan.steps:
        function = function_of(plan.model, plan.step(step))
        assert function.tensors["l0.selected"].shape[-1] == LONGEST + NEW
    assert verify(lower(plan)) == []
