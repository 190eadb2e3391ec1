"""The plan document: byte-stable, round-tripping, and its digests."""

from __future__ import annotations

from helixctl.plan import Plan
from tests.documents import PAPER, plan_of


def test_round_trip() -> None:
    plan = plan_of(PAPER, 4, 4)
    again = Plan.model_validate_json(plan.to_json())
    assert again == plan
    assert again.to_json() == plan.to_json()


def test_the_digest_follows_every_spec() -> None:
    plans = [
        plan_of(PAPER, 4, 4, *sets)
        for sets in ((), ("norm.eps=1e-6",), ("workload.batch=8",), ("device.memory=40 GB",))
    ]
    assert len({p.digest for p in plans}) == 4
    base, model, workload, cluster = (p.digests for p in plans)
    assert (model.cluster, model.workload) == (base.cluster, base.workload)
    assert model.model != base.model
    assert workload.workload != base.workload
    assert cluster.cluster != base.cluster


def test_a_unit_written_in_another_way_is_the_same_plan() -> None:
    assert plan_of(PAPER, 4, 4, "between_hosts.bandwidth=50 GB/s").digest == plan_of(PAPER, 4, 4).digest
