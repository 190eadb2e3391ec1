"""What a page leaves out of a large plan, because it is a copy of what is drawn: layers, replicas, microbatches.

Lowering does the same for every layer of one kind, for every replica and for every microbatch. A fold says which of
them are drawn and what they stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from helixctl.dag import Dag, Task
from helixctl.emit.labels import Labels
from helixctl.plan import Plan
from helixctl.records import record

# Fewer layers than that are drawn, not folded: a fold takes the room of one.
_FEWEST: Final = 3
# The longest pattern of layers that is looked for (five layers with a window, one without).
_LONGEST: Final = 12


@record
class Fold:
    """Layers that repeat drawn ones.

    Attributes:
        hidden: the layers, without a gap.
        like: the layers before them that they repeat, one after another.
    """

    hidden: range
    like: range

    @property
    def times(self) -> int:
        """How many times the drawn layers are repeated."""
        return len(self.hidden) // len(self.like)

    @property
    def label(self) -> str:
        """``layers 2-78 are like layer 1: x 77``."""
        if len(self.like) == 1:
            return f"layers {_ends(self.hidden)} are like layer {self.like[0]}: x {self.times} more"
        return f"layers {_ends(self.hidden)} repeat layers {_ends(self.like)}: x {self.times} more"


@record
class Folds:
    """What is drawn of a plan, and what it stands for.

    Attributes:
        layers: the folds of layers, from the first layer to the last.
        replicas: those that are drawn: the first, with all that share its experts.
        of_replicas: how many there are.
        microbatches: those that are drawn.
        of_microbatches: how many there are.
    """

    layers: tuple[Fold, ...]
    replicas: range
    of_replicas: int
    microbatches: range
    of_microbatches: int


def layer_folds(plan: Plan) -> tuple[Fold, ...]:
    """The layers that repeat others of their stage.

    The first layer of a stage receives what enters it, and the last of the model has its head: they are alike none.
    """
    model, found = plan.model, list[Fold]()
    for stage in range(plan.layout.pipeline):
        layers = plan.layout.layers(stage, model)
        inner = [layer for layer in layers if layer != layers[0] and layer != model.layers - 1]
        found += _repeats(inner, [model.kind(layer) for layer in inner])
    return tuple(found)


def _repeats(layers: Sequence[int], kinds: Sequence[str]) -> Iterator[Fold]:
    """From the left, at each layer the pattern that leaves out most layers; of equal ones the shortest."""
    at = 0
    while at < len(layers):
        found = {n: _repeated(kinds, at, n) * n for n in range(1, min(_LONGEST, len(layers) - at) + 1)}
        length = max(found, key=lambda n: (found[n], -n))
        if found[length] < _FEWEST:
            at += 1
            continue
        first, stop = layers[at], layers[at] + length
        yield Fold(range(stop, stop + found[length]), range(first, stop))
        at += length + found[length]


def _repeated(kinds: Sequence[str], at: int, length: int) -> int:
    """How often a pattern of this length follows itself."""
    pattern, times = kinds[at : at + length], 0
    while kinds[at + (times + 1) * length : at + (times + 2) * length] == pattern:
        times += 1
    return times


def drawn_layers(plan: Plan, folds: Sequence[Fold]) -> list[int]:
    """The layers that no fold hides."""
    hidden = {layer for fold in folds for layer in fold.hidden}
    return [layer for layer in range(plan.model.layers) if layer not in hidden]


def drawn_ranks(plan: Plan) -> list[int]:
    """The ranks of the first replica, and of those that share its experts."""
    layout = plan.layout
    return [rank for rank in range(layout.devices) if layout.team_of(rank)[1] < layout.expert_data]


def folds_of(plan: Plan, most: int, about: Callable[[Plan, list[int], list[int], range], int]) -> Folds:
    """What is drawn of a large plan: of microbatches two rounds, or one, or the first alone, so that it stays small.

    Args:
        plan: the plan.
        most: the tasks that several microbatches may have.
        about: estimates the number of tasks of some ranks, layers and microbatches.
    """
    layers, every, turns = layer_folds(plan), plan.layout.microbatches, plan.layout.interleave
    ranks, drawn = drawn_ranks(plan), drawn_layers(plan, layers)
    several = [range(min(count, every)) for count in (2 * turns, turns)]
    parts = next((parts for parts in several if about(plan, ranks, drawn, parts) <= most), range(1))
    return Folds(layers, range(plan.layout.expert_data), plan.layout.data, parts, every)


def restricted(dag: Dag, folds: Folds) -> Dag:
    """The tasks of a dag that are drawn, with their values; no document."""
    plan, labels = dag.plan, Labels(dag)
    layers, ranks = set(drawn_layers(plan, folds.layers)), set(drawn_ranks(plan))

    def is_drawn(task: Task) -> bool:
        part = labels.microbatch(task)
        return task.layer in layers and ranks.issuperset(task.ranks) and (part is None or part in folds.microbatches)

    tasks = tuple(task for task in dag.tasks if is_drawn(task))
    kept, ends = {task.id for task in tasks}, {value for task in tasks for value in (*task.inputs, *task.outputs)}
    order = tuple(tuple(name for name in its if name in kept) for its in dag.order)
    values = tuple(value for value in dag.values if value.id in ends)
    return replace(dag, plan_digest="", values=values, tasks=tasks, order=order)


def joined(dag: Dag) -> Dag:
    """A dag without some layers, in which the layer after a fold reads what the last drawn layer before it made.

    What enters a layer whose predecessor is left out is given; the last of the layers that it repeats makes the like.
    """
    made: dict[tuple[str, int, object], dict[int, str]] = {}
    for task in dag.tasks:
        for value in (dag.value[name] for name in task.outputs):
            layer, name = _parts(value.tensor)
            if layer is not None:
                made.setdefault((name, value.rank, value.region), {})[layer] = value.id
    instead: dict[str, str] = {}
    for value in dag.values:
        layer, name = _parts(value.tensor)
        if layer is None or value.id in dag.producer or dag.tensor[value.tensor].role != "activation":
            continue
        alike = made.get((name, value.rank, value.region), {})
        if before := [found for found in alike if found < layer]:
            instead[value.id] = alike[max(before)]
    tasks = tuple(
        replace(task, inputs=tuple(instead.get(name, name) for name in task.inputs))
        if any(name in instead for name in task.inputs)
        else task
        for task in dag.tasks
    )
    return replace(dag, tasks=tasks, values=tuple(value for value in dag.values if value.id not in instead))


def _parts(tensor: str) -> tuple[int | None, str]:
    """The layer of a tensor, and its name without it: ``l12.output`` -> 12, ``output``."""
    layer, dot, name = tensor.partition(".")
    return (int(layer[1:]), name) if dot and layer[:1] == "l" and layer[1:].isdigit() else (None, tensor)


def sentences(plan: Plan, folds: Folds) -> list[str]:
    """What is drawn of each axis that is not drawn whole."""
    found, layers = [], len(drawn_layers(plan, folds.layers))
    if layers < plan.model.layers:
        found.append(f"{layers} of {plan.model.layers} layers")
    if len(folds.replicas) < folds.of_replicas:
        found.append(f"{_these('replica', folds.replicas)} of {folds.of_replicas}")
    if len(folds.microbatches) < folds.of_microbatches:
        found.append(f"{_these('microbatch', folds.microbatches)} of {folds.of_microbatches}")
    return found


def beside(folds: Folds | None) -> str:
    """The words beside the columns of replicas that stand for others; none if all are drawn."""
    if folds is None or len(folds.replicas) == folds.of_replicas:
        return ""
    others = range(len(folds.replicas), folds.of_replicas)
    are = "are" if len(others) > 1 else "is"
    return f"{_these('replica', others)} {are} like {_these('replica', folds.replicas)}"


def _these(noun: str, numbers: range) -> str:
    plural = "es" if noun.endswith("ch") else "s"
    return f"{noun}{plural if len(numbers) > 1 else ''} {_ends(numbers)}"


def _ends(numbers: range) -> str:
    return f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
