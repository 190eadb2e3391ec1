"""Prefill and decode of the runtime against tests/interpreter.py, which was written from docs/formats.md alone."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from helixctl.dag import Dag, Value
from helixctl.lower import lower
from helixctl.plan import Plan
from helixctl.plan.steps import steps_of
from helixctl.spec import SamplingSpec, WorkloadSpec
from helixctl.verify import verify
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.generate import Prompts, generate
from helixctl_runtime.generate.loop import Stage
from helixctl_runtime.tensors.tensor_source import TensorSource
from tests.interpreted_steps import generate as interpreted
from tests.interpreter import rounded, seeded
from tests.runtime.generation import Session, session_of
from tests.runtime.models import EXPERTS, GROUPED, REAL, merged, plan_for
from tests.runtime.step_plans import step_plans
from tests.runtime.test_interpreter import distance

# Five prompts, ragged, in chunks of four tokens and less: some end in the middle of a chunk, some begin none.
BATCH, LONGEST, NEW = 5, 11, 21
LENGTHS = np.array([11, 1, 4, 7, 8])
CHUNK = 4
COUNTS = [np.clip(LENGTHS - first, 0, CHUNK) for first in range(0, LONGEST, CHUNK)]  # of the steps of the prefill
# The dims of a head are cut, so that it is neither rotated nor normalised.
CAPPED: dict[str, Any] = {"attention": {"scale": 0.61, "soft_cap": 0.9}}
SINKS: dict[str, Any] = {"attention": {"sinks": True, "sliding_window": 4}}
NARROW: dict[str, Any] = {"attention": {"v_head_dim": 7}}
SCALED: dict[str, Any] = {"attention": {"position_scaling": {"factor": 0.6, "tokens": 5, "first": 1}}}
NARROWEST: dict[str, Any] = {"attention": {"head_dim": 4, "rotary": None, "qk_norm": False}}
GATED: dict[str, Any] = {"attention": {"output_gate": True}}
CUT: dict[str, Any] = {"attention": {"softmax_slices": 2, "rotary": None, "qk_norm": False}}


def steps_for(groups: int, slices: int, changes: dict[str, Any] | None = None, **axes: Any) -> Plan:
    model = merged(REAL, {"dtype": "float64"})
    if (changes or {}).get("attention", {}).get("rotary", 0) is None:
        model["attention"] = {**model["attention"], "rotary": None}
    plan = plan_for(merged(model, changes or {}), (BATCH, LONGEST), groups, slices, **{"key_block": 2} | axes)
    workload = WorkloadSpec(
        batch=BATCH, seq_len=LONGEST, output_len=NEW, prefill_tokens=CHUNK * -(-BATCH // plan.layout.data)
    )
    return Plan.of(plan.model, plan.cluster, workload, plan.layout)


def drawn(plan: Plan, **how: Any) -> Plan:
    """The same plan with tokens that are drawn."""
    workload = plan.workload.model_copy(update={"sampling": SamplingSpec(**how)})
    return Plan.of(plan.model, plan.cluster, workload, plan.layout)


def prompts_of(plan: Plan) -> np.ndarray:
    assert plan.model.vocabulary
    return np.random.default_rng(7).integers(0, plan.model.vocabulary.size, (BATCH, LONGEST))


def lowered(plan: Plan) -> dict[str, Dag]:
    return {step: lower(plan, step=step) for step in steps_of(plan.workload)}


def session(plan: Plan, dags: dict[str, Dag] | None = None) -> Session:
    numbers = TensorSource(0, None, None)

    def weights(dag: Dag, value: Value) -> torch.Tensor:
        return numbers.region(dag.tensor[value.tensor], value.region, TORCH[value.dtype], torch.device("cpu"))

    made = session_of(plan, weights, dags=dags)
    for program in made.programs["prefill"]:
        for state in program.states.values():
            state.fill_(torch.nan)  # what the cache holds beforehand has no effect
    return made


def ran(
    plan: Plan, ends: tuple[int, ...] = (), new: int = NEW, dags: dict[str, Dag] | None = None
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Tokens, and the logits of every step, of all ranks of the runtime; of ``dags`` if it has been lowered."""
    whole, logits = session(plan, dags), list[np.ndarray]()

    def stage(name: str) -> Stage:
        inner = whole.steps[name]

        def walk() -> None:
            inner.walk()
            dag = whole.dags[name]
            found = torch.full(dag.tensor["logits"].shape, torch.nan, dtype=torch.float64)
            for feed in inner.feeds:
                feed.take("logits", found)
            logits.append(found.numpy())

        return Stage(inner.feeds, walk)

    prompts = Prompts(torch.from_numpy(prompts_of(plan)), torch.from_numpy(LENGTHS))
    assert whole.dags["prefill"].work.seq_len == CHUNK
    found = generate(stage("prefill"), stage("decode"), prompts, chunk=CHUNK, new=new, ends=ends, seed=SEED)
    return found.tokens.numpy(), logits


