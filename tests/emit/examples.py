"""Dags that the tests of the pictures draw."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path

import yaml

from helixctl.dag import Dag
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.spec import ClusterSpec, ModelDocument
from tests.documents import PAPER, PAPER_MOE, SMALL, dag_of

PLANS = Path(__file__).parents[2] / "plans"
HOSTILE = "</script><script>document.title='owned';fetch('http://example.invalid')</script>\"'&<b>\\N\x00\ud800"

QWEN = (str(PLANS / "models/Qwen2.5-7B"), PAPER[1])
MIXTRAL = (str(PLANS / "models/Mixtral-8x7B-v0.1"), PAPER[1])
_FEW = ("workload.batch=32", "workload.seq_len=64")
_EXACT = ("attention.softmax_slices=1", "workload.seq_len=16", "layers=1")

# Layouts that differ in what a drawing says of them: every axis of the heading alone and with others, long names, many
# devices, and one.
LAYOUTS: dict[str, Callable[[], Dag]] = {
    "the paper's 4 x 4": lambda: dag_of(PAPER, 4, 4, "layers=1"),
    "Megatron's 8 x 1": lambda: dag_of(PAPER, 8, 1, "layers=2", pipeline=2, microbatches=4, combine="reduce"),
    "16 replicas": lambda: dag_of(PAPER, 1, 1, "layers=1", data=16),
    "2 x 2, data 2, pipeline 2": lambda: dag_of(PAPER, 2, 2, "layers=2", data=2, pipeline=2),
    "16 stages": lambda: dag_of(PAPER, 1, 1, "layers=16", pipeline=16, microbatches=2),
    "experts 8 x 2": lambda: dag_of(PAPER_MOE, 4, 4, "layers=1", experts=8),
    "query, 2 x 4": lambda: dag_of(PAPER, 2, 4, *_EXACT, slicing="query", data=2),
    "batch, biases": lambda: dag_of(QWEN, 4, 2, "layers=2", *_FEW, slicing="batch", pipeline=2, microbatches=2),
    "more groups than KV heads": lambda: dag_of(MIXTRAL, 16, 1, "layers=1", *_FEW),
    "interleave 2": lambda: dag_of(PAPER, 4, 4, "layers=1", microbatches=4, interleave=2),
    "128 microbatches": lambda: dag_of(SMALL, 1, 1, "layers=1", "workload.batch=128", microbatches=128),
    "groups innermost": lambda: dag_of(PAPER, 4, 2, "layers=2", pipeline=2, placement="groups-data-slices-pipeline"),
    "a group over two hosts": lambda: dag_of(PAPER, 2, 8, *_EXACT, "hosts=4", "devices_per_host=4", slicing="query"),
    "a host for each device": lambda: dag_of(PAPER, 2, 2, "layers=1", "hosts=4", "devices_per_host=1"),
    "64 devices": lambda: dag_of(PAPER, 4, 2, "layers=2", "hosts=8", data=4, pipeline=2, microbatches=2),
    "one device": lambda: dag_of(SMALL, 1, 1, "layers=1"),
}


@cache
def example(name: str) -> Dag:
    """The dag of one of ``LAYOUTS``."""
    return LAYOUTS[name]()


@cache
def paper_plan(groups: int, slices: int, layers: int = 2) -> Plan:
    model = yaml.safe_load((PLANS / "paper/dense.model.yaml").read_text()) | {"layers": layers}
    document = ModelDocument.model_validate(model)
    cluster = ClusterSpec.model_validate(yaml.safe_load((PLANS / "paper/h100x16.cluster.yaml").read_text()))
    return Plan.of(document.model, cluster, document.workload, Layout(groups=groups, slices=slices))


@cache
def paper_dag(groups: int, slices: int, layers: int = 2) -> Dag:
    return lower(paper_plan(groups, slices, layers))


def named(dag: Dag, name: str) -> Dag:
    """The same dag, with another name for its model, its cluster and their device."""
    plan = dag.plan
    device = plan.cluster.device.model_copy(update={"name": name})
    cluster = plan.cluster.model_copy(update={"name": name, "device": device})
    model = plan.model.model_copy(update={"name": name})
    return dataclasses.replace(dag, plan=plan.model_copy(update={"model": model, "cluster": cluster}))


def hostile_dag() -> Dag:
    """A dag in which every free text tries to break out of its element; no spec allows all of them, a caller may."""
    dag = named(lower(paper_plan(1, 4, 1)), HOSTILE)
    return dataclasses.replace(dag, tasks=tuple(dataclasses.replace(t, id=f"{t.id}{HOSTILE}") for t in dag.tasks))
