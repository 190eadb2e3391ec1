"""Digests are over content: the order of the keys in a file does not count, in new documents and in old ones."""

from __future__ import annotations

import json
import random
from itertools import permutations
from typing import Any

import pytest

from helixctl.plan import Plan, digest
from helixctl.plan.compare import differences
from helixctl.spec import ClusterSpec
from helixctl.spec.load import load_cluster
from helixctl.verify import verify_plan
from tests.documents import PAPER, ROOT, SMALL, as_shipped, plan_of

SHIPPED = sorted((ROOT / "plans").glob("*/*.plan.json"))
CALIBRATED = str(ROOT / "tests/fuzz/calibrated.cluster.yaml")


def shuffled(data: Any, rng: random.Random) -> Any:
    """The same content, the keys of every mapping in another order."""
    if isinstance(data, list):
        return [shuffled(item, rng) for item in data]
    if not isinstance(data, dict):
        return data
    keys = rng.sample(list(data), len(data))
    return {key: shuffled(data[key], rng) for key in keys}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_shipped_plan_keeps_its_digest_in_every_order(path: Any) -> None:
    text = path.read_text()
    rng = random.Random(path.name)
    for data in (json.loads(text), *(shuffled(json.loads(text), rng) for _ in range(20))):
        plan = Plan.model_validate(data)
        assert verify_plan(plan) == []
        assert plan.to_json() == text
    assert Plan.model_validate(json.loads(json.dumps(json.loads(text), sort_keys=True))).to_json() == text


@pytest.mark.parametrize("path", [SMALL[1], PAPER[1], CALIBRATED])
def test_a_cluster_has_one_digest(path: str) -> None:
    cluster = load_cluster(path)
    data = cluster.model_dump(mode="json", exclude_none=True)
    rng = random.Random(path)
    assert {digest(ClusterSpec.model_validate(shuffled(data, rng))) for _ in range(20)} == {digest(cluster)}


def test_the_order_of_peak_is_that_of_the_dtypes() -> None:
    assert list(load_cluster(SMALL[1]).device.peak) == ["float16", "bfloat16", "float32", "float64"]


def test_an_old_calibrated_plan_keeps_its_digest() -> None:
    """Written with the tables in the order of a calibration of several dtypes."""
    plan = plan_of((SMALL[0], CALIBRATED), 2, 2, "hosts=1")
    cluster = plan.cluster
    found = cluster.calibration
    assert found is not None
    table, attention = found.matmul["float32"], found.attention["float32"]
    rng = random.Random(0)
    for dtypes in permutations(("float32", "float64", "float16")):
        calibration = found.model_copy(
            update={
                "matmul": dict.fromkeys(dtypes, table),
                "attention": dict.fromkeys(dtypes, attention),
                "elementwise": dict(reversed(found.elementwise.items())),
            }
        )
        peak = dict.fromkeys(dtypes, 1e9)
        device = cluster.device.model_copy(update={"peak": peak})
        old = Plan.of(
            plan.model,
            cluster.model_copy(update={"device": device, "calibration": calibration}),
            plan.workload,
            plan.layout,
        )
        again = Plan.model_validate(shuffled(json.loads(old.to_json()), rng))
        assert again.to_json() == old.to_json()
        assert verify_plan(again) == []


def test_an_edited_plan_is_still_refused() -> None:
    data = json.loads(plan_of(SMALL, 4, 4).to_json())
    data["cluster"]["device"]["peak"]["float32"] = "33 GFLOP/s"
    assert [d.code for d in verify_plan(Plan.model_validate(data))] == ["HX302"]


def test_an_old_plan_is_the_new_one() -> None:
    new = plan_of(SMALL, 4, 4)
    old = as_shipped(new)
    assert old.digest != new.digest
    assert differences(old, new) == []
    edited = new.model_copy(update={"digests": new.digests.model_copy(update={"cluster": "sha256:0"})})
    assert [d.part for d in differences(edited, new)] == ["digests"]
