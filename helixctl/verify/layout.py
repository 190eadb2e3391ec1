"""Layout: every rank owns and makes what the plan's layout gives it, where, in the order and by the name it says.

The other proofs show that the dag computes the model. This one shows that it does so as its plan says: what reports and
predictions call "4 x 4, pipeline 2" is 4 x 4 in two stages.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Final

from helixctl.dag import AllGather, Dag, SendReceive, Task, Tensor, Value
from helixctl.dag.function import TOKEN, Function, function_of
from helixctl.dag.levels import level_moved
from helixctl.errors import Diagnostic
from helixctl.plan import Plan
from helixctl.plan.sharding import Region, kind_of, layer_of, shares_of_blocks
from helixctl.verify.findings import finding, region_text

Part = tuple[str, int]  # a tensor on a rank

_SHOWN: Final = 2


def check_layout(dag: Dag) -> Iterator[Diagnostic]:
    """What ranks own and make is their share (HX414); then, how they gather it and take turns."""
    function = function_of(dag.plan.model, dag.work)
    want, have = _due(dag, function), _had(dag)
    wrong: dict[str, int] = {}
    for name, rank in sorted(want.keys() | have.keys()):
        if name not in wrong and want.get((name, rank)) != have.get((name, rank)):
            wrong[name] = rank
            due, found = (_texts(dag.tensor[name], regions.get((name, rank), [])) for regions in (want, have))
            message = f"rank {rank} has {found} of {name}; the layout {dag.plan.layout} gives it {due}"
            yield Diagnostic("HX414", message, path=_row(dag, name, rank))
    if wrong:
        return  # what follows asks for the microbatch of a task
    for task in (part for whole in dag.tasks if whole.moves for part in whole.parts):
        yield from _named(dag, function, task)
        yield from _gathered(dag, task)
    for rank in range(dag.plan.layout.devices):
        yield from _in_turns(dag, rank)


def _row(dag: Dag, tensor: str, rank: int) -> str:
    """What declares a rank's share of a tensor: its first value, or the tensor where it has none."""
    return next((v.id for v in dag.values if v.tensor == tensor and v.rank == rank), tensor)


# --- shares ----------------------------------------------------------------------------------------------------------


def _had(dag: Dag) -> dict[Part, list[Region]]:
    """The regions of every tensor that every rank is given or computes, ascending."""
    moved = {value for task in dag.tasks if task.moves for value in task.outputs}
    found: dict[Part, list[Region]] = defaultdict(list)
    for value in dag.values:
        if value.id not in moved:
            found[value.tensor, value.rank].append(value.region)
    return {part: sorted(regions) for part, regions in found.items()}


def _due(dag: Dag, function: Function) -> dict[Part, list[Region]]:
    """What they would be by the layout's table of shardings."""
    plan, work = dag.plan, dag.work
    layout, model = plan.layout, plan.model
    shares = shares_of_blocks(layout, model, work)
    stages = _stages(plan, function)
    # What does not depend on the rank: the name of a tensor and that of its likes in other layers of its block, the
    # stages that have it, its dims, and how it is cut.
    each_tensor = [
        (name, (block, kind_of(name)), stages[name], tensor.dims, shares[block].of(name).made)
        for name, tensor in function.tensors.items()
        for block in (model.kind(layer_of(name)),)
    ]
    found: dict[Part, list[Region]] = {}
    for rank in range(layout.devices):
        stage, replica = layout.team_of(rank)
        first = rank == layout.team(stage, replica)[0]
        parts = [layout.microbatch(replica, i, work) for i in range(layout.microbatches)]
        # The regions of a tensor are those of its likes in other layers of its block.
        alike: dict[tuple[str, str], list[Region]] = {}
        for name, kind, its_stages, dims, made in each_tensor:
            if stage in its_stages and (first or made.owner == "all"):
                if kind not in alike:
                    each = parts if "batch" in dims else parts[:1]
                    alike[kind] = sorted(shares[kind[0]].region(dims, made, rank, part) for part in each)
                found[name, rank] = alike[kind]
    return found


