"""The geometry of the drawing that svg and html share: a column per GPU, rows by topological generation.

A value lives on one rank, so every dependency is a line inside one column; a collective is what joins columns. All
coordinates are whole pixels from the left end of the first column and the top of the first row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter
from itertools import groupby
from typing import Final, get_args

from helixctl.dag import Dag, Level, Task
from helixctl.emit.columns import COLUMN_GAP, Column, Heading, Stretch, device_word, head_columns
from helixctl.emit.folds import Fold
from helixctl.emit.labels import CAPTION_SIZE, Labels, caption
from helixctl.emit.text_width import text_width
from helixctl.records import record

_BOX_HEIGHT: Final = 22
_LINK_HEIGHT: Final = 16  # of a collective whose ranks are not neighbours: it is thin, because several are stacked
_STACK_GAP: Final = 3
_ROW_GAP: Final = 12
_LEVEL_GAP: Final = 8  # on top of _ROW_GAP
_LAYER_GAP: Final = 20  # on top of both
_BAR_HEIGHT: Final = 24
_TOP: Final = 14
_DETOUR: Final = 4  # how far a dependency that passes other tasks leaves its column's middle

_LEVELS: Final[tuple[str, ...]] = get_args(Level)


Line = tuple[tuple[int, int], ...]


@record
class Box:
    """The box of one task.

    Attributes:
        task: the task.
        labels: the one label of a bar, or the label on each rank's column.
        microbatch: the number of its microbatch; None if there is only one.
        ranks: its ranks, ascending.
        is_bar: its columns are neighbours, so that one rectangle covers them and no other.
        line: the number of its line of boxes, from the top; a row of stacked tasks has several lines.
        y, height: its upper edge and its height, in pixels.
    """

    task: Task
    labels: tuple[str, ...]
    microbatch: int | None
    ranks: tuple[int, ...]
    is_bar: bool
    line: int
    y: int
    height: int

    @property
    def bottom(self) -> int:
        """The lower edge."""
        return self.y + self.height


@record
class Edge:
    """A dependency between two boxes.

    Attributes:
        source, target: the indices of the boxes.
        lines: a line for each column that the dependency is in, as corners from top to bottom.
    """

    source: int
    target: int
    lines: tuple[Line, ...]


@record
class Bar:
    """A bar over all columns that stands for layers.

    Attributes:
        fold: what it stands for.
        y, height: its upper edge and its height, in pixels.
        hidden: the rows of these layers that are drawn, from and to in pixels; a page hides them until it is opened.
    """

    fold: Fold
    y: int
    height: int
    hidden: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Lanes:
    """The geometry of the whole drawing, in pixels.

    Attributes:
        columns, heading: the columns, and what is above them.
        layers, levels: the ranges of rows of each layer and each level.
        captions: what every GPU holds after each row.
        holds: the title of the captions.
        captions_width: the largest width of the captions and their title.
        number_width: the room for the number of a microbatch at the left end of a box.
        boxes: the tasks, in the order of the document.
        edges: the dependencies.
        bars: the folds of layers.
        beside: the words on a strip to the right of the columns, which stands for replicas; none without one.
        width, height: the size of the area of the boxes.
    """

    columns: tuple[Column, ...]
    heading: Heading
    layers: tuple[Stretch, ...]
    levels: tuple[Stretch, ...]
    captions: tuple[Stretch, ...]
    holds: str
    captions_width: int
    number_width: int
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    bars: tuple[Bar, ...]
    beside: str
    width: int
    height: int

    @cached_property
    def column(self) -> dict[int, Column]:
        """The columns by rank."""
        return {column.rank: column for column in self.columns}


@record
class _Row:
    layer: int
    level: Level
    lines: tuple[tuple[Task, ...], ...]


@dataclass(slots=True)
class _Placed:
    """What is placed from top to bottom."""

    boxes: list[Box] = field(default_factory=list)
    extents: list[tuple[_Row, int, int]] = field(default_factory=list)
    captions: list[Stretch] = field(default_factory=list)
    bars: list[tuple[Fold, int]] = field(default_factory=list)
    height: int = 0


def arrange(dag: Dag, layer: int | None = None, folds: Sequence[Fold] = (), beside: str = "") -> Lanes:
    """Place every task of a proved dag.

    Args:
        dag: the dag, or a part of one.
        layer: place the tasks of this layer only; None places all. Ranks without any of them have no column.
        folds: layers that a bar stands for, whether the dag has them or not.
        beside: what is left out to the right of the columns, in words.
    """
    tasks = [task for task in dag.tasks if layer is None or task.layer == layer]
    rows, labels = _rows(dag, tasks), Labels(dag)
    ranks = sorted({rank for task in tasks for rank in task.ranks}) or list(range(len(dag.order)))
    columns, heading = head_columns(dag, _box_width(tasks, labels, ranks), ranks)
    placed = _place(dag, rows, columns, labels, folds)
    boxes, captions = placed.boxes, placed.captions
    by_id = {box.task.id: box for box in boxes}
    ordered = tuple(by_id[task.id] for task in tasks)
    holds = f"each {device_word(dag)} then holds"
    layers = _bands((str(row.layer), f"layer {row.layer}", top, bottom) for row, top, bottom in placed.extents)
    levels = _bands((f"{row.layer} {row.level}", row.level, top, bottom) for row, top, bottom in placed.extents)
    return Lanes(
        columns=columns,
        heading=heading,
        layers=layers,
        levels=levels,
        captions=tuple(captions),
        holds=holds,
        captions_width=max(text_width(text, CAPTION_SIZE) for text in (holds, *(c.label for c in captions))),
        number_width=labels.number_width,
        boxes=ordered,
        edges=_edges(dag, ordered, columns),
        bars=tuple(_bar(fold, y, placed) for fold, y in placed.bars),
        beside=beside,
        width=columns[-1].right,
        height=placed.height,
    )


def _box_width(tasks: Sequence[Task], labels: Labels, ranks: Sequence[int]) -> int:
    """The width that a column needs for the widest label of a box in one column."""
    at = {rank: place for place, rank in enumerate(ranks)}
    narrow = (task for task in tasks if len(task.ranks) == 1 or not _are_neighbours([at[r] for r in _ascending(task)]))
    return max((labels.width(task) for task in narrow), default=0)


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


def _generations(dag: Dag, tasks: Sequence[Task]) -> dict[str, int]:
    """The length of the longest path to each task."""
    kept = {task.id for task in tasks}
    before = {task.id: [p.id for p in dag.predecessors(task) if p.id in kept] for task in tasks}
    depth: dict[str, int] = {}
    for task_id in TopologicalSorter(before).static_order():
        depth[task_id] = max((depth[p] + 1 for p in before[task_id]), default=0)
    return depth


def _ascending(task: Task) -> tuple[int, ...]:
    return tuple(sorted(set(task.ranks)))


def _are_neighbours(places: Sequence[int]) -> bool:
    return places[-1] - places[0] + 1 == len(places)


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


def _place(dag: Dag, rows: Sequence[_Row], columns: Sequence[Column], labels: Labels, folds: Sequence[Fold]) -> _Placed:
    """Place the rows from top to bottom, and a bar for every fold behind the last row of the layers that it is like."""
    placed, by_rank = _Placed(), {column.rank: (place, column) for place, column in enumerate(columns)}
    last = {row.layer: number for number, row in enumerate(rows)}
    ends = {last[fold.like[-1]]: fold for fold in folds if fold.like[-1] in last}
    y, line_number, above = _TOP, 0, None
    for number, row in enumerate(rows):
        if above is not None:
            y += _ROW_GAP
            y += _LEVEL_GAP * ((above.layer, above.level) != (row.layer, row.level))
            y += _LAYER_GAP * (above.layer != row.layer)
        above, top = row, y
        for line in row.lines:
            boxes = [_box(task, by_rank, labels, line_number, y) for task in line]
            placed.boxes += boxes
            y += max(box.height for box in boxes) + _STACK_GAP
            line_number += 1
        y -= _STACK_GAP
        placed.extents.append((row, top, y))
        placed.captions.append(Stretch(caption(dag, [task for line in row.lines for task in line]), top, y))
        if number in ends:
            y += _LAYER_GAP
            placed.bars.append((ends[number], y))
            y += _BAR_HEIGHT
    placed.height = y + _TOP
    return placed


def _bar(fold: Fold, y: int, placed: _Placed) -> Bar:
    """The bar of a fold, with the rows that it hides: each to the top of the next, so that no gap is left."""
    tops = [top for _, top, _ in placed.extents]
    bottoms = [*tops[1:], placed.height - _TOP]
    spans = zip(placed.extents, bottoms, strict=True)
    hidden = [(top, bottom) for (row, top, _), bottom in spans if row.layer in fold.hidden]
    return Bar(fold, y, _BAR_HEIGHT, tuple(_merged(hidden)))


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans from top to bottom, those that touch as one."""
    found: list[tuple[int, int]] = []
    for top, bottom in spans:
        touches = found and found[-1][1] == top
        found[-1:] = [(found[-1][0], bottom)] if touches else [*found[-1:], (top, bottom)]
    return found


