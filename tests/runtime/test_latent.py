"""Multi-head latent attention: the runtime against tests/interpreter.py, and against an attention of plain products."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from helixctl.dag import Dag
from helixctl.dag.retype import retyped
from helixctl.lower import lower
from helixctl.plan import Plan
from helixctl.spec import WorkloadSpec
from helixctl.verify import verify
from tests.interpreter import execute
from tests.runtime.models import LATENT, merged, plan_for
from tests.runtime.test_interpreted_steps import BATCH, CHUNK, COUNTS, LONGEST, NEW, ran, says_what_runs
from tests.runtime.test_interpreter import distance, reference
from tests.runtime.together import run_together

PASSES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "one device": (1, 1, {}),
    "groups": (4, 1, {"combine": "reduce"}),
    "batch": (2, 3, {"slicing": "batch"}),
    "batch, reduce, sharded": (2, 2, {"slicing": "batch", "combine": "reduce", "residual": "sharded"}),
    "query": (2, 2, {"slicing": "query"}),
    "query, reduce": (1, 3, {"slicing": "query", "combine": "reduce", "microbatches": 2}),
}
STEPS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "one device": (1, 1, {}),
    "groups": (4, 1, {"combine": "reduce"}),
    "batch": (2, 2, {"slicing": "batch", "combine": "reduce"}),
    "batch, concat": (1, 3, {"slicing": "batch"}),
    "key": (2, 2, {"slicing": "key"}),
    "key of three": (1, 3, {"slicing": "key", "combine": "reduce", "key_block": 4}),
    "key, empty lanes": (1, 4, {"slicing": "key", "key_block": 16}),
    "expanded, one device": (1, 1, {"latent_prefill": "expanded"}),
    "expanded, groups": (4, 1, {"combine": "reduce", "latent_prefill": "expanded"}),
    "expanded, batch": (2, 2, {"slicing": "batch", "latent_prefill": "expanded"}),
    "expanded, key": (2, 2, {"slicing": "key", "latent_prefill": "expanded"}),
    "expanded, key, empty lanes": (
        1,
        4,
        {"slicing": "key", "key_block": 16, "combine": "reduce", "latent_prefill": "expanded"},
    ),
    "rows": (2, 2, {"slicing": "key", "key_prefill": "query"}),
    "rows, expanded": (
        1,
        3,
        {"slicing": "key", "combine": "reduce", "key_prefill": "query", "latent_prefill": "expanded"},
    ),
    "key, stages": (1, 2, {"slicing": "key", "pipeline": 2, "microbatches": 2, "residual": "sharded"}),
}
SCALED = {"position_scaling": {"factor": 0.6, "tokens": 4}}
SWEPT = ("expanded, groups", "expanded, batch", "expanded, key, empty lanes")
OF_HIDDEN = {"attention": {"latent": {"q_rank": None}, **SCALED}}


def one_pass(name: str, changes: dict[str, Any] | None = None) -> Dag:
    groups, slices, axes = PASSES[name]
    return lower(plan_for(merged(LATENT, changes or {}), (7, 8), groups, slices, **axes))


def generation(name: str, changes: dict[str, Any] | None = None) -> Plan:
    groups, slices, axes = STEPS[name]
    one = plan_for(merged(LATENT, changes or {}), (BATCH, LONGEST), groups, slices, **{"key_block": 2} | axes)
    work = WorkloadSpec(batch=BATCH, seq_len=LONGEST, output_len=NEW, prefill_tokens=CHUNK * BATCH)
    return Plan.of(one.model, one.cluster, work, one.layout)


@pytest.mark.parametrize("changes", [{}, OF_HIDDEN], ids=["q of a rank", "q of hidden"])
@pytest.mark.parametrize("name", PASSES)
def test_one_pass(name: str, changes: dict[str, Any]) -> None:
    """Expanded."""
    proved_and_computed(one_pass(name, merged(changes, {"dtype": "float64"})))


def proved_and_computed(dag: Dag) -> None:
    """Of one pass: what the page says is what runs and what the reference has."""
    assert verify(dag) == []
    numbers, exact = execute(json.loads(dag.to_json())), reference(dag)
    for value in dag.values:
        if value.tensor == "logits" and value.id in dag.producer:
            part = exact[tuple(slice(*interval) for interval in value.region)]
            assert distance(numbers[value.id], part) < 1e-12
    assert run_together(dag, steps=1).overall < 1e-12


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_pass_in_other_dtypes(dtype: str) -> None:
    for name in ("groups", "batch", "query, reduce"):
        ran_together = run_together(retyped(one_pass(name), dtype), steps=1)
        assert ran_together.overall <= 2 * ran_together.unpartitioned


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.sweep) if name in SWEPT else name for name in STEPS]
)
def test_tokens_and_logits(name: str) -> None:
    """Absorbed: every step, of every rank; all layouts continue alike."""
    assert np.array_equal(says_what_runs(generation(name, {"dtype": "float64"})), of_one_device())


@cache
def of_one_device() -> np.ndarray:
    return ran(generation("one device", {"dtype": "float64"}))[0]


def test_absorbed_is_expanded() -> None:
    """The logits behind a prompt of steps over a cache are those of one pass without one."""
    plan = generation("key", {"dtype": "float64"} | OF_HIDDEN)
    assert plan.model.vocabulary
    torch.manual_seed(0)
    _, logits = ran(plan, new=1)
    ids = np.random.default_rng(7).integers(0, plan.model.vocabulary.size, (BATCH, LONGEST))
    one = plan_for(merged(LATENT, {"dtype": "float64"} | OF_HIDDEN), (BATCH, LONGEST), 1, 1)
    whole = execute(json.loads(lower(one).to_json()), given={"input_ids": ids})["logits@0"]
    ends = [0, *np.cumsum([CHUNK] * (len(COUNTS) - 1))]
    for a, count, first in zip(logits, COUNTS, ends, strict=True):
        for b in np.flatnonzero(count):
            assert distance(a[b], whole[b, first + count[b] - 1]) < 1e-12
