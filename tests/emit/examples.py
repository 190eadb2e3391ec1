"""Dags that the tests of the pictures draw."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import yaml

from helixctl.dag import Dag
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.spec import ClusterSpec, ModelDocument

PLANS = Path(__file__).parents[2] / "plans"
HOSTILE = "</script><script>document.title='owned';fetch('http://example.invalid')</script>\"'&<b>\\N\x00\ud800"


@cache
def paper_plan(groups: int, slices: int, layers: int = 2) -> Plan:
    model = yaml.safe_load((PLANS / "paper/dense.model.yaml").read_text()) | {"layers": layers}
    document = ModelDocument.model_validate(model)
    cluster = ClusterSpec.model_validate(yaml.safe_load((PLANS / "paper/h100x16.cluster.yaml").read_text()))
    return Plan.of(document.model, cluster, document.workload, Layout(groups=groups, slices=slices))


@cache
def paper_dag(groups: int, slices: int, layers: int = 2) -> Dag:
    return lower(paper_plan(groups, slices, layers))


def hostile_dag() -> Dag:
    """A dag whose every free text tries to get out of where it stands; no spec allows all of it, a caller may."""
    plan = paper_plan(1, 4, 1)
    model = plan.model.model_copy(update={"name": HOSTILE})
    device = plan.cluster.device.model_copy(update={"name": HOSTILE})
    cluster = plan.cluster.model_copy(update={"name": HOSTILE, "device": device})
    dag = lower(plan)
    tasks = tuple(dataclasses.replace(task, id=f"{task.id}{HOSTILE}") for task in dag.tasks)
    return dataclasses.replace(dag, plan=plan.model_copy(update={"model": model, "cluster": cluster}), tasks=tasks)
