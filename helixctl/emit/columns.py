"""The columns of the drawing, one for each GPU, and the heading above them.

Every axis along which the ranks differ is in the heading: hosts, domains of links inside them, stages, replicas,
groups, slices. An axis with several neighbouring columns at each index is a row of brackets, the widest above. The
innermost axis, whose index changes from column to column, is a word below the name of each GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Final

from helixctl.dag import Dag
from helixctl.emit.text_width import text_width
from helixctl.plan.sharding import Shares
from helixctl.records import record

# In pixels, like all lengths here.
COLUMN_GAP: Final = 8
WORD_SIZE: Final = 10  # of the words below a GPU's name, in pixels
_COLUMN_WIDTH: Final = 58  # at least
_SECTION_GAP: Final = 14  # on top of COLUMN_GAP, between the brackets of the lowest row
_HOST_GAP: Final = 14  # on top of both
_TOP: Final = 4
_BASELINE: Final = 12  # of a bracket's label, from the top of its row
_LINE: Final = 13
_BRACKET: Final = 5  # the space between a label and its bracket, and the bracket's height
_BELOW_BRACKET: Final = 4

_AXES: Final = {"pipeline": "stage", "data": "replica", "groups": "group", "slices": "slice"}


@record
class Column:
    """The column of one GPU, and the words above it."""

    rank: int
    x: int
    width: int
    words: tuple[str, ...]

    @property
    def right(self) -> int:
        """The right edge of its boxes."""
        return self.x + self.width

    @property
    def middle(self) -> int:
        """The x coordinate of its dependencies."""
        return self.x + self.width // 2


@record
class Stretch:
    """A labelled range of columns (a host, a group) or of rows (a layer, a level), in pixels."""

    label: str
    start: int
    stop: int
    note: str = ""

    @property
    def middle(self) -> int:
        """The position of its label."""
        return (self.start + self.stop) // 2


@record
class Brackets:
    """One axis of the heading: a row of brackets with labels, and notes below the labels."""

    spans: tuple[Stretch, ...]
    y: int

    @property
    def label_y(self) -> int:
        """The baseline of the labels."""
        return self.y + _BASELINE

    @property
    def note_y(self) -> int:
        """The baseline of the notes, which stand below the labels."""
        return self.label_y + _LINE

    @property
    def bracket_y(self) -> int:
        """The upper end of the brackets."""
        return (self.note_y if self.spans[0].note else self.label_y) + _BRACKET

    @property
    def bottom(self) -> int:
        """The lower end of the brackets."""
        return self.bracket_y + _BRACKET


@record
class Heading:
    """The heading above the columns.

    Attributes:
        hosts: the columns of each host.
        brackets: the rows of brackets, from top to bottom.
        sections: the ranges of columns that are tinted, from ``tint_y`` downwards.
        lines: the lines of words above each column.
    """

    hosts: tuple[Stretch, ...]
    brackets: tuple[Brackets, ...]
    sections: tuple[Stretch, ...]
    lines: int

    @property
    def tint_y(self) -> int:
        """Where the tints begin: under the lowest brackets."""
        return self.brackets[-1].bottom + 2 if self.brackets else 0

    @property
    def word_ys(self) -> tuple[int, ...]:
        """The baselines of the columns' words."""
        return tuple(self.tint_y + 2 + _LINE * (line + 1) for line in range(self.lines))

    @property
    def height(self) -> int:
        """The height of the heading."""
        return self.word_ys[-1] + _LINE // 2


@record
class _Axis:
    """An axis of the ranks: the label and the note of the index of each rank."""

    labels: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def run(self) -> int:
        """The number of neighbouring columns with the same index."""
        return next(len(list(run)) for _, run in groupby(self.labels))


def device_word(dag: Dag) -> str:
    """The drawing's word for a device: "GPU", or "rank" if the ranks are processes on CPUs."""
    return "GPU" if dag.plan.cluster.device_kind == "cuda" else "rank"


def head_columns(dag: Dag, box_width: int, ranks: Sequence[int]) -> tuple[tuple[Column, ...], Heading]:
    """The columns by rank, and the heading above them.

    Args:
        dag: the dag.
        box_width: the least width of a column; the words above it may need more.
        ranks: those that have a column, ascending.
    """
    hosts = _hosts(dag, ranks)
    every = (hosts, *_domains(dag, ranks), *_layout_axes(dag, ranks))
    axes = [axis for axis in every if len(set(axis.labels)) > 1]
    below = [axis for axis in axes if axis.run == 1]
    above = sorted((axis for axis in axes if axis.run > 1), key=lambda axis: -axis.run)
    words = _words(dag, below, ranks)
    widest = max(text_width(word, WORD_SIZE) for column in words for word in column)
    width = max(_COLUMN_WIDTH, box_width, widest - COLUMN_GAP + 4)
    lefts = _lefts(hosts.labels, above[-1].labels if above else [""] * len(words), width)
    columns = tuple(Column(*its) for its in zip(ranks, lefts, [width] * len(lefts), words, strict=True))
    rows = _stacked([_stretches(columns, axis) for axis in above])
    sections = rows[-1].spans if rows else (Stretch("", 0, columns[-1].right),)
    return columns, Heading(_stretches(columns, hosts), rows, sections, len(words[0]))


