"""Uneven routing: the fullest device's experts are priced; the dag is what it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helixctl.cost.tasks import seconds
from helixctl.dag import Dag
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.spec import WorkloadSpec
from helixctl.spec.load import load_specs
from helixctl.spec.routing import fullest_load

EVEN, SKEWED = WorkloadSpec(batch=8, seq_len=2048), WorkloadSpec(batch=8, seq_len=2048, routing="power_law(1.2)")


def dag_with(work: WorkloadSpec, experts: int) -> Dag:
    model, cluster = load_specs("Mixtral-8x7B-v0.1", "h100:1x8", ("layers=1", "dtype=float16"))[:2]
    return lower(Plan.of(model, cluster, work, Layout(groups=8, slices=1, experts=experts)), only={0})


def of_experts(dag: Dag) -> float:
    (task,) = (task for task in dag.tasks if task.kind == "experts")
    return seconds(dag, task)


def test_experts_that_all_devices_have_a_piece_of_take_the_same() -> None:
    assert of_experts(dag_with(SKEWED, 1)) == of_experts(dag_with(EVEN, 1))


def test_whole_experts_take_as_long_as_on_the_fullest_device() -> None:
    """Of long products, in about the ratio of the rows."""
    fuller = fullest_load("power_law(1.2)", 8, 2, 1) / (2 / 8)
    assert fuller > 2
    assert of_experts(dag_with(SKEWED, 8)) / of_experts(dag_with(EVEN, 8)) == pytest.approx(fuller, rel=0.15)


def test_the_dag_is_that_of_an_even_routing_apart_from_seeded_numbers() -> None:
    one, other = dag_with(EVEN, 8), dag_with(SKEWED, 8)
    unlean = tuple(replace(tensor, lean=None) for tensor in other.tensors)
    assert (one.tasks, one.values, one.tensors) == (other.tasks, other.values, unlean)
    assert other.tensors != unlean
