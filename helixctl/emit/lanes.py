"""The geometry of the drawing that svg and html share: a column per GPU, rows by topological generation.

A value lives on one rank, so every dependency is a line inside one column; a collective is what joins columns. All
coordinates are whole pixels from the left end of the first column and the top of the first row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import groupby
from typing import Final, get_args

from helixctl.dag import Dag, Level, Task
from helixctl.emit.columns import COLUMN_GAP, Column, Heading, Stretch, device_word, head_columns
from helixctl.emit.labels import CAPTION_SIZE, Labels, caption
from helixctl.emit.text_width import text_width

_BOX_HEIGHT: Final = 22
_LINK_HEIGHT: Final = 16  # of a collective whose ranks are not neighbours: it is thin, because several are stacked
_STACK_GAP: Final = 3
_ROW_GAP: Final = 12
_LEVEL_GAP: Final = 8  # on top of _ROW_GAP
_LAYER_GAP: Final = 20  # on top of both
_TOP: Final = 14
_DETOUR: Final = 4  # how far a dependency that passes other tasks leaves its column's middle

_LEVELS: Final[tuple[str, ...]] = get_args(Level)


Line = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Box:
    """The box of one task.

    Attributes:
        task: the task.
        labels: the one label of a bar, or the label on each rank's column.
        microbatch: the number of its microbatch; None if there is only one.
        ranks: its ranks, ascending.
        line: the number of its line of boxes, from the top; a row of stacked tasks has several lines.
        y, height: its upper edge and its height, in pixels.
    """

    task: Task
    labels: tuple[str, ...]
    microbatch: int | None
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
        """The lower edge."""
        return self.y + self.height


@dataclass(frozen=True, slots=True)
class Edge:
    """A dependency between two boxes.

    Attributes:
        source, target: the indices of the boxes.
        lines: a line for each column that the dependency is in, as corners from top to bottom.
    """

    source: int
    target: int
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
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
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class _Row:
    layer: int
    level: Level
    lines: tuple[tuple[Task, ...], ...]


def arrange(dag: Dag, layer: int | None = None) -> Lanes:
    """Place every task of a proved dag.

    Args:
        dag: the dag.
        layer: place the tasks of this layer only; None places all.
    """
    tasks = [task for task in dag.tasks if layer is None or task.layer == layer]
    rows, labels = _rows(dag, tasks), Labels(dag)
    columns, heading = head_columns(dag, _box_width(tasks, labels))
    boxes, layers, levels, captions, height = _place(dag, rows, columns, labels)
    by_id = {box.task.id: box for box in boxes}
    ordered = tuple(by_id[task.id] for task in tasks)
    holds = f"each {device_word(dag)} then holds"
    return Lanes(
        columns=columns,
        heading=heading,
        layers=layers,
        levels=levels,
        captions=captions,
        holds=holds,
        captions_width=max(text_width(text, CAPTION_SIZE) for text in (holds, *(c.label for c in captions))),
        number_width=labels.number_width,
        boxes=ordered,
        edges=_edges(dag, ordered, columns),
        width=columns[-1].right,
        height=height,
    )


def _box_width(tasks: Sequence[Task], labels: Labels) -> int:
    """The width that a column needs for the widest label of a box in one column."""
    narrow = (task for task in tasks if len(task.ranks) == 1 or not _are_neighbours(_ascending(task)))
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


def _place(
    dag: Dag, rows: Sequence[_Row], columns: Sequence[Column], labels: Labels
) -> tuple[list[Box], tuple[Stretch, ...], tuple[Stretch, ...], tuple[Stretch, ...], int]:
    """Place the rows from top to bottom: boxes, bands of layers and levels, captions, and the total height."""
    boxes: list[Box] = []
    extents: list[tuple[_Row, int, int]] = []
    captions: list[Stretch] = []
    y, line_number, above = _TOP, 0, None
    for row in rows:
        if above is not None:
            y += _ROW_GAP
            y += _LEVEL_GAP * ((above.layer, above.level) != (row.layer, row.level))
            y += _LAYER_GAP * (above.layer != row.layer)
        above, top = row, y
        for line in row.lines:
            boxes_of_line = [_box(task, columns, labels, line_number, y) for task in line]
            boxes += boxes_of_line
            y += max(box.height for box in boxes_of_line) + _STACK_GAP
            line_number += 1
        y -= _STACK_GAP
        extents.append((row, top, y))
        captions.append(Stretch(caption(dag, [task for line in row.lines for task in line]), top, y))
    levels = _bands((f"{row.layer} {row.level}", row.level, top, bottom) for row, top, bottom in extents)
    layers = _bands((str(row.layer), f"layer {row.layer}", top, bottom) for row, top, bottom in extents)
    return boxes, layers, levels, tuple(captions), y + _TOP


def _box(task: Task, columns: Sequence[Column], labels: Labels, line: int, y: int) -> Box:
    ranks = _ascending(task)
    is_bar = _are_neighbours(ranks)
    width = columns[ranks[-1]].right - columns[ranks[0]].x
    words = (labels.on_bar(task, width),) if is_bar else labels.on_columns(task)
    return Box(task, words, labels.microbatch(task), ranks, line, y, _BOX_HEIGHT if is_bar else _LINK_HEIGHT)


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
    step: dict[tuple[int, int], int] = {}  # (box, rank) -> the number of the box in that column
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
    """A line straight down, or along the side of the column if other tasks are between the two."""
    if adjoining:
        return ((column.middle, top), (column.middle, bottom))
    start, side = column.right - 2 * _DETOUR, column.right + COLUMN_GAP // 2
    left, right = top + _DETOUR, bottom - _DETOUR
    return ((start, top), (start, left), (side, left), (side, right), (start, right), (start, bottom))
