"""Pairs of dags: the decode step of one layout behind the prefill of another is refused, by what both dags say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import helixctl.verify
from helixctl.dag import Dag, Value
from helixctl.errors import HelixError
from helixctl.lower import lower
from helixctl.plan import Plan, illegalities
from helixctl.verify import check_steps, verify, verify_steps
from tests.documents import ROOT
from tests.runtime.models import REAL, merged, plan_for

MODEL = merged(
    REAL,
    {
        "layers": 2,
        "attention": {"heads": 4, "kv_heads": 4, "head_dim": 8, "softmax_slices": 2, "rotary": None, "qk_norm": False},
    },
)
AXES: tuple[dict[str, Any], ...] = (
    {"groups": 4, "slices": 1},
    {"groups": 4, "slices": 1, "combine": "reduce"},
    {"groups": 2, "slices": 2},
    {"groups": 2, "slices": 2, "slicing": "batch"},
    {"groups": 2, "slices": 2, "slicing": "batch", "microbatches": 2},
    {"groups": 2, "slices": 2, "slicing": "key", "key_block": 2},
    {"groups": 2, "slices": 2, "slicing": "key", "key_block": 3},
    {"groups": 2, "slices": 2, "slicing": "key", "key_block": 2, "gather_order": "groups_first"},
    {"groups": 1, "slices": 4, "slicing": "key", "key_block": 2},
    {"groups": 1, "slices": 2, "slicing": "key", "key_block": 2, "data": 2},
    {"groups": 1, "slices": 2, "slicing": "key", "key_block": 2, "pipeline": 2},
    {"groups": 2, "slices": 1, "data": 2},
)


def plan_with(axes: dict[str, Any]) -> Plan:
    """Prompts of 4 sequences of 5 tokens, and 6 after each, on 4 devices."""
    one = plan_for(MODEL, (4, 5), **axes)
    made = Plan.of(one.model, one.cluster, one.workload.model_copy(update={"output_len": 6}), one.layout)
    assert not illegalities(made.layout, made.model, made.workload, 4)
    return made


@pytest.fixture(scope="module")
def steps() -> list[tuple[Dag, Dag]]:
    plans = [plan_with(axes) for axes in AXES]
    return [(lower(plan, step="prefill"), lower(plan, step="decode")) for plan in plans]


def held(dag: Dag) -> dict[tuple[str, int], tuple[str, bytes]]:
    """Which elements of every weight and cache a rank has, and in which parts, painted one by one."""
    kept = {t.name: t for t in dag.tensors if t.role in {"weight", "state"}}
    parts: dict[tuple[str, int], list[Value]] = defaultdict(list)
    for value in dag.values:
        if value.tensor in kept and value.id not in dag.producer:
            parts[value.tensor, value.rank].append(value)
    found: dict[tuple[str, int], tuple[str, bytes]] = {}
    for (name, rank), values in parts.items():
        painted = np.zeros(kept[name].shape, dtype=np.int8)
        for number, value in enumerate(sorted(values, key=lambda v: v.region), 1):
            painted[tuple(slice(*interval) for interval in value.region)] = number
        found[name, rank] = (str(painted.shape), painted.tobytes())
    return found


def test_the_two_steps_of_a_plan_hold_the_same(steps: list[tuple[Dag, Dag]]) -> None:
    for prefill, decode in steps:
        assert verify_steps([prefill, decode]) == []
        assert held(prefill) == held(decode)


def test_a_step_of_another_layout_is_refused(steps: list[tuple[Dag, Dag]]) -> None:
    """Where a rank has other elements of any cache or weight, and nowhere else."""
    refused = 0
    assert all(verify(dag) == [] for pair in steps for dag in pair)
    kept = [(held(prefill), held(decode)) for prefill, decode in steps]
    for one, other in permutations(range(len(steps)), 2):
        prefill, decode = steps[one][0], steps[other][1]
        found = list(check_steps([prefill, decode]))
        assert {d.code for d in found} <= {"HX415"}
        assert bool(found) == (kept[one][0] != kept[other][1]), (prefill.plan.layout, decode.plan.layout)
        refused += bool(found)
    assert 100 < refused < len(AXES) * (len(AXES) - 1)


def test_also_where_the_table_of_shardings_does_not_see_it(
    steps: list[tuple[Dag, Dag]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof of a plan whose decode step is lowered to another layout than its prefill, without check_layout."""
    plan, other = (plan_with(AXES[at]) for at in (0, 3))

    def lowered(its: Plan, ranks: Any = None, *, step: Any = None) -> Dag:
        del ranks
        dag = lower(other if step == "decode" else its, step=step)
        return replace(dag, plan=its, plan_digest=its.digest)

    proving = import_module("helixctl.solve.proof")
    monkeypatch.setattr(proving, "lower", lowered)
    assert {d.code for d in proving.proof(plan, whole=True).findings} == {"HX414"}
    checks = tuple(tuple(c for c in stage if c.__name__ != "check_layout") for stage in helixctl.verify.CHECKS)
    monkeypatch.setattr(helixctl.verify, "CHECKS", checks)
    found = proving.proof(plan, whole=True).findings
    assert {d.code for d in found} == {"HX415"}
    assert {"state", "weight"} == {d.message.split()[0] for d in found}


def test_what_the_other_step_does_not_have(steps: list[tuple[Dag, Dag]]) -> None:
    """A cache that a step lacks, of another name after it, of half the capacity, or of another dtype."""
    prefill, decode = steps[5]
    cache = decode.tensor["l0.k_cache"]

    def tensor(**fields: Any) -> Dag:
        return replace(decode, tensors=tuple(replace(t, **fields) if t == cache else t for t in decode.tensors))

    def values(change: Callable[[Value], Value | None]) -> Dag:
        made = (change(value) if value.tensor == cache.name else value for value in decode.values)
        return replace(decode, values=tuple(value for value in made if value))

    cases = (
        (tensor(role="input"), "l0.k_cache is kept between steps in the prefill step, and not in the decode step"),
        (tensor(next="l1.k_cached"), "state l0.k_cache is ["),
        (tensor(shape=(cache.shape[0], 1, *cache.shape[2:])), "key_cycle 1, "),
        (values(lambda v: replace(v, dtype="float16")), "state l0.k_cache: rank 0 has float16 ["),
        (values(lambda v: v if v.rank < 3 else None), "state l0.k_cache: rank 3 has none in the decode step, "),
    )
    for broken, text in cases:
        (found,) = check_steps([prefill, broken])
        assert text in found.message
        (found,) = check_steps([broken, prefill])
        assert "l0.k_cache" in found.message


def test_bad_pair(steps: list[tuple[Dag, Dag]], golden: Callable[[Path, str], None]) -> None:
    """What is said of the prefill of 4 x 1 and the decode step of 2 x 2 by batch."""
    found = [d for d in check_steps([steps[0][0], steps[3][1]]) if "l0.k_cache" in d.message]
    golden(ROOT / "tests/invalid/HX415-cut-otherwise.txt", f"{HelixError(found)}\n")
