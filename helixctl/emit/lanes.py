"""The geometry of the drawing that svg and html share: a column per GPU, rows by topological generation.

A value lives on one rank, so every dependency is a line inside one column; a collective is what joins columns. All
coordinates are whole pixels from the left end of the first column and the top of the first row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from graphlib import TopologicalSorter
from itertools import groupby, pairwise
from math import prod
from typing import Final, get_args

from helixctl.dag import Activation, Attention, Dag, Level, Linear, Task, Value
from helixctl.emit.heading import team_words
from helixctl.plan import Layout

COLUMN_WIDTH: Final = 58
COLUMN_GAP: Final = 8
_GROUP_GAP: Final = 14  # on top of COLUMN_GAP
_HOST_GAP: Final = 14  # on top of both
_BOX_HEIGHT: Final = 22
_LINK_HEIGHT: Final = 16  # a collective whose ranks are not neighbours: several of them are stacked, so it is thin
_STACK_GAP: Final = 3
_ROW_GAP: Final = 12
_LEVEL_GAP: Final = 8  # on top of _ROW_GAP
_LAYER_GAP: Final = 20  # on top of both
_TOP: Final = 14
_DETOUR: Final = 4  # how far a dependency that passes other tasks leaves its column's middle
_LABEL_LENGTH: Final = 10  # characters that fit in a column

_LEVELS: Final[tuple[str, ...]] = get_args(Level)
_SHORT_KINDS: Final = {"all_gather": "gather", "all_reduce": "reduce"}


Line = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Column:
    """The lane of one GPU."""

    rank: int
    slice: int
    x: int

    @property
    def right(self) -> int:
        """The right end of its boxes."""
        return self.x + COLUMN_WIDTH

    @property
    def middle(self) -> int:
        """Where its dependencies run."""
        return self.x + COLUMN_WIDTH // 2


@dataclass(frozen=True, slots=True)
class Span:
    """A labelled stretch: of columns (a host, a group) or of rows (a layer, a level)."""

    label: str
    start: int
    stop: int
    note: str = ""

    @property
    def middle(self) -> int:
        """Where its label goes."""
        return (self.start + self.stop) // 2


@dataclass(frozen=True, slots=True)
class Box:
    """The place of one task. ``line`` counts the lines of boxes from the top; a row has several where it is stacked."""

    task: Task
    label: str
    ranks: tuple[int, ...]
    line: int
    y: int
    height: int

    @property
    def is_bar(self) -> bool:
        """Whether its columns are neighbours, so that one rectangle covers them and no other."""
        return _are_neighbours(self.ranks)

    @property
    def bottom(self) -> int:
        """The lower end."""
        return self.y + self.height


@dataclass(frozen=True, slots=True)
class Edge:
    """A dependency between two boxes (their indices), and its lines, one a column: corners from top to bottom."""

    source: int
    target: int
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Lanes:
    """The whole drawing, less its ink. Boxes stand in the order of the document; ``device`` is "GPU" or "rank"."""

    device: str
    columns: tuple[Column, ...]
    hosts: tuple[Span, ...]
    groups: tuple[Span, ...]
    layers: tuple[Span, ...]
    levels: tuple[Span, ...]
    captions: tuple[Span, ...]
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class _Row:
    layer: int
    level: Level
    lines: tuple[tuple[Task, ...], ...]


def arrange(dag: Dag, layer: int | None = None) -> Lanes:
    """Place every task of a proved dag, or of one of its layers."""
    tasks = [task for task in dag.tasks if layer is None or task.layer == layer]
    columns = _columns(dag)
    rows = _rows(dag, tasks)
    boxes, layers, levels, captions, height = _place(dag, rows)
    by_id = {box.task.id: box for box in boxes}
    ordered = tuple(by_id[task.id] for task in tasks)
    layout, cluster = dag.plan.layout, dag.plan.cluster
    return Lanes(
        device="GPU" if cluster.device.kind == "cuda" else "rank",
        columns=columns,
        hosts=_spans(columns, [f"host {cluster.host_of(c.rank)}" for c in columns]),
        groups=_spans(
            columns,
            [_group(layout, c.rank) for c in columns],
            ["heads {}:{}".format(*layout.heads(c.rank, dag.plan.model)) for c in columns],
        ),
        layers=layers,
        levels=levels,
        captions=captions,
        boxes=ordered,
        edges=_edges(dag, ordered, columns),
        width=columns[-1].right,
        height=height,
    )


def _group(layout: Layout, rank: int) -> str:
    """``group 1``, and of which stage and replica where there are several."""
    return ", ".join([*team_words(layout, rank), f"group {layout.group_of(rank)}"])


def _rows(dag: Dag, tasks: Sequence[Task]) -> tuple[_Row, ...]:
    """Tasks by topological generation: the same task of all ranks is one row.

    A generation that holds several layers or levels makes as many rows. Tasks that would cover one another are put
    on further lines of the row.
    """
    depth = _generations(dag, tasks)

    def key(task: Task) -> tuple[int, int, int]:
        return depth[task.id], task.layer, _LEVELS.index(task.level)

    rows = groupby(sorted(tasks, key=lambda task: (key(task), min(task.ranks))), key=key)
    return tuple(_Row(layer, _LEVELS[level], _lines(row)) for (_, layer, level), row in rows)  # type: ignore[arg-type]


def _label(dag: Dag, task: Task) -> str:
    """A word or two for a box: "norm", "q k v", "attend", "gelu", "gather"."""
    match task.op:
        case Linear():
            # What it makes says more than "linear" six times over.
            names = " ".join(_tensor_names(task, [dag.value[v] for v in task.outputs]))
            return names if 0 < len(names) <= _LABEL_LENGTH else "linear"
        case Attention():
            return "attend"
        case Activation():
            return task.op.function
        case _:
            return _SHORT_KINDS.get(task.kind, task.kind.replace("_", " "))


def _generations(dag: Dag, tasks: Sequence[Task]) -> dict[str, int]:
    """The length of the longest way to each task."""
    kept = {task.id for task in tasks}
    before = {task.id: [p.id for p in dag.predecessors(task) if p.id in kept] for task in tasks}
    depth: dict[str, int] = {}
    for task_id in TopologicalSorter(before).static_order():
        depth[task_id] = max((depth[p] + 1 for p in before[task_id]), default=0)
    return depth


def _are_neighbours(ranks: tuple[int, ...]) -> bool:
    return ranks[-1] - ranks[0] + 1 == len(ranks)


def _lines(tasks: Iterable[Task]) -> tuple[tuple[Task, ...], ...]:
    """Put each task on the first line where all columns from its first to its last are free."""
    lines: list[list[Task]] = []
    taken: list[set[int]] = []
    for task in tasks:
        span = range(min(task.ranks), max(task.ranks) + 1)
        free = next((i for i, columns in enumerate(taken) if columns.isdisjoint(span)), len(lines))
        if free == len(lines):
            lines.append([])
            taken.append(set())
        lines[free].append(task)
        taken[free].update(span)
    return tuple(tuple(line) for line in lines)


def _columns(dag: Dag) -> tuple[Column, ...]:
    """The columns by rank, further apart where the group or the host changes."""
    layout, cluster = dag.plan.layout, dag.plan.cluster
    columns, x = [Column(0, 0, 0)], 0
    for left, right in pairwise(range(layout.devices)):
        x += COLUMN_WIDTH + COLUMN_GAP
        x += _GROUP_GAP * (layout.group_of(left) != layout.group_of(right))
        x += _HOST_GAP * (cluster.host_of(left) != cluster.host_of(right))
        columns.append(Column(right, layout.slice_of(right), x))
    return tuple(columns)


def _spans(columns: Sequence[Column], labels: Sequence[str], notes: Sequence[str] | None = None) -> tuple[Span, ...]:
    """One span for each run of equal labels."""
    spans = []
    marked = zip(columns, labels, notes or [""] * len(labels), strict=True)
    for (label, note), run in groupby(marked, key=lambda item: item[1:]):
        members = [column for column, _, _ in run]
        spans.append(Span(label, members[0].x, members[-1].right, note))
    return tuple(spans)


def _place(
    dag: Dag, rows: Sequence[_Row]
) -> tuple[list[Box], tuple[Span, ...], tuple[Span, ...], tuple[Span, ...], int]:
    """Go down the rows: boxes, layer bands, level bands, captions, and the height of it all."""
    boxes: list[Box] = []
    stretches: list[tuple[_Row, int, int]] = []
    captions: list[Span] = []
    y, line_number, above = _TOP, 0, None
    for row in rows:
        if above is not None:
            y += _ROW_GAP
            y += _LEVEL_GAP * ((above.layer, above.level) != (row.layer, row.level))
            y += _LAYER_GAP * (above.layer != row.layer)
        above, top = row, y
        for line in row.lines:
            boxes_of_line = [_box(dag, task, line_number, y) for task in line]
            boxes += boxes_of_line
            y += max(box.height for box in boxes_of_line) + _STACK_GAP
            line_number += 1
        y -= _STACK_GAP
        stretches.append((row, top, y))
        captions.append(Span(_caption(dag, [task for line in row.lines for task in line]), top, y))
    levels = _bands((f"{row.layer} {row.level}", row.level, top, bottom) for row, top, bottom in stretches)
    layers = _bands((str(row.layer), f"layer {row.layer}", top, bottom) for row, top, bottom in stretches)
    return boxes, layers, levels, tuple(captions), y + _TOP


def _box(dag: Dag, task: Task, line: int, y: int) -> Box:
    ranks = tuple(sorted(set(task.ranks)))
    return Box(task, _label(dag, task), ranks, line, y, _BOX_HEIGHT if _are_neighbours(ranks) else _LINK_HEIGHT)


def _bands(stretches: Iterable[tuple[str, str, int, int]]) -> tuple[Span, ...]:
    """One span for each run of stretches (key, label, top, bottom) with the same key."""
    bands = []
    for _, run in groupby(stretches, key=lambda stretch: stretch[0]):
        parts = list(run)
        bands.append(Span(parts[0][1], parts[0][2], parts[-1][3]))
    return tuple(bands)


def _caption(dag: Dag, tasks: Sequence[Task]) -> str:
    """What every GPU of a row holds after it: "attention 1/4"; of one tensor that is cut unevenly "23 % to 27 %"."""
    outputs = [dag.value[v] for task in tasks for v in task.outputs]
    shares = {_share(dag, value) for value in outputs}
    names = _tensor_names(tasks[0], outputs)
    if len(shares) == 1:
        return f"{_listed(names)}: {shares.pop()}"
    if len(names) > 1:
        return _listed(names)
    sizes = [value.numel / prod(dag.tensor[value.tensor].shape) for value in outputs]
    return f"{names[0]}: {min(sizes):.0%} to {max(sizes):.0%}"


def _listed(names: Sequence[str]) -> str:
    """``q, k, v biased`` for q_biased, k_biased and v_biased."""
    first, ends = zip(*((name.partition("_")[0], name.partition("_")[2]) for name in names), strict=True)
    if len(names) > 1 and len(set(ends)) == 1 and ends[0]:
        return f"{', '.join(first)} {ends[0]}"
    return ", ".join(names)


def _share(dag: Dag, value: Value) -> str:
    if value.partial:
        return "partial sum"
    whole = prod(dag.tensor[value.tensor].shape)
    return "whole" if value.numel == whole else str(Fraction(value.numel, whole))


def _tensor_names(task: Task, values: Iterable[Value]) -> list[str]:
    """The tensors of some values, each once, without the layer that the drawing shows anyway."""
    return list(dict.fromkeys(value.tensor.removeprefix(f"l{task.layer}.") for value in values))


def _edges(dag: Dag, boxes: Sequence[Box], columns: Sequence[Column]) -> tuple[Edge, ...]:
    """A line for every value that one drawn task makes and another reads, in the column of the value's rank."""
    index = {box.task.id: i for i, box in enumerate(boxes)}
    step: dict[tuple[int, int], int] = {}  # (box, rank) -> the how-manieth box of that column
    for column in columns:
        members = sorted((box.line, i) for i, box in enumerate(boxes) if column.rank in box.ranks)
        step.update({(i, column.rank): n for n, (_, i) in enumerate(members)})
    edges = []
    for target, box in enumerate(boxes):
        lines: dict[int, dict[Line, None]] = {}
        for value_id in box.task.inputs:
            producer = dag.producer.get(value_id)
            rank = dag.value[value_id].rank
            source = index.get(producer.id, -1) if producer else -1
            if (source, rank) in step and (target, rank) in step:
                adjoining = step[target, rank] - step[source, rank] == 1
                line = _line(columns[rank], boxes[source].bottom, box.y, adjoining=adjoining)
                lines.setdefault(source, {})[line] = None  # Q, K and V of one rank are one line
        edges += [Edge(source, target, tuple(found)) for source, found in lines.items()]
    return tuple(edges)


def _line(column: Column, top: int, bottom: int, *, adjoining: bool) -> Line:
    """Straight down, or along the side of the column where other tasks stand between the two."""
    if adjoining:
        return ((column.middle, top), (column.middle, bottom))
    start, side = column.right - 2 * _DETOUR, column.right + COLUMN_GAP // 2
    left, right = top + _DETOUR, bottom - _DETOUR
    return ((start, top), (start, left), (side, left), (side, right), (start, right), (start, bottom))
