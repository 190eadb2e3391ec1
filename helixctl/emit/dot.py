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
from html import escape
from itertools import groupby, pairwise
from typing import Final

from helixctl.dag import Dag
from helixctl.emit.columns import Brackets, Column
from helixctl.emit.heading import facts, title
from helixctl.emit.lanes import Box, Edge, Lanes, Line, arrange
from helixctl.emit.svg import AFTER, COLOURS, GUTTER, NUMBERS, OVERHANG
from helixctl.errors import fail
from helixctl.records import record

_INCH: Final = 72  # Graphviz has widths in inches and positions in points; a pixel of the lanes is a point
_RISE: Final = 4  # from the baseline of a line of text to its middle
_PDF_DATE: Final = re.compile(rb"/CreationDate \(D:[0-9]+")
_TABLE: Final = 'BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0"'


def dot(dag: Dag, layer: int | None = None) -> str:
    """DOT text: a cluster per layer, a vertex per collective, the GPUs from left to right by rank.

    Args:
        dag: the dag.
        layer: draw this layer only; None draws all.
    """
    lanes = arrange(dag, layer)
    paper = _Paper(lanes)
    return "\n".join(
        [
            *_opening(dag, lanes),
            *_sections(paper),
            *_brackets(paper),
            *_layers(paper),
            *_levels(paper),
            *_captions(paper),
            *(_edge(paper, edge) for edge in lanes.edges),
            "}",
            "",
        ]
    )


def render_dot(dot_text: str, output_format: str) -> bytes:
    """The picture that ``dot`` renders.

    Args:
        dot_text: the text in Graphviz' language.
        output_format: png or pdf.

    Raises:
        HelixError: HX512, Graphviz is not installed.
    """
    binary = shutil.which("dot")
    if binary is None:
        hint = "install Graphviz (apt install graphviz), or write .html or .svg, which need nothing"
        raise fail("HX512", f"writing {output_format} needs the program dot, which is not on the PATH", hint)
    # Our own text, on standard input, and no shell.
    done = subprocess.run([binary, f"-T{output_format}"], input=dot_text.encode(), capture_output=True, check=True)
    # A pdf holds the time of its creation. Each digit becomes a 0, so that the offsets in the file stay right.
    return _PDF_DATE.sub(lambda date: re.sub(rb"[0-9]", b"0", date[0]), done.stdout)


@record
class _Paper:
    """Pixels of the lanes, which grow downwards, as Graphviz' points, which grow upwards."""

    lanes: Lanes

    def point(self, x: float, y: float) -> str:
        return f"{x:g},{self.lanes.height - y:g}"

    def box(self, left: float, top: float, right: float, bottom: float) -> str:
        return f'"{self.point(left, bottom)},{self.point(right, top)}"'


def _opening(dag: Dag, lanes: Lanes) -> Iterator[str]:
    lines = [title(dag), *(f"{key} {text}" for key, text in facts(dag) if key not in {"plan", "dag"})]
    lines += [NUMBERS] if lanes.number_width else []
    heading = "".join(_escape(line) + r"\l" for line in lines)  # \l ends a line and sets it left
    yield f"digraph {_quote(title(dag))} {{"
    yield f'graph [layout=nop2, outputorder=edgesfirst, label="{heading}",'
    yield '  labelloc=t, labeljust=l, fontname="Helvetica", fontsize=13, pad=0.3];'
    yield 'node [shape=box, style="rounded,filled", fixedsize=true, fontname="Helvetica", fontsize=10];'
    yield 'edge [color="#818b98", arrowsize=0.4];'


def _sections(paper: _Paper) -> Iterator[str]:
    """A tinted cluster for every section of the columns, with the names of its GPUs."""
    lanes, heading = paper.lanes, paper.lanes.heading
    for number, section in enumerate(heading.sections):  # several stages have a group 0, so names take the number
        top = heading.tint_y - heading.height
        area = paper.box(section.start - OVERHANG, top, section.stop + OVERHANG, lanes.height)
        yield f"subgraph {_quote(f'cluster {number}')} {{"
        yield f'graph [bb={area}, style=filled, color="#eef1f5", label=""];'
        for column in lanes.columns:
            if section.start <= column.x < section.stop:
                yield from _column(paper, column)
        yield "}"


def _column(paper: _Paper, column: Column) -> Iterator[str]:
    """The name of a GPU, and the other words above its column."""
    heading = paper.lanes.heading
    for y, word in zip(heading.word_ys, column.words, strict=True):
        name = word if word == column.words[0] else f"{column.words[0]} {word}"
        markup = escape(word) if word == column.words[0] else _grey(word)
        yield _words(paper, name, column.middle, y - heading.height - _RISE, markup)


