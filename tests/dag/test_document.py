"""The dag document: round trip, lookups, liveness, dry run, another dtype."""

from __future__ import annotations

import json
from dataclasses import replace

import networkx as nx
import pytest
from pydantic import ValidationError

from helixctl.dag import dag_from_json
from helixctl.dag.dry_run import dry_run
from helixctl.dag.retype import retyped
from helixctl.simulate import forecast
from helixctl.verify import verify
from tests.documents import PAPER, SMALL, dag_of, tiny
from tests.liveness import last_needed


def test_round_trip_and_one_thing_a_line() -> None:
    dag = dag_of(PAPER, 4, 4)
    text = dag.to_json()
    again = dag_from_json(text)
    assert again == dag
    assert again.to_json() == text
    lines = text.splitlines()
    assert sum('"op":' in line for line in lines) == len(dag.tasks)
    assert max(line.count('"id":') for line in lines) == 1


@pytest.mark.parametrize("change", [{"rank": "0"}, {"rank": 1.0}, {"rank": -1}, {"dtype": "int8"}, {"more": 1}])
def test_values_are_strict(change: dict[str, object]) -> None:
    data = json.loads(tiny(2, 1).to_json())
    data["values"][0] |= change
    with pytest.raises(ValidationError):
        dag_from_json(json.dumps(data))


def test_networkx_edges_are_the_data_dependencies() -> None:
    dag = dag_of(SMALL, 2, 2)
    graph = dag.to_networkx()
    assert nx.is_directed_acyclic_graph(graph)
    assert set(graph.predecessors("l0.attend.g1s0")) == {"l0.distribute.qkv.g1s0"}
    assert set(graph.predecessors("l0.concat.slices.g1")) == {"l0.attend.g1s0", "l0.attend.g1s1"}
    assert set(graph.successors("l0.concat.groups.s1")) == {"l0.project.linear.g0s1", "l0.project.linear.g1s1"}


def test_networkx_attributes_are_those_of_tasks_and_of_what_passes() -> None:
    dag = dag_of(SMALL, 2, 2)
    graph = dag.to_networkx()
    assert list(graph) == [task.id for task in dag.tasks]
    qkv = dag.task["l0.distribute.qkv.g1s0"]
    assert graph.nodes[qkv.id] == {
        "kind": "linear",
        "layer": 0,
        "level": "distribute",
        "lane": "compute",
        "ranks": "2",
        "flops": qkv.flops,
        "nbytes": qkv.nbytes,
    }
    assert graph.nodes["l0.concat.slices.g1"]["ranks"] == "2 3"
    passed = [dag.value[name] for name in qkv.outputs]
    assert graph.edges[qkv.id, "l0.attend.g1s0"] == {
        "values": "l0.q@2 l0.k@2 l0.v@2",
        "tensors": "l0.q l0.k l0.v",
        "nbytes": sum(value.nbytes for value in passed),
    }
    assert graph.graph["plan_digest"] == dag.plan_digest


def test_an_edge_carries_what_passes_between_two_tasks_and_nothing_else() -> None:
    dag = dag_of(SMALL, 2, 2)
    drawn = {(s, t, v) for s, t, names in dag.to_networkx().edges(data="values") for v in names.split()}
    assert drawn == {(dag.producer[v].id, t.id, v) for t in dag.tasks for v in t.inputs if v in dag.producer}


def test_a_graph_is_the_caller_s_own() -> None:
    dag = tiny(2, 1)
    dag.to_networkx().clear()
    assert len(dag.to_networkx()) == len(dag.tasks)


def test_dry_run_does_every_task_after_its_inputs() -> None:
    dag = dag_of(SMALL, 2, 2)
    ran = dry_run(dag)
    assert not ran.stuck
    place = {task.id: i for i, task in enumerate(ran.done)}
    assert len(place) == len(dag.tasks)
    assert all(place[p.id] < place[t.id] for t in dag.tasks for p in dag.predecessors(t))


def test_a_collective_reads_its_input_until_its_output_is_used() -> None:
    dag = tiny(2, 1)
    last = last_needed(dag, 0)
    order = dag.order[0]
    # The gather's piece is needed until the projection uses the gathered whole.
    assert last["l0.attention@0"] == order.index("l0.project.linear.g0s0")
    assert last["output@0"] == len(order)
    assert last["l0.q@0"] == order.index("l0.attend.g0s0")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_another_dtype_is_what_lowering_with_it_gives(dtype: str) -> None:
    dag = dag_of(SMALL, 4, 4)
    assert retyped(dag, dtype) == dag_of(SMALL, 4, 4, f"dtype={dtype}")


def test_lookups_are_by_id() -> None:
    dag = tiny(2, 1)
    value = dag.value["l0.w_q@1"]
    assert (value.rank, value.shape, value.nbytes) == (1, (8, 1, 4), 8 * 4 * 4)
    assert dag.producer["l0.q@1"].id == "l0.distribute.qkv.g1s0"
    assert [t.id for t in dag.consumers["l0.residual@1"]] == ["l0.feed_forward.norm.g1s0", "l0.feed_forward.add.g1s0"]
    assert replace(value, dtype="float16").nbytes == 8 * 4 * 2


def test_the_order_in_which_tasks_are_listed_means_nothing() -> None:
    dag = dag_of(SMALL, 2, 2)
    other = replace(dag, tasks=dag.tasks[::-1])
    assert verify(other) == []
    assert retyped(other, "float16").task == retyped(dag, "float16").task
    assert forecast(other) == forecast(dag)
