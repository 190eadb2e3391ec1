"""The dag in Graphviz' language, and its rendering by the ``dot`` binary.

The text carries the positions of the lanes drawing (``layout=nop2``: use them as they are), because Graphviz' own
layout shuffles the GPUs, bends a layer around the edges that skip tasks, and takes seconds. Every edge is a dependency:
nothing invisible is in the text, so that it is also the graph that another program reads.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import groupby, pairwise
from typing import Final

from helixctl.dag import Dag
from helixctl.emit.heading import facts, title
from helixctl.emit.lanes import COLUMN_WIDTH, Box, Edge, Lanes, Line, arrange
from helixctl.emit.svg import COLOURS, GUTTER, OVERHANG, bar_label
from helixctl.errors import fail

_INCH: Final = 72  # Graphviz has widths in inches and positions in points; a pixel of the lanes is a point
_HEAD: Final = 56
_PDF_DATE: Final = re.compile(rb"/CreationDate \(D:[0-9]+")
_TABLE: Final = 'BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0"'


def dot(dag: Dag, layer: int | None = None) -> str:
    """DOT text: a cluster per layer, a collective as a task of its own, the GPUs from left to right by rank."""
    lanes = arrange(dag, layer)
    paper = _Paper(lanes)
    return "\n".join(
        [
            *_opening(dag),
            *_groups(paper),
            *_layers(paper),
            *_levels(paper),
            *(_edge(paper, edge) for edge in lanes.edges),
            "}",
            "",
        ]
    )


def render_dot(dot_text: str, output_format: str) -> bytes:
    """What ``dot`` makes of the text, as png or pdf.

    Raises:
        HelixError: HX512, Graphviz is not installed.
    """
    binary = shutil.which("dot")
    if binary is None:
        hint = "install Graphviz (apt install graphviz), or write .html or .svg, which need nothing"
        raise fail("HX512", f"writing {output_format} needs the program dot, which is not on the PATH", hint)
    # Our own text, on standard input, and no shell.
    done = subprocess.run([binary, f"-T{output_format}"], input=dot_text.encode(), capture_output=True, check=True)
    # A pdf carries the time of day. Digits give way to as many digits: offsets in the file stay right.
    return _PDF_DATE.sub(lambda date: re.sub(rb"[0-9]", b"0", date[0]), done.stdout)


@dataclass(frozen=True, slots=True)
class _Paper:
    """Pixels of the lanes, which grow downwards, as Graphviz' points, which grow upwards."""

    lanes: Lanes

    def point(self, x: float, y: float) -> str:
        return f"{x:g},{self.lanes.height - y:g}"

    def box(self, left: float, top: float, right: float, bottom: float) -> str:
        return f'"{self.point(left, bottom)},{self.point(right, top)}"'


def _opening(dag: Dag) -> Iterator[str]:
    lines = [title(dag), *(f"{key} {text}" for key, text in facts(dag) if key not in {"plan", "dag"})]
    heading = "".join(_escape(line) + r"\l" for line in lines)  # \l ends a line and sets it left
    yield f"digraph {_quote(title(dag))} {{"
    yield f'graph [layout=nop2, outputorder=edgesfirst, label="{heading}",'
    yield '  labelloc=t, labeljust=l, fontname="Helvetica", fontsize=13, pad=0.3];'
    yield 'node [shape=box, style="rounded,filled", fixedsize=true, fontname="Helvetica", fontsize=10];'
    yield 'edge [color="#818b98", arrowsize=0.4];'


def _groups(paper: _Paper) -> Iterator[str]:
    """A tinted cluster for every group, with the names of its GPUs."""
    lanes = paper.lanes
    for number, group in enumerate(lanes.groups):  # several stages have a group 0 each: names take the number
        area = paper.box(group.start - OVERHANG, -_HEAD, group.stop + OVERHANG, lanes.height)
        yield f"subgraph {_quote(f'cluster {number}')} {{"
        yield f'graph [bb={area}, style=filled, color="#eef1f5", label=""];'
        yield _words(paper, f"group {number}", group.middle, -_HEAD + 12, f"<B>{escape(group.label)}</B>")
        yield _words(paper, f"note {number}", group.middle, -_HEAD + 26, escape(group.note))
        for column in lanes.columns:
            if group.start <= column.x < group.stop:
                name = f"{lanes.device} {column.rank}"
                yield _words(paper, name, column.middle, -10, escape(name))
        yield "}"
    for host in lanes.hosts:
        yield _words(paper, host.label, host.middle, -_HEAD - 10, f"<B>{escape(host.label)}</B>")


