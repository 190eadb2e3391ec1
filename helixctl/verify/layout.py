"""Layout: every rank owns and makes what the plan's layout gives it, where, in the order and by the name it says.

The other proofs show that the dag computes the model. This one shows that it does so as its plan says: what reports and
predictions call "4 x 4, pipeline 2" is 4 x 4 in two stages.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Final

from helixctl.dag import AllGather, AllToAll, Dag, SendReceive, Task, Tensor, Value
from helixctl.dag.function import Function, function_of, input_of
from helixctl.errors import Diagnostic
from helixctl.plan import Interval, Plan
from helixctl.verify.findings import finding, region_text

Region = tuple[Interval, ...]
Part = tuple[str, int]  # a tensor on a rank
Cut = Mapping[str, Interval]

_SHOWN: Final = 2
_SUFFIXES: Final = ("", "_biased", "_normed", "_rotated")
_PROJECTED: Final = {f"{x}_{n}" for x in "wb" for n in "qkv"} | {n + s for n in "qkv" for s in _SUFFIXES[:2]}
_KEYS: Final = {"k" + suffix for suffix in _SUFFIXES[2:]}
_ATTENDED: Final = {"attention"} | {"q" + suffix for suffix in _SUFFIXES[2:]}
_FEED_FORWARD: Final = {"w_gate", "w_up", "w_down", "gate", "up", "activated", "inner"}
_VOCABULARY: Final = {"embedding", "w_head", "logits"}


def check_layout(dag: Dag) -> Iterator[Diagnostic]:
    """What ranks own and make is their share (HX414); then, how they gather it and take turns."""
    function = function_of(dag.plan.model, dag.plan.workload)
    want, have = _due(dag.plan, function), _had(dag)
    wrong: dict[str, int] = {}
    for name, rank in sorted(want.keys() | have.keys()):
        if name not in wrong and want.get((name, rank)) != have.get((name, rank)):
            wrong[name] = rank
            due, found = (_texts(dag.tensor[name], regions.get((name, rank), [])) for regions in (want, have))
            message = f"rank {rank} has {found} of {name}; the layout {dag.plan.layout} gives it {due}"
            yield Diagnostic("HX414", message, path=_row(dag, name, rank))
    if wrong:
        return  # what follows asks for the microbatch of a task
    for task in dag.tasks:
        if task.is_collective:
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
    moved = {value for task in dag.tasks if task.is_collective for value in task.outputs}
    found: dict[Part, list[Region]] = defaultdict(list)
    for value in dag.values:
        if value.id not in moved:
            found[value.tensor, value.rank].append(value.region)
    return {part: sorted(regions) for part, regions in found.items()}


def _due(plan: Plan, function: Function) -> dict[Part, list[Region]]:
    """What they would be by the layout."""
    layout, given = plan.layout, input_of(plan.model)
    stages: dict[str, set[int]] = defaultdict(set)
    stage_of = {layer: stage for stage in range(layout.pipeline) for layer in layout.layers(stage, plan.model)}
    for equation in function.equations:
        for name in (*equation.inputs, *equation.outputs):
            # What is given is where it is read; the model's input is on one rank, which sends it to the others.
            if name in equation.outputs or (name != given and function.tensors[name].role in {"input", "weight"}):
                stages[name].add(stage_of[equation.layer])
    found: dict[Part, list[Region]] = {}
    for rank in range(layout.devices):
        stage, replica = layout.team_of(rank)
        parts = [layout.batch(replica, i, plan.workload) for i in range(layout.microbatches)]
        alike: dict[str, list[Region]] = {}  # the regions of a tensor are those of its likes in other layers
        for name, tensor in function.tensors.items():
            if stage in stages[name] or (name == given and rank == layout.team(0, replica)[0]):
                kind = name.rpartition(".")[2]
                if kind not in alike:
                    each = parts if "batch" in tensor.dims else parts[:1]
                    alike[kind] = sorted(_region(plan, tensor, kind, rank, part) for part in each)
                found[name, rank] = alike[kind]
    return found


def _region(plan: Plan, tensor: Tensor, kind: str, rank: int, batch: Interval) -> Region:
    cut = {"batch": batch, **_cut(plan, kind, rank, batch)}
    return tuple([cut.get(dim, whole) for dim, whole in zip(tensor.dims, tensor.full, strict=True)])


def _cut(plan: Plan, name: str, rank: int, batch: Interval) -> Cut:
    """The interval of every dim that is not whole on a rank, of tensors of some name (docs/formats.md, "Plan")."""
    layout, model = plan.layout, plan.model
    heads = {"head": layout.heads(rank, model), "kv_head": layout.key_heads(rank, model)}
    dims = {"head_dim": layout.head_dims(rank, model)}
    cut: Cut = {}
    if name in _PROJECTED or (name == "w_o" and layout.combine == "reduce"):
        cut = heads | dims
    elif name in _ATTENDED | _KEYS:
        match layout.shared_dim:
            case "batch":
                cut = heads | {"batch": layout.sequences(rank, batch)}
            case "seq":
                cut = heads | ({} if name in _KEYS else {"seq": layout.rows(rank, model, plan.workload)})
            case _:
                cut = heads | dims
    elif name in {"w_o", "projection"} and layout.combine == "concat":
        cut = {"hidden": layout.columns(rank, model)}
    elif name in _FEED_FORWARD:
        experts = model.feed_forward.experts
        cut = {"ffn": layout.ffn(rank, model)}
        cut |= {"expert": layout.experts_of(rank, experts.count)} if experts else {}
    elif name in _VOCABULARY and model.vocabulary:
        cut = {"vocab": layout.vocabulary(rank, model.vocabulary.size)}
    return cut


def _texts(tensor: Tensor, regions: Sequence[Region]) -> str:
    texts = [f"[{region_text(tensor, region)}]" for region in regions[:_SHOWN]]
    return " and ".join(texts + ["more"] * (len(regions) > _SHOWN)) or "none"


# --- collectives and turns -------------------------------------------------------------------------------------------


def _named(dag: Dag, function: Function, task: Task) -> Iterator[Diagnostic]:
    """A collective's layer and level are those of what it moves, and why."""
    tensor = dag.value[task.inputs[0]].tensor
    maker = function.defining.get(tensor)
    layer, level = (maker.layer, maker.level) if maker else (0, "embed" if tensor == "input_ids" else "distribute")
    if isinstance(task.op, SendReceive):
        layer, level = layer + 1, "transfer"
    elif level == "distribute" and maker:
        level = "exchange"
    elif level == "attend":
        level = "project" if isinstance(task.op, AllToAll) else "concat"
    if (task.layer, task.level) != (layer, level):
        message = f"says layer {task.layer}, level {task.level}; a {task.kind} of {tensor} is of layer {layer}, {level}"
        yield finding("HX414", dag, task, message)