def _hosts(dag: Dag, ranks: Sequence[int]) -> _Axis:
    cluster = dag.plan.cluster
    notes = tuple(cluster.device_of(rank).name if cluster.differs else "" for rank in ranks)
    return _Axis(tuple(f"host {cluster.host_of(rank)}" for rank in ranks), notes)


def _domains(dag: Dag, ranks: Sequence[int]) -> Iterator[_Axis]:
    """The domains of links inside hosts, outermost first; a host that has none on a level is one there.

    Where there are several hosts, ``pair 2.0`` is the first on host 2.
    """
    cluster = dag.plan.cluster
    for level in reversed(range(max(len(kind.links) for kind in cluster.kinds))):
        labels = []
        for rank in ranks:
            host, links = cluster.host_of(rank), cluster.hosts_of(rank).links
            label = f"host {host}"
            if level < len(links):
                number = cluster.place_of(rank) // links[level].devices
                label = f"{links[level].name} " + (f"{host}.{number}" if cluster.host_count > 1 else f"{number}")
            labels.append(label)
        yield _Axis(tuple(labels), ("",) * len(ranks))


def _layout_axes(dag: Dag, ranks: Sequence[int]) -> Iterator[_Axis]:
    """The axes of the layout, outermost first."""
    layout = dag.plan.layout
    shares = Shares(layout, dag.plan.model, dag.work)
    heads = [shares.cut(shares.of("attention").made, rank)["head"] for rank in ranks]
    for axis in reversed(layout.placement.split("-")):
        at = [rank // layout.strides[axis] % getattr(layout, axis) for rank in ranks]
        notes = ["heads {}:{}".format(*its) if axis == "groups" else "" for its in heads]
        yield _Axis(tuple(f"{_AXES[axis]} {index}" for index in at), tuple(notes))


def _words(dag: Dag, below: Sequence[_Axis], ranks: Sequence[int]) -> list[tuple[str, ...]]:
    """The words above each column: the name of the GPU, its index on each axis without brackets, and its experts."""
    texts = [text for axis in below for text in (axis.labels, axis.notes) if text[0]]
    names = [f"{device_word(dag)} {rank}" for rank in ranks]
    return list(zip(names, *texts, *_experts(dag, ranks), strict=True))


def _experts(dag: Dag, ranks: Sequence[int]) -> Iterator[list[str]]:
    """The experts of each rank, where they are spread over the ranks."""
    model, layout = dag.plan.model, dag.plan.layout
    its = [kind for name in model.kinds if (kind := model.alike(name).feed_forward.experts)]
    if its and layout.experts > 1:
        held = [layout.share("experts", rank, its[0].count) for rank in ranks]
        yield ["experts {}:{}".format(*ends) for ends in held]


def _lefts(hosts: Sequence[str], sections: Sequence[str], width: int) -> list[int]:
    """The left edges of the columns: further apart where the section or the host changes."""
    lefts = [0]
    for (host, section), (next_host, next_section) in pairwise(zip(hosts, sections, strict=True)):
        apart = _SECTION_GAP * (section != next_section) + _HOST_GAP * (host != next_host)
        lefts.append(lefts[-1] + width + COLUMN_GAP + apart)
    return lefts


def _stretches(columns: Sequence[Column], axis: _Axis) -> tuple[Stretch, ...]:
    """One range for each run of equal labels."""
    spans = []
    marked = zip(columns, axis.labels, axis.notes, strict=True)
    for (label, note), run in groupby(marked, key=lambda item: item[1:]):
        members = [column for column, _, _ in run]
        spans.append(Stretch(label, members[0].x, members[-1].right, note))
    return tuple(spans)


def _stacked(rows: Sequence[tuple[Stretch, ...]]) -> tuple[Brackets, ...]:
    """The rows of brackets below each other."""
    found: list[Brackets] = []
    for spans in rows:
        found.append(Brackets(spans, found[-1].bottom + _BELOW_BRACKET if found else _TOP))
    return tuple(found)
