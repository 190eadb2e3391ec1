"""Traces of Chakra, read back and held against the dag field by field."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.proto import parse_length_prefixed

from helixctl.dag import Dag
from helixctl.dag.ops import Packed
from helixctl.export import chakra_schema as schema
from helixctl.export.chakra import comm_size, groups_json, process_groups, traces
from helixctl.lower import lower
from helixctl.simulate import Timeline, simulate
from tests.documents import PAPER, PAPER_MOE, plan_of
from tests.export.plans import plan_of as generation

SETS = ("layers=2", "workload.batch=64")
PLANS = {
    "4x4": lambda: lower(plan_of(PAPER, 4, 4, *SETS)),
    "tp8-pp2": lambda: lower(plan_of(PAPER, 8, 1, *SETS, pipeline=2, microbatches=4, combine="reduce")),
    "moe": lambda: lower(plan_of(PAPER_MOE, 4, 4, *SETS, experts=8)),
    "decode": lambda: lower(
        generation("Llama-3.1-8B", "h100:1x8", sets=("layers=2",), groups=4, slices=2, slicing="key"), step="decode"
    ),
}
TYPES = {"all_reduce": 0, "all_gather": 2, "broadcast": 5, "all_to_all": 6, "reduce_scatter": 7}  # et_def.proto


@dataclass
class Node:
    node: Any

    @property
    def attributes(self) -> dict[str, Any]:
        return {a.name: getattr(a, str(a.WhichOneof("value"))) for a in self.node.attr}


@pytest.fixture(scope="module", params=PLANS)
def case(request: pytest.FixtureRequest) -> tuple[Timeline, list[list[Node]], list[Any]]:
    timeline = simulate(PLANS[request.param]())
    heads, ranks = [], []
    for data in traces(timeline):
        stream = io.BytesIO(data)
        heads.append(parse_length_prefixed(schema.messages()["GlobalMetadata"], stream))
        ranks.append([Node(node) for node in read(stream)])
    return timeline, ranks, heads


def read(stream: io.BytesIO) -> Iterator[Any]:
    while (node := parse_length_prefixed(schema.messages()["Node"], stream)) is not None:
        yield node


def test_every_rank_has_its_tasks_in_its_order(case: tuple[Timeline, list[list[Node]], list[Any]]) -> None:
    timeline, ranks, heads = case
    dag = timeline.dag
    assert {head.version for head in heads} == {"0.0.4"}
    assert [dict.fromkeys(n.node.name for n in nodes) for nodes in ranks] == [dict.fromkeys(o) for o in dag.order]
    for nodes in ranks:
        assert [n.node.id for n in nodes] == list(range(1, len(nodes) + 1))


def test_computations(case: tuple[Timeline, list[list[Node]], list[Any]]) -> None:
    timeline, ranks, _ = case
    dag, seen = timeline.dag, 0
    for nodes in ranks:
        for n in nodes:
            task = dag.task[n.node.name]
            if not task.is_collective:
                seen += 1
                its = n.attributes
                assert n.node.type == schema.COMP_NODE
                assert (its["num_ops"], its["tensor_size"]) == (task.flops, task.nbytes)
                assert (its["is_cpu_op"], its["layer"], its["level"], its["kind"]) == (
                    False, task.layer, task.level, task.kind,
                )  # fmt: skip
    assert seen == sum(not task.is_collective for task in dag.tasks)


def test_times_are_the_simulators(case: tuple[Timeline, list[list[Node]], list[Any]]) -> None:
    timeline, ranks, _ = case
    for nodes in ranks:
        for n in nodes:
            begin, end = timeline.begin_s[n.node.name], timeline.end_s[n.node.name]
            assert n.node.start_time_micros == round(begin * 1e6)
            assert n.node.duration_micros == round((end - begin) * 1e6)
            assert n.attributes["start_s"] == begin
            assert n.attributes["duration_s"] == end - begin


def test_data_dependencies_are_the_dags(case: tuple[Timeline, list[list[Node]], list[Any]]) -> None:
    """A node depends on the tasks that make, on its rank, what its task reads there; all come before it."""
    timeline, ranks, _ = case
    dag, edges = timeline.dag, 0
    for rank, nodes in enumerate(ranks):
        name_of = {n.node.id: n.node.name for n in nodes}
        before: dict[str, int] = {}
        for n in nodes:
            task = dag.task[n.node.name]
            reads = {v for v in task.inputs if dag.value[v].rank == rank and v in dag.producer}
            assert {name_of[d] for d in n.node.data_deps} == {dag.producer[v].id for v in reads}
            assert all(d < n.node.id for d in (*n.node.data_deps, *n.node.ctrl_deps))
            assert list(n.node.ctrl_deps) == ([before[task.lane]] if task.lane in before else [])
            before[task.lane] = n.node.id
            edges += len(reads)
    assert edges > 0


def test_collectives_are_met_by_all_members_in_one_order(
    case: tuple[Timeline, list[list[Node]], list[Any]],
) -> None:
    timeline, ranks, _ = case
    dag = timeline.dag
    members = {int(name): ranks for name, ranks in json.loads(groups_json(process_groups(dag))).items()}
    met: dict[int, dict[int, list[tuple[str, int, int]]]] = {}
    for rank, nodes in enumerate(ranks):
        for n in nodes:
            if n.node.type == schema.COMM_COLL_NODE:
                its = n.attributes
                task, group = dag.task[n.node.name], int(its["pg_name"])
                assert tuple(members[group]) == task.ranks
                kinds = {move.kind for move in task.op.moves} if isinstance(task.op, Packed) else {task.kind}
                assert its["comm_type"] in {TYPES[kind] for kind in kinds} | ({6} if len(kinds) > 1 else set())
                assert its["comm_size"] == comm_size(dag, task)
                met.setdefault(group, {}).setdefault(rank, []).append((task.id, its["comm_type"], its["comm_size"]))
    assert met
    for group, by_rank in met.items():
        assert sorted(by_rank) == sorted(members[group])
        assert len({tuple(order) for order in by_rank.values()}) == 1


def test_bytes_of_collectives(case: tuple[Timeline, list[list[Node]], list[Any]]) -> None:
    """Of a gather a rank's piece; of a reduction all that a rank has; against the bytes of the dag's formula."""
    dag, seen = case[0].dag, 0
    for task in dag.tasks:
        ranks, size = len(task.ranks), comm_size(dag, task)
        match task.kind:
            case "all_gather":
                assert task.nbytes == (ranks - 1) * size
            case "all_reduce":
                assert task.nbytes == -(-2 * (ranks - 1) * size // ranks)
            case "reduce_scatter":
                assert task.nbytes == -(-(ranks - 1) * size // ranks)
            case "broadcast":
                assert task.nbytes == size
            case _:
                continue
        seen += 1
    assert seen


def test_sends_meet_receives(case: tuple[Timeline, list[list[Node]], list[Any]]) -> None:
    timeline, ranks, _ = case
    dag = timeline.dag
    ends: dict[tuple[Any, ...], list[tuple[int, int]]] = {}
    for rank, nodes in enumerate(ranks):
        for n in nodes:
            if n.node.type in {schema.COMM_SEND_NODE, schema.COMM_RECV_NODE}:
                its = n.attributes
                key = (its["comm_src"], its["comm_dst"], its["comm_tag"], its["comm_size"], n.node.name)
                ends.setdefault(key, []).append((rank, n.node.type))
    sent = [task for task in dag.tasks if task.kind == "send_receive"]
    pairs = {(t.ranks[0], d, t.id, dag.value[t.inputs[0]].nbytes) for t in sent for d in t.ranks[1:]}
    assert {(src, dst, name, size) for src, dst, _, size, name in ends} == pairs
    for (source, target, *_), found in ends.items():
        assert found == sorted([(source, schema.COMM_SEND_NODE), (target, schema.COMM_RECV_NODE)])


def test_some_plan_has_each_kind_of_node() -> None:
    kinds = {task.kind for make in PLANS.values() for task in make().tasks}
    assert {"send_receive", "packed", "all_gather", "all_reduce", "broadcast"} <= kinds


def test_same_plan_same_bytes() -> None:
    dag: Dag = PLANS["4x4"]()
    assert list(traces(simulate(dag))) == list(traces(simulate(PLANS["4x4"]())))
