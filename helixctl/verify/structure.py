"""Structure: ids are unique and declared, shapes of the document fit, every value has one maker on its own rank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from helixctl.dag import Broadcast, Dag, Op, Packed, SendReceive, Task
from helixctl.dag.document import GIVEN
from helixctl.dag.ops import (
    Add,
    Attention,
    Best,
    Bias,
    CachedAttention,
    CachedSelect,
    CacheWrite,
    Choose,
    Embed,
    Expand,
    Experts,
    HeadLinear,
    Join,
    LastToken,
    Linear,
    Merge,
    MergeSelect,
    Multiply,
    Norm,
    NormBySums,
    PartialAttention,
    PartialSelect,
    Rotate,
    RotateAt,
    Route,
    Sample,
    ScaleBy,
    ScaleQueries,
    Select,
    SquareSums,
    TokenGate,
)
from helixctl.errors import Diagnostic
from helixctl.plan.sharding import Region
from helixctl.verify.findings import finding

# Inputs and outputs of computing tasks; others have one of each.
_ENDS: Final[dict[type, tuple[int, int]]] = {
    Embed: (2, 1),
    NormBySums: (5, 2),
    SquareSums: (2, 1),
    Attention: (3, 1),
    Add: (2, 1),
    Multiply: (2, 1),
    TokenGate: (3, 1),
    LastToken: (2, 1),
    HeadLinear: (2, 1),
    Join: (2, 1),
    Expand: (5, 2),
    CachedAttention: (5, 1),
    PartialAttention: (5, 2),
    Merge: (2, 1),
    ScaleBy: (2, 1),
    ScaleQueries: (1, 1),
    Select: (3, 1),
    CachedSelect: (5, 1),
    PartialSelect: (5, 2),
    MergeSelect: (2, 1),
    Best: (1, 2),
    Choose: (2, 1),
    Sample: (4, 1),
}


def check_ids(dag: Dag) -> Iterator[Diagnostic]:
    """Every id names one thing (HX403)."""
    for noun, ids in (
        ("tensor", [t.name for t in dag.tensors]),
        ("value", [v.id for v in dag.values]),
        ("task", [t.id for t in dag.tasks]),
    ):
        for name, count in Counter(ids).items():
            if count > 1:
                yield Diagnostic("HX403", f"{noun} {name} is declared {count} times", path=name)


def check_references(dag: Dag) -> Iterator[Diagnostic]:
    """Every id that is used is declared (HX403)."""
    for value in dag.values:
        if value.tensor not in dag.tensor:
            yield Diagnostic(
                "HX403", f"value {value.id} is a region of {value.tensor}, which is not declared", path=value.id
            )
    for task in dag.tasks:
        for name in dict.fromkeys((*task.inputs, *task.outputs)):
            if name not in dag.value:
                yield finding("HX403", dag, task, f"names value {name}, which is not declared")
    for rank, order in enumerate(dag.order):
        for name in dict.fromkeys(order):
            if name not in dag.task:
                message = f"the order of rank {rank} names task {name}, which is not declared"
                yield Diagnostic("HX403", message, path=f"order[{rank}]")


def check_shapes(dag: Dag) -> Iterator[Diagnostic]:
    """Regions lie inside their tensors, ranks exist, and every task has as many ends as its kind has (HX401)."""
    devices = dag.plan.layout.devices
    for tensor in dag.tensors:
        if len(tensor.dims) != len(tensor.shape) or len(set(tensor.dims)) != len(tensor.dims):
            message = f"tensor {tensor.name} has dims {tensor.dims} and shape {tensor.shape}"
            yield Diagnostic("HX401", message, path=tensor.name)
    for value in dag.values:
        shape = dag.tensor[value.tensor].shape
        if not _is_inside(value.region, shape):
            message = f"value {value.id} has region {value.region} of a tensor of shape {shape}"
            yield Diagnostic("HX401", message, path=value.id)
        if not 0 <= value.rank < devices:
            yield Diagnostic("HX401", f"value {value.id} is on rank {value.rank} of {devices}", path=value.id)
    if len(dag.order) != devices:
        yield Diagnostic("HX401", f"the order is given for {len(dag.order)} ranks, the layout has {devices}")
    for task in dag.tasks:
        if problem := _wrong_ends(task):
            yield finding("HX401", dag, task, problem)
        if not _in_order(task) or not all(rank < devices for rank in task.ranks):
            message = f"has ranks {list(task.ranks)}; they must ascend, each once, below {devices}"
            yield finding("HX401", dag, task, message)


@lru_cache(maxsize=4096)  # the layers of a model have values of the same few regions
def _is_inside(region: Region, shape: tuple[int, ...]) -> bool:
    """Whether a region has as many dims as a tensor of this shape, and in each a part of it."""
    return len(shape) == len(region) and all(
        0 <= start < stop <= size for (start, stop), size in zip(region, shape, strict=True)
    )


def check_producers(dag: Dag) -> Iterator[Diagnostic]:
    """Every value is an input, a weight, or the output of one task, and is used on its own rank (HX404)."""
    makers = Counter(out for task in dag.tasks for out in task.outputs)
    for value in dag.values:
        given = dag.tensor[value.tensor].role in GIVEN
        count = makers[value.id]
        if count > 1:
            yield Diagnostic("HX404", f"value {value.id} is made by {count} tasks", path=value.id)
        elif count == 0 and not given:
            message = f"value {value.id} is made by no task, and its tensor is not an input, a weight or a state"
            yield Diagnostic("HX404", message, path=value.id)
    for task in dag.tasks:
        senders = task.receivers if isinstance(task.op, Packed) else task.ranks
        for value_id, rank in (*_placed(task, task.inputs, senders), *_placed(task, task.outputs, task.receivers)):
            if dag.value[value_id].rank != rank:
                yield finding(
                    "HX404", dag, task, f"uses {value_id} on rank {rank}; it is on rank {dag.value[value_id].rank}"
                )


def _in_order(task: Task) -> bool:
    """Whether ranks ascend; of two that send and receive the sender comes first, whichever it is."""
    each = sorted(set(task.ranks))
    return len(each) == len(task.ranks) if isinstance(task.op, SendReceive) else each == list(task.ranks)


def _wrong_ends(task: Task) -> str | None:
    """What is wrong with the number of ranks, inputs or outputs of a task."""
    ranks, ins, outs = len(task.ranks), len(task.inputs), len(task.outputs)
    if task.is_collective:
        senders = 1 if isinstance(task.op, Broadcast | SendReceive) else ranks
        wanted = (senders, 1 if isinstance(task.op, SendReceive) else ranks)
        if isinstance(task.op, Packed):
            wanted = (ranks * len(task.op.moves),) * 2
        if isinstance(task.op, SendReceive) and ranks != 2:  # noqa: PLR2004
            return f"sends between {ranks} ranks"
        if ranks < 2:  # noqa: PLR2004  a collective of one rank is no task
            return f"is a collective of {ranks} rank"
    else:
        if ranks != 1:
            return f"computes on {ranks} ranks"
        wanted = _wanted(task.op, ins, max(outs, 1))
    if (ins, outs) != wanted:
        return f"{task.kind} with {ins} inputs and {outs} outputs; it takes {wanted[0]} and {wanted[1]}"
    return None


def _wanted(op: Op, ins: int, outs: int) -> tuple[int, int]:  # noqa: C901, PLR0911  one a kind
    """The numbers of inputs and outputs that a computing task has to have."""
    match op:
        case Linear():
            return outs + 1, outs
        case Bias():
            return 2 * outs, outs
        case Rotate():
            return outs, outs
        case RotateAt():
            return outs + 1, outs
        case CacheWrite():
            return 2 * outs + 2, outs
        case Attention(top_k=int()) | CachedAttention(top_k=int()) | PartialAttention(top_k=int()):
            least, made = _ENDS[type(op)]
            return least + 1, made  # with the keys that were chosen, and without sinks
        case Attention() | CachedAttention() | Merge() | ScaleQueries():
            least, made = _ENDS[type(op)]
            return min(max(ins, least), least + 1), made  # with or without sinks, or a length
        case Norm():
            return min(max(ins, 1), 3), 1  # with or without weight and bias
        case Route():
            return 2 + op.router.bias + op.router.choice_bias + op.router.gate_scales, 1
        case Experts():
            return min((4, 5, 6, 8), key=lambda fits: abs(fits - ins)), 1  # with or without w_gate, and with biases
        case _:
            return _ENDS.get(type(op), (1, 1))


def _placed(task: Task, values: Iterable[str], ranks: tuple[int, ...]) -> list[tuple[str, int]]:
    """Values with the rank on which the task uses each."""
    if task.is_collective:
        return list(zip(values, ranks, strict=False))
    return [(value, task.ranks[0]) for value in values]
