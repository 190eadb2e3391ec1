"""Execution traces of MLCommons Chakra: what ASTRA-sim and other simulators read, a file for every rank.

A trace has a node for every task that the rank takes part in, in the order in which it issues them, with durations of
the simulator. docs/export.md says what each field of a node holds.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from helixctl.dag import Dag, Task
from helixctl.dag.ops import Broadcast, SendReceive, wire_kind
from helixctl.errors import fail
from helixctl.export import chakra_schema as schema
from helixctl.simulate import Timeline

Groups = Mapping[tuple[int, ...], str]


def process_groups(dag: Dag) -> Groups:
    """The ranks of every collective, each once, and the name of the group: a number from 1, as a text."""
    found = dict.fromkeys(t.ranks for t in dag.tasks if t.is_collective and not isinstance(t.op, SendReceive))
    return {ranks: str(number) for number, ranks in enumerate(found, 1)}


def groups_json(groups: Groups) -> str:
    """The file of process groups: their ranks by their names."""
    return json.dumps({name: list(ranks) for ranks, name in groups.items()}) + "\n"


def traces(timeline: Timeline) -> Iterator[bytes]:
    """The trace of every rank, from rank 0 on.

    Args:
        timeline: of a whole dag.

    Raises:
        HelixError: HX602, the protobuf library is not installed.
    """
    try:
        made = schema.messages()
        from google.protobuf.proto import serialize_length_prefixed
    except ImportError as error:
        hint = "pip install 'helixctl[chakra]'"
        raise fail("HX602", "traces of Chakra need the package protobuf, version 6 or later", hint) from error
    dag, groups = timeline.dag, process_groups(timeline.dag)
    tags = {task.id: number for number, task in enumerate(dag.tasks)}
    for rank in range(len(dag.order)):
        stream = io.BytesIO()
        head = made["GlobalMetadata"](version=schema.VERSION)
        texts = {"model": dag.plan.model.name, "layout": str(dag.plan.layout), "plan_digest": dag.plan_digest}
        head.attr.extend(_attributes(made, texts | {"step": dag.step, "rank": rank, "times": "simulated"}))
        serialize_length_prefixed(head, stream)
        for node in _nodes(made, timeline, rank, groups, tags):
            serialize_length_prefixed(node, stream)
        yield stream.getvalue()


def _nodes(
    made: Mapping[str, Any], timeline: Timeline, rank: int, groups: Groups, tags: Mapping[str, int]
) -> Iterator[Any]:
    """The nodes of a rank, numbered from 1; of a task that sends to several ranks one for each of them."""
    dag = timeline.dag
    of_task: dict[str, list[int]] = {}
    last: dict[str, int] = {}  # by lane, the node before
    number = 0
    for name in dag.order[rank]:
        task = dag.task[name]
        reads = dict.fromkeys(
            dag.producer[value].id for value in dag.ends[name].get(rank, ((), ()))[0] if value in dag.producer
        )
        deps = sorted(node for maker in reads for node in of_task.get(maker, ()))
        begin, end = timeline.begin_s[name], timeline.end_s[name]
        for kind, attributes in _kinds(dag, task, rank, groups, tags):
            number += 1
            yield made["Node"](
                id=number,
                name=name,
                type=kind,
                ctrl_deps=[last[task.lane]] if task.lane in last else [],
                data_deps=deps,
                start_time_micros=round(begin * 1e6),
                duration_micros=round((end - begin) * 1e6),
                attr=_attributes(made, attributes | _common(task, begin, end)),
            )
            of_task.setdefault(name, []).append(number)
            last[task.lane] = number


def _common(task: Task, begin: float, end: float) -> dict[str, Any]:
    """Attributes of every node: the simulator's times unrounded, and where in the model the task stands."""
    where = {"layer": task.layer, "level": task.level, "kind": task.kind}
    return {"is_cpu_op": False, "start_s": begin, "duration_s": end - begin} | where


def _kinds(
    dag: Dag, task: Task, rank: int, groups: Groups, tags: Mapping[str, int]
) -> list[tuple[int, dict[str, Any]]]:
    """The types and attributes of the nodes that a task is on a rank."""
    if not task.is_collective:
        return [(schema.COMP_NODE, {"num_ops": task.flops, "tensor_size": _Unsigned(task.nbytes)})]
    if isinstance(task.op, SendReceive):
        source, *targets = task.ranks
        kind = schema.COMM_SEND_NODE if rank == source else schema.COMM_RECV_NODE
        size = dag.value[task.inputs[0]].nbytes
        ends = [target for target in targets if rank in {source, target}]
        return [
            (kind, {"comm_src": _Short(source), "comm_dst": _Short(target), "comm_tag": _Short(tags[task.id]),
                    "comm_size": size})
            for target in ends
        ]  # fmt: skip
    size = comm_size(dag, task)
    kinds = {"comm_type": schema.COLLECTIVE_TYPES[wire_kind(task.op)], "comm_size": size}
    root = {"root": task.ranks[0]} if isinstance(task.op, Broadcast) else {}
    return [(schema.COMM_COLL_NODE, kinds | {"pg_name": groups[task.ranks]} | root)]


def comm_size(dag: Dag, task: Task) -> int:
    """Bytes that a rank gives to a collective: of a gather its piece, else all of it; where ranks differ the most."""
    given = [sum(dag.value[value].nbytes for value in ins) for ins, _ in dag.ends[task.id].values()]
    return max(given)


class _Short(int):
    """An attribute of 32 bits."""


class _Unsigned(int):
    """An attribute without a sign."""


def _attributes(made: Mapping[str, Any], values: Mapping[str, Any]) -> Sequence[Any]:
    return [made["AttributeProto"](name=name, **{_field(value): value}) for name, value in values.items()]


def _field(value: object) -> str:
    """Which field of an attribute a value is; ASTRA-sim's feeder reads these of the attributes that it knows."""
    match value:
        case bool():
            return "bool_val"
        case _Short():
            return "int32_val"
        case _Unsigned():
            return "uint64_val"
        case int():
            return "int64_val"
        case float():
            return "double_val"
    return "string_val"
