"""Dag: the document that says what will run. Tensors, values (regions of tensors on ranks), tasks, and their order."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, FailFast, Field, TypeAdapter, with_config

from helixctl.dag.ops import COLLECTIVES, Narrow, Op, Packed, SendReceive
from helixctl.dag.storage import Storage
from helixctl.plan import Interval, Plan, Whole, canonical_json
from helixctl.plan.document import FORMAT_VERSION
from helixctl.records import record
from helixctl.spec import DTYPE_NBYTES, Dtype, Step, StepName, accumulator

if TYPE_CHECKING:
    import networkx as nx

DAG_SCHEMA = "urn:helixctl:dag:1"
_STRICT = ConfigDict(extra="forbid")

# The first bad row of a table is said, not a million: a dag is written by a program, and its rows are bad alike.
_Rows = FailFast()
_Number = Annotated[float, Field(strict=True)]  # not read from text
_INTEGERS = {"input_ids", "length", "count", "seed", "selected"}  # inputs
Role = Literal["input", "weight", "state", "activation", "output"]
GIVEN: tuple[Role, ...] = ("input", "weight", "state")  # no task makes them
Level = Literal["embed", "transfer", "distribute", "exchange", "attend", "concat", "project", "feed_forward", "head"]
Lane = Literal["compute", "communication"]
_COLLECTIVES = frozenset(COLLECTIVES)  # asked of every task many times
_MOVES = _COLLECTIVES | {Narrow}


T = TypeVar("T")


def shares(values: Sequence[T], parts: int) -> list[Sequence[T]]:
    """The ends of a packed exchange, move by move: as many shares, of equal length."""
    each = len(values) // parts
    return [values[i * each : (i + 1) * each] for i in range(parts)]


@with_config(_STRICT)
@record
class Tensor:
    """A whole tensor of the model: its dims in the order of its axes, their sizes, and its seeded numbers.

    ``init`` is (offset, scale) of an input's or a weight's seeded numbers (docs/formats.md), both exact in float32; of
    token ids the scale is their number, of lengths and seeds it is 0 and the offset is the number. ``next`` names, of
    a state, the tensor that it is in the next step. ``storage`` says how a quantised weight is stored. ``lean`` makes
    the seeded numbers of routers, and of what enters the first layer, such that routing is uneven: one number for each
    expert, or one for all.
    """

    name: str
    role: Role
    dims: Annotated[tuple[str, ...], _Rows]
    shape: Annotated[tuple[Whole, ...], _Rows]
    init: tuple[_Number, _Number] | None = None
    next: Annotated[str | None, Field(exclude_if=lambda name: name is None)] = None
    storage: Annotated[Storage | None, Field(exclude_if=lambda storage: storage is None)] = None
    lean: Annotated[tuple[_Number, ...] | None, Field(exclude_if=lambda lean: lean is None)] = None

    @property
    def full(self) -> tuple[Interval, ...]:
        """The region that is the whole tensor."""
        return tuple((0, size) for size in self.shape)

    def given_dtype(self, model: Dtype) -> Dtype | Literal["int64"]:
        """The dtype of an input or a weight of a model of this dtype.

        Token ids and lengths are integers; what only the choice of experts looks at is held as scores are computed.
        """
        if self.name.endswith(".b_choice"):
            return accumulator(model)
        return "int64" if self.name in _INTEGERS else model


# Proofs ask both of every value of every task: many values have equal regions, those of all layers at least.
@lru_cache(maxsize=2**14)
def _extents(region: tuple[Interval, ...]) -> tuple[int, ...]:
    return tuple([stop - start for start, stop in region])


@lru_cache(maxsize=2**14)
def _elements(region: tuple[Interval, ...]) -> int:
    return math.prod(_extents(region))


@with_config(_STRICT)
@record
class Value:
    """A region of a tensor on one rank: a half-open interval for every dim, in the order of the tensor's dims.

    ``partial`` is set where the numbers are a sum over only part of a contracted dim: ((dim, (start, stop)), ...).
    """

    id: str
    tensor: str
    rank: Whole
    region: Annotated[tuple[Interval, ...], _Rows]
    dtype: Dtype | Literal["int64"]
    partial: Annotated[tuple[tuple[str, Interval], ...], _Rows] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the region."""
        return _extents(self.region)

    @property
    def numel(self) -> int:
        """Elements of the region."""
        return _elements(self.region)

    @property
    def nbytes(self) -> int:
        """Bytes of the region."""
        return _elements(self.region) * DTYPE_NBYTES[self.dtype]