def _box(task: Task, columns: Mapping[int, tuple[int, Column]], labels: Labels, line: int, y: int) -> Box:
    ranks = _ascending(task)
    is_bar = _are_neighbours([columns[rank][0] for rank in ranks])
    width = columns[ranks[-1]][1].right - columns[ranks[0]][1].x
    words = (labels.on_bar(task, width),) if is_bar else labels.on_columns(task)
    return Box(task, words, labels.microbatch(task), ranks, is_bar, line, y, _BOX_HEIGHT if is_bar else _LINK_HEIGHT)


def _bands(extents: Iterable[tuple[str, str, int, int]]) -> tuple[Stretch, ...]:
    """One range for each run of extents (key, label, top, bottom) with the same key."""
    bands = []
    for _, run in groupby(extents, key=lambda extent: extent[0]):
        parts = list(run)
        bands.append(Stretch(parts[0][1], parts[0][2], parts[-1][3]))
    return tuple(bands)


def _edges(dag: Dag, boxes: Sequence[Box], columns: Sequence[Column]) -> tuple[Edge, ...]:
    """A line for every value that one drawn task makes and another reads, in the column of the value's rank."""
    index = {box.task.id: i for i, box in enumerate(boxes)}
    by_rank = {column.rank: column for column in columns}
    step: dict[tuple[int, int], int] = {}  # (box, rank) -> the number of the box in that column
    members: dict[int, list[tuple[int, int]]] = {column.rank: [] for column in columns}
    for i, box in enumerate(boxes):
        for rank in box.ranks:
            members[rank].append((box.line, i))
    for rank, its in members.items():
        step.update({(i, rank): n for n, (_, i) in enumerate(sorted(its))})
    edges = []
    for target, box in enumerate(boxes):
        lines: dict[int, dict[Line, None]] = {}
        for value_id in box.task.inputs:
            producer = dag.producer.get(value_id)
            rank = dag.value[value_id].rank
            source = index.get(producer.id, -1) if producer else -1
            if (source, rank) in step and (target, rank) in step:
                adjoining = step[target, rank] - step[source, rank] == 1
                line = _line(by_rank[rank], boxes[source].bottom, box.y, adjoining=adjoining)
                lines.setdefault(source, {})[line] = None  # Q, K and V of one rank are one line
        edges += [Edge(source, target, tuple(found)) for source, found in lines.items()]
    return tuple(edges)


def _line(column: Column, top: int, bottom: int, *, adjoining: bool) -> Line:
    """A line straight down, or along the side of the column if other tasks are between the two."""
    if adjoining:
        return ((column.middle, top), (column.middle, bottom))
    start, side = column.right - 2 * _DETOUR, column.right + COLUMN_GAP // 2
    left, right = top + _DETOUR, bottom - _DETOUR
    return ((start, top), (start, left), (side, left), (side, right), (start, right), (start, bottom))
