"""Fields that came later: at their default they are in no document and no digest, so that old documents stay valid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, create_model

from helixctl.plan import Layout, Plan, digest
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec
from helixctl.spec.base import Spec, added
from tests.documents import ROOT

PLANS = sorted((ROOT / "plans").rglob("*.plan.json"))


def specs(value: Any) -> Iterator[Spec]:
    """A spec and all that it is made of."""
    if isinstance(value, Spec):
        yield value
        for name in type(value).model_fields:
            yield from specs(getattr(value, name))
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from specs(getattr(value, name))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.name)
def test_a_field_that_is_added_to_any_spec_changes_no_document(path: Any) -> None:
    plan = Plan.model_validate_json(path.read_text())
    met = set()
    for found in specs(plan):
        # By itself: in an old plan the dtypes of a cluster may stand in the order of its file (plan/key_order.py).
        spec = type(found).model_validate(found.model_dump(mode="json"))
        later = create_model("Later", __base__=type(spec), dummy=(int, added(7)))
        data = spec.model_dump(mode="json")
        again = later.model_validate(data)
        assert (again.dummy, again.model_dump(mode="json"), digest(again)) == (7, data, digest(spec))
        told = later.model_validate(data | {"dummy": 7})
        assert (told.model_dump(mode="json"), digest(told)) == (data, digest(spec))
        other = later.model_validate(data | {"dummy": 8})
        assert other.model_dump(mode="json") == data | {"dummy": 8}
        assert digest(other) != digest(spec)
        met.add(type(spec))
    assert {ModelSpec, ClusterSpec, WorkloadSpec, Layout} <= met


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.name)
def test_what_came_later_may_be_written_out_in_an_old_plan(path: Any) -> None:
    data = json.loads(path.read_text())
    assert "logits" not in data["workload"]
    data["workload"]["logits"] = "all"
    data["cluster"]["device"]["reserve"] = "10 %"
    data["model"]["max_positions"] = None
    assert Plan.model_validate(data).to_json() == path.read_text()


@pytest.mark.parametrize(("text", "share"), [("10 %", 0.1), ("0%", 0.0), (" 12.5 % ", 0.125), (0.25, 0.25), (0, 0.0)])
def test_a_reserve_is_a_share(text: str | float, share: float) -> None:
    device = Plan.model_validate_json(PLANS[0].read_text()).cluster.device
    again = type(device).model_validate(device.model_dump(mode="json") | {"reserve": text})
    assert again.reserve == share
    assert again.available == device.memory * (1 - share)
    assert type(device).model_validate(again.model_dump(mode="json")) == again