def _stages(plan: Plan, function: Function) -> dict[str, set[int]]:
    """The stages in which a tensor is made; or, of what is given, in which it is read."""
    stage_of = {
        layer: stage for stage in range(plan.layout.pipeline) for layer in plan.layout.layers(stage, plan.model)
    }
    stages: dict[str, set[int]] = defaultdict(set)
    for equation in function.equations:
        given = [name for name in equation.inputs if name not in function.defining]
        for name in (*given, *equation.outputs):
            stages[name].add(stage_of[equation.layer])
    return stages


def _texts(tensor: Tensor, regions: Sequence[Region]) -> str:
    texts = [f"[{region_text(tensor, region)}]" for region in regions[:_SHOWN]]
    return " and ".join(texts + ["more"] * (len(regions) > _SHOWN)) or "none"


# --- collectives and turns -------------------------------------------------------------------------------------------


def _named(dag: Dag, function: Function, task: Task) -> Iterator[Diagnostic]:
    """The layer and level of a task that moves a tensor are those of the tensor, and of why it moves."""
    tensor = dag.value[task.inputs[0]].tensor
    plan = dag.plan
    stage, _ = plan.layout.team_of(dag.value[task.outputs[0]].rank)
    layer, level = level_moved(function, tensor, task.op, plan.layout.layers(stage, plan.model).start)
    if (task.layer, task.level) != (layer, level):
        message = f"says layer {task.layer}, level {task.level}; a {task.kind} of {tensor} is of layer {layer}, {level}"
        yield finding("HX414", dag, task, message)


def _gathered(dag: Dag, task: Task) -> Iterator[Diagnostic]:
    """What attention makes is gathered inside the groups first, or across them."""
    layout = dag.plan.layout
    maker = dag.producer.get(task.inputs[0])
    attention = kind_of(dag.value[task.inputs[0]].tensor) == "attention"
    if maker is None or maker.moves or not attention or not isinstance(task.op, AllGather):
        return
    own = dag.tensor[dag.value[task.inputs[0]].tensor].dims[-1]
    merged = "seq" if dag.work.by_rows else own  # by key: of merged lanes
    shared = {"key": merged, "head_dim": own}.get(layout.shared_dim, layout.shared_dim)
    first = shared if layout.gather_order == "slices_first" else "head"
    if min(layout.groups, layout.slices) > 1 and task.op.dim != first:
        yield finding("HX414", dag, task, f"gathers {task.op.dim} first; the layout {layout} gathers {first} first")


def _in_turns(dag: Dag, rank: int) -> Iterator[Diagnostic]:
    """Microbatches follow each other, or take turns up to the next collective, as the layout says."""
    layout = dag.plan.layout
    if layout.microbatches == 1:
        return  # any order of one microbatch is in turn
    _, replica = layout.team_of(rank)
    starts = [layout.microbatch(replica, i, dag.work).joined[0] for i in range(layout.microbatches)]
    turns: list[list[list[str]]] = [[[]] for _ in starts]
    tokens: list[tuple[int, str]] = []  # sent between stages when all microbatches are through
    for name in dag.order[rank]:
        task = dag.task[name]
        if isinstance(task.op, SendReceive) and dag.value[task.inputs[0]].tensor == TOKEN:
            tokens.append((dag.value[task.inputs[0]].region[0][0], name))
            continue
        batch = _batch(dag, [dag.value[value] for value in (*task.outputs, *task.inputs)])
        mine = turns[bisect_right(starts, batch) - 1]
        mine[-1].append(name)
        if task.is_collective:
            mine.append([])
    due: list[str] = []
    for first in range(0, len(turns), layout.interleave):
        for turn in zip_longest(*turns[first : first + layout.interleave], fillvalue=()):
            due += [name for names in turn for name in names]
    due += [name for _, name in sorted(tokens, key=lambda token: token[0])]
    for name, other in zip(dag.order[rank], due, strict=True):
        if name != other:
            message = f"rank {rank} issues it where {other} has its turn, by the layout {layout}"
            yield finding("HX414", dag, dag.task[name], message)
            break


def _batch(dag: Dag, values: Sequence[Value]) -> int:
    """The first sequence of a task's values; of weights, which have none, 0."""
    places = ((value, dag.tensor[value.tensor].dims) for value in values)
    return next((value.region[dims.index("batch")][0] for value, dims in places if "batch" in dims), 0)