@with_config(_STRICT)
@record
class Task:
    """A vertex of the DAG: an op on one rank, or one collective on its ordered ranks.

    A collective's inputs and outputs stand in the order of its ranks, one of each per rank (a broadcast has one
    input, on the first rank; a packed exchange one of each per rank for each of its moves, move after move).
    """

    id: str
    layer: Whole
    level: Level
    op: Op
    ranks: Annotated[tuple[Whole, ...], _Rows]
    inputs: Annotated[tuple[str, ...], _Rows]
    outputs: Annotated[tuple[str, ...], _Rows]
    flops: Whole
    nbytes: Whole

    @property
    def kind(self) -> str:
        """The op's tag."""
        return self.op.kind

    @property
    def is_collective(self) -> bool:
        """Whether ranks communicate."""
        return type(self.op) in _COLLECTIVES

    @property
    def moves(self) -> bool:
        """Whether it moves regions of tensors, or sums partial ones; all other tasks compute an equation."""
        return type(self.op) in _MOVES

    @property
    def parts(self) -> tuple[Task, ...]:
        """What a packed exchange carries, each move as a task of its own with the exchange's name; else the task.

        ``flops`` and ``nbytes`` stay those of the whole.
        """
        if not isinstance(self.op, Packed):
            return (self,)
        moves = self.op.moves
        ins, outs = (shares(values, len(moves)) for values in (self.inputs, self.outputs))
        each = zip(moves, ins, outs, strict=True)
        return tuple([replace(self, op=move, inputs=tuple(i), outputs=tuple(o)) for move, i, o in each])

    @property
    def receivers(self) -> tuple[int, ...]:
        """The rank of each output of a collective."""
        match self.op:
            case SendReceive():
                return self.ranks[1:]
            case Packed(moves):
                return self.ranks * len(moves)
            case _:
                return self.ranks

    @property
    def lane(self) -> Lane:
        """Collectives run in the communication lane, all else in the compute lane."""
        return "communication" if self.is_collective else "compute"


@with_config(_STRICT)
@dataclass(frozen=True)
class Dag:
    """The whole document. ``order[r]`` is the sequence in which rank r issues its tasks."""

    plan: Plan
    plan_digest: str
    tensors: Annotated[tuple[Tensor, ...], _Rows]
    values: Annotated[tuple[Value, ...], _Rows]
    tasks: Annotated[tuple[Task, ...], _Rows]
    order: Annotated[tuple[Annotated[tuple[str, ...], _Rows], ...], _Rows]
    format_version: str = field(default=FORMAT_VERSION)
    step: StepName = "pass"

    @cached_property
    def work(self) -> Step:
        """What the dag works on: the step of its plan."""
        return self.plan.step(self.step)

    @cached_property
    def tensor(self) -> dict[str, Tensor]:
        """Tensors by name."""
        return {t.name: t for t in self.tensors}

    @cached_property
    def value(self) -> dict[str, Value]:
        """Values by id."""
        return {v.id: v for v in self.values}

    @cached_property
    def task(self) -> dict[str, Task]:
        """Tasks by id."""
        return {t.id: t for t in self.tasks}

    @cached_property
    def producer(self) -> dict[str, Task]:
        """The task that makes each value; inputs and weights have none."""
        return {out: t for t in self.tasks for out in t.outputs}

    @cached_property
    def consumers(self) -> dict[str, tuple[Task, ...]]:
        """The tasks that read each value, in document order; values that none reads are absent."""
        found: dict[str, list[Task]] = {}
        for task in self.tasks:
            for value in dict.fromkeys(task.inputs):
                found.setdefault(value, []).append(task)
        return {value: tuple(tasks) for value, tasks in found.items()}

    @cached_property
    def ends(self) -> dict[str, dict[int, tuple[tuple[str, ...], tuple[str, ...]]]]:
        """Of every task, by rank: the inputs and the outputs that are on that rank."""
        found: dict[str, dict[int, tuple[tuple[str, ...], tuple[str, ...]]]] = {}
        for task in self.tasks:
            if not task.is_collective:
                found[task.id] = {task.ranks[0]: (task.inputs, task.outputs)}
                continue
            ins, outs = (self._by_rank(values) for values in (task.inputs, task.outputs))
            found[task.id] = {rank: (ins.get(rank, ()), outs.get(rank, ())) for rank in task.ranks}
        return found

    def _by_rank(self, values: Iterable[str]) -> dict[int, tuple[str, ...]]:
        found: dict[int, tuple[str, ...]] = {}
        for name in values:
            rank = self.value[name].rank
            found[rank] = (*found.get(rank, ()), name)
        return found

    @cached_property
    def kept(self) -> frozenset[str]:
        """The values that are needed to the end of a step: what is given, and the model's output."""
        role = {t.name: t.role for t in self.tensors}
        return frozenset(v.id for v in self.values if v.id not in self.producer or role[v.tensor] == "output")

    @cached_property
    def digest(self) -> str:
        """``sha256:`` of the document's text."""
        return "sha256:" + hashlib.sha256(self.to_json().encode()).hexdigest()

    def predecessors(self, task: Task) -> tuple[Task, ...]:
        """The tasks whose outputs this one reads, each once."""
        found = {p.id: p for v in task.inputs if (p := self.producer.get(v)) is not None}
        return tuple(found.values())

    def to_json(self) -> str:
        """The document as a file holds it: one tensor, value, task or rank's order a line, byte-stable."""
        return "".join(_lines(self))

    def to_networkx(self) -> nx.DiGraph[str]:
        """The tasks as the vertices of a graph, by id; an edge where a task reads what another makes.

        All attributes are texts and integers, so that every format of networkx can hold them:

        - of a vertex: ``kind``, ``layer``, ``level``, ``lane`` (compute or communication), ``ranks`` (their numbers in
          order, with a blank between them), ``flops`` and ``nbytes`` (of the document);
        - of an edge: ``values`` and ``tensors``, the names of what passes with a blank between them, and ``nbytes``,
          the bytes of these values;
        - of the graph: ``model``, ``cluster``, ``layout``, ``plan_digest``.

        Returns:
            A graph of the caller's own: the dag does not change with it.
        """
        import networkx as nx  # 0.4 s: only where a graph is wanted

        plan = self.plan
        graph: nx.DiGraph[str] = nx.DiGraph(
            model=plan.model.name, cluster=plan.cluster.name, layout=str(plan.layout), plan_digest=self.plan_digest
        )
        graph.add_nodes_from((task.id, _vertex(task)) for task in self.tasks)
        for task in self.tasks:
            read: dict[str, list[Value]] = {}
            for name in dict.fromkeys(task.inputs):
                if name in self.producer:
                    read.setdefault(self.producer[name].id, []).append(self.value[name])
            graph.add_edges_from((source, task.id, _edge(values)) for source, values in read.items())
        return graph