def by_the_page(
    plan: Plan,
    ends: tuple[int, ...] = (),
    given: dict[str, np.ndarray] | None = None,
    new: int = NEW,
    dags: dict[str, Dag] | None = None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    read = {name: json.loads(dag.to_json()) for name, dag in (dags or lowered(plan)).items()}
    return interpreted(read, prompts_of(plan), LENGTHS, new, given=given, ends=ends, draws=SEED)


def says_what_runs(plan: Plan, new: int = NEW) -> np.ndarray:
    """Every step, of every rank, of so many tokens: proved, and what the page says is what runs; the tokens."""
    dags = lowered(plan)
    assert [verify(dag) for dag in dags.values()] == [[], []]
    tokens, logits = ran(plan, new=new, dags=dags)
    mine, own = by_the_page(plan, new=new, dags=dags)
    assert tokens.shape == (BATCH, new)
    assert np.array_equal(tokens, mine)
    for a, b, count in zip(logits, own, [*COUNTS, *[np.ones(BATCH)] * (new - 1)], strict=True):
        assert distance(a[count > 0], b[count > 0]) < 1e-12
    return tokens


LAYOUTS: dict[str, Plan] = {
    "one device": steps_for(1, 1),
    "key": steps_for(3, 2, slicing="key"),
    "key of three": steps_for(1, 3, slicing="key", combine="reduce", key_block=4),
    "key, groups first, keys held twice": steps_for(
        6, 2, slicing="key", gather_order="groups_first", placement="groups-slices-data-pipeline"
    ),
    "key, softmax slices cut by the merge": steps_for(1, 3, CUT, slicing="key"),
    "key, not causal": steps_for(2, 2, {"attention": {"causal": False}}, slicing="key", key_block=1),
    "key, empty lanes": steps_for(1, 4, slicing="key", key_block=16),
    "batch": steps_for(2, 2, slicing="batch", combine="reduce"),
    "batch, slices of one dim": steps_for(1, 4, NARROWEST, slicing="batch"),
    "key, slices of one dim": steps_for(3, 4, NARROWEST, slicing="key", combine="reduce"),
    "rows, slices of one dim": steps_for(1, 4, NARROWEST, slicing="key", key_prefill="query"),
    "keys held twice": steps_for(6, 1),
    "head_dim": steps_for(2, 2, CUT, combine="reduce"),
    "head_dim, concat": steps_for(1, 2, CUT),
    "stages": steps_for(2, 1, pipeline=2, microbatches=2),
    "stages, key, turns": steps_for(1, 2, slicing="key", pipeline=2, microbatches=4, interleave=2),
    "replicas": steps_for(1, 2, slicing="key", data=2, placement="data-pipeline-slices-groups"),
    "sharded": steps_for(3, 1, residual="sharded", combine="reduce"),
    "sharded, key, tied": steps_for(2, 2, {"vocabulary": {"tied": True}}, slicing="key", residual="sharded"),
    "experts": steps_for(2, 1, {"feed_forward": EXPERTS}, experts=2),
    "experts of replicas": steps_for(1, 1, {"feed_forward": EXPERTS}, data=2, expert_data=2, experts=2),
    "experts of teams, sharded": steps_for(
        2, 1, {"feed_forward": GROUPED}, data=2, expert_data=2, experts=4, residual="sharded", combine="reduce"
    ),
    "window, key": steps_for(3, 2, {"attention": {"sliding_window": 5}}, slicing="key"),
    "window, lanes out of reach": steps_for(1, 4, {"attention": {"sliding_window": 3}}, slicing="key", key_block=4),
    "window of one, batch": steps_for(1, 2, {"attention": {"sliding_window": 1}}, slicing="batch"),
    "window": steps_for(6, 1, {"attention": {"sliding_window": 6}}, combine="reduce"),
    "chunks, key": steps_for(1, 3, {"attention": {"chunk": 6}}, slicing="key"),
    "chunks": steps_for(2, 1, {"attention": {"chunk": 5}}, pipeline=2),
    "scale and cap, key": steps_for(3, 2, CAPPED, slicing="key"),
    "scale and cap": steps_for(1, 2, {**CUT, "attention": {**CUT["attention"], **CAPPED["attention"]}}),
    "sinks, key": steps_for(2, 3, SINKS, slicing="key", combine="reduce"),
    "sinks of keys held twice": steps_for(6, 1, SINKS),
    "sinks, batch": steps_for(2, 2, SINKS, slicing="batch"),
    "gate, key": steps_for(3, 2, GATED, slicing="key"),
    "gate, batch, groups first": steps_for(2, 2, GATED, slicing="batch", gather_order="groups_first"),
    "gate of narrow values, rows": steps_for(2, 3, merged(GATED, NARROW), slicing="key", key_prefill="query"),
    "gate": steps_for(1, 2, merged(GATED, CUT), combine="reduce", residual="sharded"),
    "narrow values, key": steps_for(3, 2, NARROW, slicing="key"),
    "narrow values, key, groups first": steps_for(2, 2, NARROW, slicing="key", gather_order="groups_first"),
    "narrow values, batch": steps_for(1, 2, NARROW, slicing="batch", combine="reduce"),
    "narrow values": steps_for(3, 1, NARROW, combine="reduce"),
    "wide values, key": steps_for(1, 3, {"attention": {"v_head_dim": 13}}, slicing="key", combine="reduce"),
    "queries scaled by position, key": steps_for(3, 2, SCALED, slicing="key"),
    "queries scaled by position, batch": steps_for(2, 2, merged(SCALED, CUT), slicing="batch"),
    "rows": steps_for(3, 2, slicing="key", key_prefill="query"),
    "rows of three": steps_for(1, 3, slicing="key", combine="reduce", key_block=4, key_prefill="query"),
    "rows, groups first, keys held twice": steps_for(
        6, 2, slicing="key", gather_order="groups_first", key_prefill="query"
    ),
    "rows, softmax slices": steps_for(1, 3, CUT, slicing="key", key_prefill="query"),
    "rows, not causal": steps_for(
        2, 2, {"attention": {"causal": False}}, slicing="key", key_block=1, key_prefill="query"
    ),
    "rows, empty lanes": steps_for(1, 4, slicing="key", key_block=16, combine="reduce", key_prefill="query"),
    "rows, stages, turns": steps_for(
        1, 2, slicing="key", pipeline=2, microbatches=4, interleave=2, key_prefill="query"
    ),
    "rows, sharded": steps_for(2, 2, slicing="key", residual="sharded", key_prefill="query"),
    "rows, window and sinks": steps_for(2, 3, SINKS, slicing="key", combine="reduce", key_prefill="query"),
    "rows, narrow values, capped": steps_for(
        1, 2, {"attention": {**NARROW["attention"], **CAPPED["attention"]}}, slicing="key", key_prefill="query"
    ),
    "drawn": drawn(steps_for(1, 1)),
    "drawn, key": drawn(steps_for(1, 3, slicing="key"), top_k=20, top_p=0.8),
    "drawn, batch": drawn(steps_for(2, 2, slicing="batch", combine="reduce"), temperature=0.5, top_p=0.9),
    "drawn, stages": drawn(steps_for(2, 1, pipeline=2, microbatches=2), top_k=7),
    "drawn, replicas": drawn(steps_for(1, 2, slicing="key", data=2), temperature=1.7),
    "drawn, sharded": drawn(steps_for(3, 1, residual="sharded", combine="reduce"), top_p=0.6),
}
SEED = -3  # of what is drawn: as a word it begins with ones


# In each run every line and branch that any of the layouts reaches is reached by one of these (measured with
# coverage.py, by case), and every way of cutting a cache and every kind of scores meet another feature.
OFTEN = ("one device", "key of three", "key, groups first, keys held twice", "key, not causal", "key, empty lanes",
         "head_dim", "stages", "sharded, key, tied", "experts", "experts of replicas", "experts of teams, sharded",
         "window, lanes out of reach", "window of one, batch", "chunks, key", "scale and cap", "sinks, batch",
         "gate, batch, groups first", "gate of narrow values, rows", "narrow values",
         "queries scaled by position, key", "rows, groups first, keys held twice", "rows, slices of one dim",
         "rows, window and sinks", "drawn", "drawn, batch", "drawn, stages")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "new"),
    [
        *(pytest.param(name, 10, id=name) for name in OFTEN),  # past the first turn of all slices and the first chunks
        *(pytest.param(name, NEW, id=f"{name}, to the end", marks=pytest.mark.sweep) for name in LAYOUTS),
    ],
)
def test_tokens_and_logits(name: str, new: int) -> None:
    """What the page says is what runs; and of one model no layout changes the function: all continue alike."""
    tokens = says_what_runs(LAYOUTS[name], new)
    if name in ALIKE:
        assert np.array_equal(tokens, of_one_device()[:, :new])