def _brackets(paper: _Paper) -> Iterator[str]:
    """Hosts, stages, replicas and groups above the columns."""
    height = paper.lanes.heading.height
    for level, row in enumerate(paper.lanes.heading.brackets):
        for i, span in enumerate(row.spans):
            name = f"bracket {level} {i}"
            yield _words(paper, name, span.middle, row.label_y - height - _RISE, f"<B>{escape(span.label)}</B>")
            if span.note:
                yield _words(paper, f"{name} note", span.middle, row.note_y - height - _RISE, _grey(span.note))
            yield _bracket(paper, f"{name} line", span.start - OVERHANG, span.stop + OVERHANG, row)


def _bracket(paper: _Paper, name: str, left: int, right: int, row: Brackets) -> str:
    """A table of one empty cell that has a border on three sides."""
    tall = row.bottom - row.bracket_y
    cell = f'<TD BORDER="1" SIDES="LTR" FIXEDSIZE="TRUE" WIDTH="{right - left}" HEIGHT="{tall}"></TD>'
    middle = (row.bracket_y + row.bottom) / 2 - paper.lanes.heading.height
    return _words(paper, name, (left + right) / 2, middle, f"<TABLE {_TABLE}><TR>{cell}</TR></TABLE>")


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


def _captions(paper: _Paper) -> Iterator[str]:
    """What every GPU holds after each row, aligned left."""
    lanes, heading = paper.lanes, paper.lanes.heading
    rows = [(heading.word_ys[0] - heading.height - _RISE, lanes.holds)]
    rows += [(caption.middle, caption.label) for caption in lanes.captions]
    left = lanes.width + AFTER
    for i, (y, text) in enumerate(rows):
        cell = f'<TD FIXEDSIZE="TRUE" WIDTH="{lanes.captions_width}" HEIGHT="14" ALIGN="LEFT">{_grey(text)}</TD>'
        markup = f"<TABLE {_TABLE}><TR>{cell}</TR></TABLE>"
        yield _words(paper, f"caption {i}", left + lanes.captions_width / 2, y, markup)


def _task(paper: _Paper, box: Box) -> str:
    first, last = paper.lanes.column[box.ranks[0]], paper.lanes.column[box.ranks[-1]]
    pale, strong = COLOURS[box.task.level]
    fill, ink = (strong, "white") if box.task.is_collective else (pale, "black")
    width, height = (last.right - first.x) / _INCH, box.height / _INCH
    middle = paper.point((first.x + last.right) / 2, box.y + box.height / 2)
    shared = f'pos="{middle}", width={width:.3f}, height={height:.3f}, tooltip={_quote(box.task.id)}'
    if box.is_bar:
        label = _quote(_numbered(box, box.labels[0]))
        return (
            f'{_quote(box.task.id)} [{shared}, label={label}, color="{strong}", fillcolor="{fill}", fontcolor={ink}];'
        )
    return f"{_quote(box.task.id)} [{shared}, shape=none, style=solid, label=<{_cells(paper.lanes, box)}>];"


def _cells(lanes: Lanes, box: Box) -> str:
    """A cell on each rank's column, joined by a thin line."""
    _, strong = COLOURS[box.task.level]
    size = f'FIXEDSIZE="TRUE" BGCOLOR="{strong}"'
    columns = [lanes.column[rank] for rank in box.ranks]
    words = [f'<FONT COLOR="white">{escape(_numbered(box, label))}</FONT>' for label in box.labels]
    cells = [f'<TD {size} WIDTH="{columns[0].width}" HEIGHT="{box.height}">{word}</TD>' for word in words]
    joined = cells[:1]
    for (left, right), cell in zip(pairwise(columns), cells[1:], strict=True):
        line = f'<TABLE {_TABLE}><TR><TD {size} WIDTH="{right.x - left.right}" HEIGHT="3"></TD></TR></TABLE>'
        joined += [f"<TD>{line}</TD>", cell]
    return f"<TABLE {_TABLE}><TR>{''.join(joined)}</TR></TABLE>"


def _numbered(box: Box, label: str) -> str:
    """The label after the number of its microbatch."""
    return label if box.microbatch is None else f"{box.microbatch}: {label}"


def _edge(paper: _Paper, edge: Edge) -> str:
    source, target = paper.lanes.boxes[edge.source], paper.lanes.boxes[edge.target]
    splines = ";".join(_spline(paper, line) for line in edge.lines)
    return f'{_quote(source.task.id)} -> {_quote(target.task.id)} [pos="{splines}"];'


def _spline(paper: _Paper, line: Line) -> str:
    """A line as cubic Bezier curves, all of them straight, with room for the arrow at its end."""
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


def _grey(text: str) -> str:
    return f'<FONT COLOR="#59636e">{escape(text)}</FONT>'


def _quote(text: str) -> str:
    return f'"{_escape(text)}"'


def _escape(text: str) -> str:
    r"""Text inside double quotes: a backslash is doubled, or \N and \G would be replaced."""
    printable = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return printable.replace("\\", "\\\\").replace('"', '\\"')