def _gathered(dag: Dag, task: Task) -> Iterator[Diagnostic]:
    """What attention makes is gathered inside the groups first, or across them."""
    layout = dag.plan.layout
    maker = dag.producer.get(task.inputs[0])
    if maker is None or maker.kind != "attention" or not isinstance(task.op, AllGather):
        return
    first = layout.shared_dim if layout.gather_order == "slices_first" else "head"
    if min(layout.groups, layout.slices) > 1 and task.op.dim != first:
        yield finding("HX414", dag, task, f"gathers {task.op.dim} first; the layout {layout} gathers {first} first")


def _in_turns(dag: Dag, rank: int) -> Iterator[Diagnostic]:
    """Microbatches follow each other, or take turns up to the next collective, as the layout says."""
    layout = dag.plan.layout
    _, replica = layout.team_of(rank)
    starts = [layout.batch(replica, i, dag.plan.workload)[0] for i in range(layout.microbatches)]
    turns: list[list[list[str]]] = [[[]] for _ in starts]
    for name in dag.order[rank]:
        task = dag.task[name]
        batch = _batch(dag, [dag.value[value] for value in (*task.outputs, *task.inputs)])
        mine = turns[bisect_right(starts, batch) - 1]
        mine[-1].append(name)
        if task.is_collective:
            mine.append([])
    due: list[str] = []
    for first in range(0, len(turns), layout.interleave):
        for turn in zip_longest(*turns[first : first + layout.interleave], fillvalue=()):
            due += [name for names in turn for name in names]
    for name, other in zip(dag.order[rank], due, strict=True):
        if name != other:
            message = f"rank {rank} issues it where {other} has its turn, by the layout {layout}"
            yield finding("HX414", dag, dag.task[name], message)
            break


def _batch(dag: Dag, values: Sequence[Value]) -> int:
    """The first sequence of a task's values; of weights, which have none, 0."""
    places = ((value, dag.tensor[value.tensor].dims) for value in values)
    return next((value.region[dims.index("batch")][0] for value, dims in places if "batch" in dims), 0)