ALIKE = [
    name
    for name, plan in LAYOUTS.items()
    if plan.model == LAYOUTS["one device"].model and plan.workload.sampling is None
]


@cache
def of_one_device() -> np.ndarray:
    return ran(LAYOUTS["one device"])[0]


def test_many_layouts_continue_alike() -> None:
    assert set(OFTEN) <= LAYOUTS.keys()
    assert len(set(ALIKE) & set(OFTEN)) > 5
    assert len(ALIKE) > 12


def test_all_layouts_draw_alike() -> None:
    """The random numbers know of no layout; in float64 no two scores are within rounding."""
    plans = [drawn(plan, top_k=30, top_p=0.95) for name, plan in LAYOUTS.items() if name.startswith("drawn")]
    first = ran(plans[0])[0]
    assert len(plans) > 5
    assert len(np.unique(first)) > 20  # next to no token is drawn twice: all are drawn from
    for plan in plans[1:]:
        assert np.array_equal(ran(plan)[0], first)


@pytest.mark.parametrize(
    ("dtype", "reduction_dtype"),
    [
        *(("float32", "accumulator"), ("bfloat16", "model"), ("float16", "accumulator")),
        *(
            pytest.param(*pair, marks=pytest.mark.sweep)
            for pair in (("float32", "model"), ("bfloat16", "accumulator"), ("float16", "model"))
        ),
    ],
)
def test_prefill_in_other_dtypes(dtype: str, reduction_dtype: str) -> None:
    """The error of the run against float64 is at most twice that of one device, by the page, from the same numbers."""
    exact, one = (steps_for(1, 1, {"dtype": name}) for name in ("float64", dtype))
    plan = steps_for(3, 2, {"dtype": dtype}, slicing="key", reduction_dtype=reduction_dtype, combine="reduce")
    tensors = [t for t in lower(exact).tensors if t.role == "weight"]
    given = {t.name: rounded(seeded(t.name, t.shape, t.init or (), t.full, 0), dtype) for t in tensors}
    runs = [by_the_page(exact, given=given, new=1), by_the_page(one, new=1), by_the_page(plan, new=1), ran(plan, new=1)]
    truth, plain, paged, run = (
        np.concatenate([step[count > 0] for step, count in zip(logits, COUNTS, strict=True)]) for _, logits in runs
    )
    assert distance(run, truth) <= 2 * distance(plain, truth)
    assert distance(paged, truth) <= 2 * distance(plain, truth)