def _layers(paper: _Paper) -> Iterator[str]:
    """A cluster for every layer, with its tasks."""
    lanes = paper.lanes
    areas = {span.label: span for span in lanes.layers}
    for number, boxes in groupby(lanes.boxes, key=lambda box: box.task.layer):
        span = areas[f"layer {number}"]
        area = paper.box(-GUTTER, span.start - 8, lanes.width + 2 * OVERHANG, span.stop + 8)
        label = paper.point(-GUTTER + 24, span.start + 2)
        yield f'subgraph "cluster layer {number}" {{'
        yield f'graph [bb={area}, color="#818b98", fontsize=11, label="layer {number}", lp="{label}"];'
        for box in boxes:
            yield _task(paper, box)
        yield "}"


def _levels(paper: _Paper) -> Iterator[str]:
    for i, level in enumerate(paper.lanes.levels):
        name = f"level {i} {level.label}"
        yield _words(paper, name, -GUTTER / 2 + 6, level.middle, f"<B>{escape(level.label)}</B>")


def _task(paper: _Paper, box: Box) -> str:
    first, last = paper.lanes.columns[box.ranks[0]], paper.lanes.columns[box.ranks[-1]]
    pale, strong = COLOURS[box.task.level]
    fill, ink = (strong, "white") if box.task.is_collective else (pale, "black")
    width, height = (last.right - first.x) / _INCH, box.height / _INCH
    middle = paper.point((first.x + last.right) / 2, box.y + box.height / 2)
    shared = f'pos="{middle}", width={width:.3f}, height={height:.3f}, tooltip={_quote(box.task.id)}'
    if box.is_bar:
        label = _quote(bar_label(box, last.right - first.x, paper.lanes.device))
        return (
            f'{_quote(box.task.id)} [{shared}, label={label}, color="{strong}", fillcolor="{fill}", fontcolor={ink}];'
        )
    return f"{_quote(box.task.id)} [{shared}, shape=none, style=solid, label=<{_cells(paper.lanes, box)}>];"


def _cells(lanes: Lanes, box: Box) -> str:
    """A cell on each rank's column, joined by a thin line."""
    _, strong = COLOURS[box.task.level]
    word = f'<FONT COLOR="white">{escape(box.label)}</FONT>'
    size = f'FIXEDSIZE="TRUE" BGCOLOR="{strong}"'
    cells = [f'<TD {size} WIDTH="{COLUMN_WIDTH}" HEIGHT="{box.height}">{word}</TD>']
    for left, right in pairwise(box.ranks):
        gap = lanes.columns[right].x - lanes.columns[left].right
        line = f'<TABLE {_TABLE}><TR><TD {size} WIDTH="{gap}" HEIGHT="3"></TD></TR></TABLE>'
        cells += [f"<TD>{line}</TD>", cells[0]]
    return f"<TABLE {_TABLE}><TR>{''.join(cells)}</TR></TABLE>"


def _edge(paper: _Paper, edge: Edge) -> str:
    source, target = paper.lanes.boxes[edge.source], paper.lanes.boxes[edge.target]
    splines = ";".join(_spline(paper, line) for line in edge.lines)
    return f'{_quote(source.task.id)} -> {_quote(target.task.id)} [pos="{splines}"];'


def _spline(paper: _Paper, line: Line) -> str:
    """A line as cubic curves that happen to be straight, with room for the arrow at its end."""
    *corners, (x, y) = line
    head = (x, y - 5)
    points = [paper.point(*corners[0])]
    for a, b in pairwise([*corners, head]):
        points += [paper.point(*a), paper.point(*b), paper.point(*b)]
    return f"e,{paper.point(x, y)} {' '.join(points)}"


def _words(paper: _Paper, name: str, x: float, y: float, markup: str) -> str:
    """A label that stands alone."""
    look = f"shape=none, style=solid, fixedsize=false, margin=0, label=<{markup}>"
    return f'{_quote(name)} [{look}, pos="{paper.point(x, y)}"];'


def _quote(text: str) -> str:
    return f'"{_escape(text)}"'


def _escape(text: str) -> str:
    r"""Text inside double quotes: a backslash is doubled, or \N and \G would be replaced."""
    printable = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return printable.replace("\\", "\\\\").replace('"', '\\"')