def _vertex(task: Task) -> dict[str, str | int]:
    """The attributes of a task in the graph."""
    return {
        "kind": task.kind,
        "layer": task.layer,
        "level": task.level,
        "lane": task.lane,
        "ranks": " ".join(map(str, task.ranks)),
        "flops": task.flops,
        "nbytes": task.nbytes,
    }


def _edge(values: Sequence[Value]) -> dict[str, str | int]:
    """The attributes of what passes from one task to another."""
    return {
        "values": " ".join(value.id for value in values),
        "tensors": " ".join(dict.fromkeys(value.tensor for value in values)),
        "nbytes": sum(value.nbytes for value in values),
    }


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _lines(dag: Dag) -> Iterable[str]:
    def block(name: str, rows: Iterable[str], end: str = "],") -> str:
        return f'"{name}": [\n' + ",\n".join(rows) + f"\n{end}\n"

    def dump(cls: Any, items: tuple[Any, ...]) -> list[str]:
        # Not dump_json: how it writes a float is pydantic's own affair, and these bytes must not change with it.
        return [canonical_json(item) for item in _adapter(tuple[cls, ...]).dump_python(items)]

    yield f'{{"$schema": "{DAG_SCHEMA}", "format_version": "{dag.format_version}",\n'
    if dag.step != "pass":
        yield f'"step": "{dag.step}",\n'
    yield f'"plan_digest": "{dag.plan_digest}",\n'
    yield f'"plan": {canonical_json(dag.plan.model_dump(mode="json", by_alias=True))},\n'
    yield block("tensors", dump(Tensor, dag.tensors))
    yield block("values", dump(Value, dag.values))
    yield block("tasks", dump(Task, dag.tasks))
    yield block("order", [canonical_json(list(ids)) for ids in dag.order], end="]}")


def dag_from_json(text: str | bytes) -> Dag:
    """Read a dag document.

    Raises:
        json.JSONDecodeError: the text is not JSON.
        pydantic.ValidationError: it is JSON, but not a dag.
    """
    data = json.loads(text)
    if isinstance(data, dict):
        data.pop("$schema", None)
    return _adapter(Dag).validate_python(data)  # type: ignore[no-any-return]