@pytest.mark.parametrize("name", ["key", "stages", "sharded"])
def test_sequences_that_end(name: str) -> None:
    """They write nothing more, and what goes on is not changed by it."""
    plan = LAYOUTS[name]
    all_tokens, _ = ran(plan)
    end = int(all_tokens[0, 5])
    tokens, mine = ran(plan, (end,))[0], by_the_page(plan, (end,))[0]
    assert np.array_equal(tokens, mine[:, : tokens.shape[1]])
    assert (tokens[0] == -1).any()
    assert np.array_equal(tokens[tokens >= 0], all_tokens[tokens >= 0])


TRIALS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@settings(TRIALS, max_examples=3)
@given(step_plans(), st.integers(0, 99))
def test_random_plans(plan: Plan, seed: int) -> None:
    generated_as_by_the_page(plan, seed)


@pytest.mark.sweep
@settings(TRIALS, max_examples=20)
@given(step_plans(), st.integers(0, 99))
def test_more_random_plans(plan: Plan, seed: int) -> None:
    generated_as_by_the_page(plan, seed)


def generated_as_by_the_page(plan: Plan, seed: int) -> None:
    """Models, layouts and lengths of which none divides another."""
    assume(plan.model.vocabulary is not None)
    random, work = np.random.default_rng(seed), plan.step("prefill")
    lengths = random.integers(1, plan.workload.seq_len + 1, work.batch)
    ids = random.integers(0, 11, (work.batch, plan.workload.seq_len))
    new = min(4, plan.workload.output_len or 1)
    dags = lowered(plan)
    read = {name: json.loads(dag.to_json()) for name, dag in dags.items()}
    whole, prompts = session(plan, dags), Prompts(torch.from_numpy(ids), torch.from_numpy(lengths))
    ran = generate(whole.steps["prefill"], whole.steps["decode"], prompts, chunk=work.seq_len, new=new, seed=seed)
    assert np.array_equal(ran.tokens.numpy(), interpreted(read, ids, lengths, new, draws=seed)[0])
