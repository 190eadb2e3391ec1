"""The words of the drawing: on the boxes, and beside the rows.

A label on a bar has several forms, and the longest one that fits is drawn. The labels on single columns determine the
width of a column.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import prod
from typing import Final

from helixctl.dag import Activation, AllGather, AllReduce, Attention, Broadcast, Dag, Linear, SendReceive, Task, Value
from helixctl.dag.ops import wire_kind
from helixctl.emit.columns import device_word
from helixctl.emit.text_width import fit, text_width

LABEL_SIZE: Final = 10  # of the labels on boxes, in pixels
CAPTION_SIZE: Final = 11
PADDING: Final = 3  # between a box and its label
_LONGEST_CAPTION: Final = 320
_LONGEST_NAMES: Final = 52  # of tensors on a box, in pixels
_SHORT_KINDS: Final = {
    "all_gather": "gather",
    "all_reduce": "reduce",
    "rotate_at": "rotate",
    "scale_by": "scale",
    "scale_queries": "scale",
    "cached_attention": "attend",
    "partial_attention": "attend",
    "cached_select": "select",
    "partial_select": "select",
    "merge_select": "select",
}


class Labels:
    """The labels of the boxes of one dag."""

    def __init__(self, dag: Dag) -> None:
        """Find the first sequence of every microbatch."""
        layout, workload = dag.plan.layout, dag.plan.workload
        self._dag = dag
        self._device = device_word(dag)
        parts = range(layout.microbatches)
        self._starts = [
            [layout.microbatch(replica, m, workload).joined[0] for m in parts] for replica in range(layout.data)
        ]
        several = layout.microbatches > 1
        self.number_width = text_width(str(layout.microbatches - 1), LABEL_SIZE) + 2 * PADDING if several else 0

    def microbatch(self, task: Task) -> int | None:
        """The number of the microbatch that a task works on; None if there is only one."""
        if not self.number_width:
            return None
        value = self._dag.value[task.outputs[0]]
        _, replica = self._dag.plan.layout.team_of(value.rank)
        first, _ = value.region[self._dag.tensor[value.tensor].dims.index("batch")]
        return bisect_right(self._starts[replica], first) - 1

    def width(self, task: Task) -> int:
        """The width that a column needs for the label of a task."""
        widest = max(text_width(label, LABEL_SIZE, bold=task.is_collective) for label in self.on_columns(task))
        return widest + self.number_width + 2 * PADDING

    def on_columns(self, task: Task) -> tuple[str, ...]:
        """The label on each column of a task, by rank: one or a few words, such as "norm", "q k v" or "gather"."""
        if isinstance(task.op, SendReceive):
            sender, receiver = task.ranks
            return ("send", "receive") if sender < receiver else ("receive", "send")
        return (self._word(task),) * len(task.ranks)

    def on_bar(self, task: Task, width: int) -> str:
        """The longest label that fits a bar over all columns of a task."""
        room = width - self.number_width - 2 * PADDING
        *longer, shortest = self._forms(task)
        fitting = (label for label in longer if text_width(label, LABEL_SIZE, bold=task.is_collective) <= room)
        return next(fitting, fit(shortest, room, LABEL_SIZE, bold=task.is_collective))

    def _word(self, task: Task) -> str:
        match task.op:
            case Linear():
                # The names of its outputs distinguish the linear tasks of a layer.
                names = " ".join(_tensor_names(task, [self._dag.value[v] for v in task.outputs]))
                return names if 0 < text_width(names, LABEL_SIZE) <= _LONGEST_NAMES else "linear"
            case Attention():
                return "attend"
            case Activation():
                return task.op.function
            case _:
                kind = wire_kind(task.op)
                return _SHORT_KINDS.get(kind, kind.replace("_", " "))

    def _forms(self, task: Task) -> tuple[str, ...]:
        """The label of a bar in several forms, the longest first."""
        word = self._word(task)
        if len(task.ranks) == 1:
            return (word,)
        name = _listed(_tensor_names(task, [self._dag.value[v] for v in task.outputs]))
        over = f"over {len(task.ranks)} {self._device}s"
        match task.op:
            case Broadcast():
                origin = f"from {self._device} {task.ranks[0]}"
                return (f"{word} {name} {origin}", f"{word} {origin}", word)
            case AllGather(dim=dim):
                return (f"{word} {name} along {dim}", f"{word} along {dim}", f"{word} {name}", word)
            case AllReduce():
                return (f"{word} {name} {over}", f"{word} {over}", f"{word} {name}", word)
            case SendReceive():
                return (f"send to {self._device} {task.ranks[1]}", "send")
            case _:
                return (f"{word} of {name} {over}", f"{word} of {name}", word)


def caption(dag: Dag, tasks: Sequence[Task]) -> str:
    """What every GPU holds after a row: "attention: 1/4", or for a tensor that is cut unevenly "down: 23% to 27%"."""
    shares: dict[str, list[str]] = {}
    for name, values in _by_tensor(dag, tasks).items():
        shares.setdefault(_share(dag, values), []).append(name)
    text = "; ".join(f"{_listed(names)}: {share}" for share, names in shares.items())
    return fit(text, _LONGEST_CAPTION, CAPTION_SIZE)


def _by_tensor(dag: Dag, tasks: Sequence[Task]) -> dict[str, list[Value]]:
    """The values that some tasks make, by tensor."""
    found: dict[str, list[Value]] = {}
    for task in tasks:
        for value in (dag.value[v] for v in task.outputs):
            found.setdefault(_name(task, value), []).append(value)
    return found


def _listed(names: Sequence[str]) -> str:
    """``q, k, v biased`` for q_biased, k_biased and v_biased."""
    first, ends = zip(*((name.partition("_")[0], name.partition("_")[2]) for name in names), strict=True)
    if len(names) > 1 and len(set(ends)) == 1 and ends[0]:
        return f"{', '.join(first)} {ends[0]}"
    return ", ".join(names)


def _share(dag: Dag, values: Sequence[Value]) -> str:
    """Which part of a tensor the values are."""
    if all(value.partial for value in values):
        return "partial sum"
    whole = prod(dag.tensor[values[0].tensor].shape)
    smallest, largest = min(value.numel for value in values), max(value.numel for value in values)
    if smallest != largest:
        return f"{smallest / whole:.0%} to {largest / whole:.0%}"
    return "whole" if smallest == whole else str(Fraction(smallest, whole))


def _tensor_names(task: Task, values: Iterable[Value]) -> list[str]:
    """The tensors of some values, each once."""
    return list(dict.fromkeys(_name(task, value) for value in values))


def _name(task: Task, value: Value) -> str:
    """The name of a tensor without the layer that the drawing shows anyway."""
    return value.tensor.removeprefix(f"l{task.layer}.")
