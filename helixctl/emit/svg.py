"""The drawing as SVG: the parts that the page shares, and a standalone picture."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from helixctl.dag import Dag
from helixctl.emit.columns import Brackets, Stretch
from helixctl.emit.heading import facts, title
from helixctl.emit.labels import PADDING
from helixctl.emit.lanes import Box, Lanes, Line, arrange
from helixctl.emit.text_width import text_width

GUTTER: Final = 136  # left of the columns: layers and levels
OVERHANG: Final = 8  # what brackets and tints add on either side of their columns
AFTER: Final = 22  # from the last column to the captions, which say what every GPU then holds
MARGIN: Final = 24
_STRIP: Final = 22  # the width of the strip that stands for replicas
_NOT_XML: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Plain class rules and no variables: the picture is to look the same in a browser, in Inkscape and on a slide.
_STYLE: Final = """
text { font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; font-size: 11px; fill: #1f2328; }
.title { font-size: 17px; font-weight: 600; }
.key, .note, .caption { fill: #59636e; }
.middle { text-anchor: middle; }
.span, .layer, .level { font-weight: 600; }
.word { font-size: 10px; }
.paper { fill: #ffffff; }
.tint { fill: #eef1f5; }
.bracket { stroke: #1f2328; stroke-width: 1.5; fill: none; }
.rule { stroke: #c9d1d9; stroke-width: 1; fill: none; }
.between { stroke: #818b98; stroke-width: 1; stroke-dasharray: 4 4; fill: none; }
.edges path { stroke: #818b98; stroke-width: 1; fill: none; }
.task text { font-size: 10px; text-anchor: middle; }
.task.communication text { fill: #ffffff; font-weight: 600; }
.task text.number { text-anchor: start; font-weight: 400; }
.task line { stroke-width: 3; }
"""
# Level -> pale fill of a computation, and the strong colour of its border and of communication.
COLOURS: Final = {
    "embed": ("#e8f0c8", "#5a6b00"),
    "distribute": ("#ddebff", "#0a56c2"),
    "exchange": ("#d3f1f5", "#006a78"),
    "attend": ("#ffe8cc", "#a85400"),
    "concat": ("#d6f3de", "#14743a"),
    "project": ("#efe0ff", "#7437b8"),
    "feed_forward": ("#e6e9ed", "#4c5560"),
    "head": ("#f6e7c1", "#7a5b00"),
    "transfer": ("#fde7f0", "#a8174f"),
}


LANES: Final = {"compute": "pale: computes", "communication": "strong: communicates"}
NUMBERS: Final = "number on the left: microbatch"


def drawn_levels(lanes: Lanes) -> list[str]:
    """The levels that are drawn, in the order of ``COLOURS``."""
    met = {box.task.level for box in lanes.boxes}
    return [level for level in COLOURS if level in met]


def captions_left(lanes: Lanes) -> int:
    """The left edge of the captions."""
    return lanes.width + AFTER + (_STRIP + AFTER if lanes.beside else 0)


def captions_right(lanes: Lanes) -> int:
    """The right edge of the captions."""
    return captions_left(lanes) + lanes.captions_width


def svg(dag: Dag, layer: int | None = None) -> str:
    """A standalone picture of a dag.

    Args:
        dag: the dag.
        layer: draw this layer only; None draws all.
    """
    lanes = arrange(dag, layer)
    lines = [f"{key}  {text}" for key, text in facts(dag) if key in {"model", "workload", "cluster", "layout"}]
    above = 40 + 15 * len(lines) + 36
    legend, legend_width = _legend(lanes)
    longest = max(text_width(title(dag), 17, bold=True), *(text_width(line, 11) for line in lines))
    width = max(GUTTER + captions_right(lanes), longest, legend_width) + 2 * MARGIN
    rows = above + lanes.heading.height
    height = rows + lanes.height + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<title>{escape(title(dag))}</title>",
        f"<style>{_STYLE}",
        *_level_rules(),
        "</style>",
        f'<rect class="paper" width="{width}" height="{height}"/>',
        f'<g transform="translate({MARGIN})">',
        _text(0, 36, title(dag), "title"),
        *(_text(0, 56 + 15 * i, line, "note") for i, line in enumerate(lines)),
        f'<g transform="translate(0 {40 + 15 * len(lines) + 10})">{legend}</g>',
        f'<g transform="translate({GUTTER} {above})">{head(lanes)}</g>',
        f'<g transform="translate(0 {rows})">{gutter(lanes)}</g>',
        f'<g transform="translate({GUTTER} {rows})">{body(lanes)}</g>',
        "</g></svg>",
    ]
    return "\n".join(parts) + "\n"


def head(lanes: Lanes) -> str:
    """Hosts, stages, replicas, groups and GPUs above the columns."""
    heading = lanes.heading
    parts = [_tint(section, heading.height, heading.tint_y) for section in heading.sections]
    for row in heading.brackets:
        parts += [_bracket(row, span) for span in row.spans]
    for column in lanes.columns:
        for i, (y, word) in enumerate(zip(heading.word_ys, column.words, strict=True)):
            parts.append(_text(column.middle, y, word, "note word middle" if i else "word middle"))
    parts.append(_text(captions_left(lanes), heading.word_ys[0], lanes.holds, "note"))
    return "\n".join(parts)


def _bracket(row: Brackets, span: Stretch) -> str:
    label = _text(span.middle, row.label_y, span.label, "span middle")
    note = _text(span.middle, row.note_y, span.note, "note word middle") if span.note else ""
    left, right = span.start - OVERHANG + 1, span.stop + OVERHANG - 1  # so that two neighbours do not touch
    return _bracketed(label + note, "bracket", f"M{left} {row.bottom}V{row.bracket_y}H{right}V{row.bottom}")


def _bracketed(label: str, classes: str, path: str) -> str:
    """A bracket and its label; the page keeps the label in the part of the bracket that is in view."""
    return f'<g class="bracketed"><g>{label}</g><path class="{classes}" d="{path}"/></g>'


def gutter(lanes: Lanes) -> str:
    """Layers and levels to the left of the columns, in a strip of width ``GUTTER``."""
    parts = []
    for layer in lanes.layers:
        upright = f"translate(12 {layer.middle}) rotate(-90)"
        label = f'<g transform="{upright}">{_text(0, 0, layer.label, "layer middle")}</g>'
        parts.append(_bracketed(label, "bracket", f"M24 {layer.start}h-4V{layer.stop}h4"))
    for level in lanes.levels:
        label = _text(39, level.middle + 4, level.label, "level")
        parts.append(_bracketed(label, f"bracket level {escape(level.label)}", f"M32 {level.start}V{level.stop}"))
    return "\n".join(parts)


def body(lanes: Lanes) -> str:
    """The tasks, each a ``<g class="task">`` in the order of the document, and everything behind them."""
    right = captions_right(lanes)
    parts = [_tint(section, lanes.height) for section in lanes.heading.sections]
    parts += [
        f'<path class="between" d="M{(a.stop + b.start) // 2} 0V{lanes.height}"/>'
        for a, b in pairwise(lanes.heading.hosts)
    ]
    parts += [
        f'<path class="rule" d="M{-OVERHANG} {(a.stop + b.start) // 2}H{right}"/>' for a, b in pairwise(lanes.layers)
    ]
    parts += [_text(captions_left(lanes), caption.middle + 4, caption.label, "caption") for caption in lanes.captions]
    if lanes.beside:
        parts.append(_strip(lanes))
    parts.append('<g class="edges">')
    parts += [f'<path d="{"".join(_path(line) for line in edge.lines)}"/>' for edge in lanes.edges]
    parts.append('</g><g class="tasks">')
    parts += [_task(box, lanes) for box in lanes.boxes]
    parts.append("</g>")
    return "\n".join(parts)


def _strip(lanes: Lanes) -> str:
    """The strip that stands for what is left out to the right; the page keeps its words in view."""
    left, right = lanes.width + AFTER, lanes.width + AFTER + _STRIP
    upright = f"translate({left + _STRIP // 2 + 4} {lanes.height // 2}) rotate(-90)"
    label = f'<g transform="{upright}">{_text(0, 0, lanes.beside, "middle")}</g>'
    return _bracketed(label, "bracket strip", f"M{left} 0H{right}V{lanes.height}H{left}V0")


def escape(text: str) -> str:
    """Text that is safe in XML and in HTML, between tags and in a quoted attribute.

    A character that XML cannot hold at all (a control character, half of a surrogate pair) becomes U+FFFD.
    """
    return html.escape(xml_text(text))


def xml_text(text: str) -> str:
    """Text in which U+FFFD replaces every character that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)


def _text(x: int, y: int, text: str, classes: str) -> str:
    return f'<text class="{classes}" x="{x}" y="{y}">{escape(text)}</text>'


def _path(line: Line) -> str:
    """The path data of a line of horizontal and vertical segments."""
    (x, y), *_ = line
    legs = [f"V{b[1]}" if a[0] == b[0] else f"H{b[0]}" for a, b in pairwise(line)]
    return f"M{x} {y}{''.join(legs)}"


def _tint(section: Stretch, height: int, top: int = 0) -> str:
    width = section.stop - section.start + 2 * OVERHANG
    return f'<rect class="tint" x="{section.start - OVERHANG}" y="{top}" width="{width}" height="{height - top}"/>'


def _task(box: Box, lanes: Lanes) -> str:
    first, last = lanes.column[box.ranks[0]], lanes.column[box.ranks[-1]]
    if box.is_bar:
        shapes = [_cell(first.x, last.right, box, box.labels[0], lanes)]
    else:
        middle = box.y + box.height // 2
        shapes = [f'<line x1="{first.middle}" y1="{middle}" x2="{last.middle}" y2="{middle}"/>']
        columns = [lanes.column[rank] for rank in box.ranks]
        shapes += [_cell(c.x, c.right, box, label, lanes) for c, label in zip(columns, box.labels, strict=True)]
    classes = f"task {box.task.level} {box.task.lane}"
    return f'<g class="{escape(classes)}"><title>{escape(box.task.id)}</title>{"".join(shapes)}</g>'


def _cell(left: int, right: int, box: Box, label: str, lanes: Lanes) -> str:
    x, y = (left + lanes.number_width + right) // 2, box.y + box.height // 2 + 4
    shape = f'<rect x="{left}" y="{box.y}" width="{right - left}" height="{box.height}" rx="3"/>'
    number = "" if box.microbatch is None else _text(left + PADDING, y, str(box.microbatch), "number")
    return f'{shape}{number}<text x="{x}" y="{y}">{escape(label)}</text>'


def _legend(lanes: Lanes) -> tuple[str, int]:
    """The legend of levels and lanes, and its width in pixels."""
    parts, x = [], 0
    for level in drawn_levels(lanes):
        parts.append(f'<g class="sample {level}"><rect x="{x}" y="0" width="14" height="12" rx="3"/></g>')
        parts.append(_text(x + 20, 10, level, "note"))
        x += 20 + text_width(level, 11) + 18
    for lane, words in LANES.items():
        parts.append(f'<g class="sample {lane}"><rect x="{x}" y="0" width="22" height="12" rx="3"/></g>')
        parts.append(_text(x + 28, 10, words, "note"))
        x += 28 + text_width(words, 11) + 18
    if lanes.number_width:
        parts.append(_text(x, 10, NUMBERS, "note"))
        x += text_width(NUMBERS, 11)
    return "".join(parts), x


def _level_rules() -> Iterator[str]:
    yield ".sample.compute rect { fill: #ffffff; stroke: #1f2328; }"
    yield ".sample.communication rect { fill: #1f2328; stroke: #1f2328; }"
    for level, (pale, strong) in COLOURS.items():
        yield f".{level} rect {{ fill: {pale}; stroke: {strong}; }}"
        yield f".{level}.communication rect {{ fill: {strong}; }}"
        yield f".{level} line {{ stroke: {strong}; }}"
        yield f".bracket.{level} {{ stroke: {strong}; stroke-width: 3; }}"
