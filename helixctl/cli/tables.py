"""Tables of plain text that fit the width there is: what a narrow one has no room for is said shorter, or left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from textwrap import wrap
from typing import Final, Literal

from helixctl.records import record

_GAP: Final = 2  # blanks between two columns
# A cell that has a short form for narrow tables.
Cell = str | tuple[str, str]


@record
class Column:
    """A column, and what it gives up where the table is too wide.

    Every column gives up a thing at its turn: the smaller the number, the earlier; None: never.

    Attributes:
        name: its head.
        right: whether its cells are set to the right.
        short: when its cells take their short form.
        fold: when its cells go on in a second line, between words.
        least: the least width that it is folded to, if it has so many letters.
        drop: when it is left out.
        key: what the words of short forms mean, given these: a line below the table; empty: none.
    """

    name: str
    right: bool = False
    short: int | None = None
    fold: int | None = None
    least: int = 24
    drop: int | None = None
    key: Callable[[Sequence[str]], str] | None = None


@record
class Line:
    """A line of a table as it is printed, without blanks at its end."""

    text: str
    bold: bool = False


@record
class _Given:
    """What the columns have given up, by their number."""

    short: frozenset[int] = frozenset()
    fold: frozenset[int] = frozenset()
    drop: frozenset[int] = frozenset()
    heads: bool = False  # the heads of all columns go on in a second line

    def and_(self, what: Literal["short", "fold", "drop"], column: int) -> _Given:
        parts = {"short": self.short, "fold": self.fold, "drop": self.drop}
        return _Given(**{**parts, what: parts[what] | {column}}, heads=self.heads)


class Table:
    """A table without rules: a head, and rows of cells."""

    def __init__(self, columns: Sequence[Column]) -> None:
        """A table of these columns, without rows."""
        self._columns = tuple(columns)
        self._rows: list[tuple[tuple[Cell, ...], bool]] = []

    def add_row(self, *cells: Cell, style: str | None = None) -> None:
        """Add a row with a cell for every column; the style ``bold`` marks it on a terminal."""
        if len(cells) != len(self._columns):
            raise ValueError(f"{len(cells)} cells for {len(self._columns)} columns")
        self._rows.append((cells, style == "bold"))

    def lines(self, width: int | None = None) -> list[Line]:
        """The lines of the table.

        Args:
            width: how many letters a line may have; None: however many. A word that is longer alone is not broken.
        """
        given = _Given()
        for given in self._ways():
            if width is None or self._least(given) <= width:
                break
        return self._set(given, width)

    def _ways(self) -> Iterator[_Given]:
        """The forms of the table, the fullest first."""
        given = _Given()
        yield given
        whats: tuple[Literal["short", "fold", "drop"], ...] = ("short", "fold", "drop")
        turns = [
            (turn, number, what)
            for number, column in enumerate(self._columns)
            for what in whats
            if (turn := getattr(column, what)) is not None
        ]
        for _, number, what in sorted(turns):
            given = given.and_(what, number)
            yield given
        left = frozenset(number for number, column in enumerate(self._columns) if not column.right)
        yield _Given(given.short, given.fold, given.drop, heads=True)
        yield _Given(given.short, given.fold | left, given.drop, heads=True)

    def _least(self, given: _Given) -> int:
        """The width that a form of the table needs at least."""
        kept = [n for n in range(len(self._columns)) if n not in given.drop]
        return sum(self._narrowest(n, given) for n in kept) + _GAP * (len(kept) - 1)

    def _natural(self, number: int, given: _Given) -> int:
        return max(map(len, (self._head(number, given), *self._cells(number, given))))

    def _narrowest(self, number: int, given: _Given) -> int:
        """The least width of a column: of its longest cell, or word where it is folded."""
        column = self._columns[number]
        natural = self._natural(number, given)
        cells = self._cells(number, given)
        if number in given.fold:
            words = [word for text in (self._head(number, given), *cells) for word in text.split()]
            return max(max(map(len, words), default=0), min(column.least if column.fold is not None else 0, natural))
        if given.heads:
            return max(map(len, (*self._head(number, given).split(), *cells)), default=0)
        return natural

    def _head(self, number: int, given: _Given) -> str:  # noqa: ARG002  one signature with the cells
        return self._columns[number].name

    def _cells(self, number: int, given: _Given) -> list[str]:
        return [_form(cells[number], short=number in given.short) for cells, _ in self._rows]

    def _set(self, given: _Given, width: int | None) -> list[Line]:
        kept = [n for n in range(len(self._columns)) if n not in given.drop]
        widths = {n: self._narrowest(n, given) for n in kept}
        if width is not None:
            free = width - sum(widths.values()) - _GAP * (len(kept) - 1)
            for n in kept:
                more = max(0, min(free, self._natural(n, given) - widths[n]))
                widths[n] += more
                free -= more
        found = [Line(text, bold=True) for text in self._row([self._head(n, given) for n in kept], kept, widths, -1)]
        for cells, bold in self._rows:
            texts = [_form(cells[n], short=n in given.short) for n in kept]
            found += [Line(text, bold) for text in self._row(texts, kept, widths, 1)]
        return [*found, *(Line(text) for text in self._keys(given, width))]

    def _keys(self, given: _Given, width: int | None) -> Iterator[str]:
        """What short forms mean, where any are used."""
        for number in sorted(given.short - given.drop):
            key = self._columns[number].key
            if text := key(self._cells(number, given)) if key else "":
                yield from _folded(text, width or len(text))

    def _row(self, texts: Sequence[str], kept: Sequence[int], widths: dict[int, int], way: int) -> Iterator[str]:
        """The lines of one row; of the head (``way`` -1) all end together, of the others they begin so."""
        folded = [_folded(text, widths[n])[::way] for n, text in zip(kept, texts, strict=True)]
        lines = []
        for parts in zip_longest(*folded, fillvalue=""):
            cells = [
                part.rjust(widths[n]) if self._columns[n].right else part.ljust(widths[n])
                for n, part in zip(kept, parts, strict=True)
            ]
            lines.append((" " * _GAP).join(cells).rstrip())
        yield from lines[::way]


def _form(cell: Cell, *, short: bool) -> str:
    return cell if isinstance(cell, str) else cell[short]


def _folded(text: str, width: int) -> list[str]:
    """A text in lines of a width, no word broken."""
    if len(text) <= width:
        return [text]
    return wrap(text, max(1, width), break_long_words=False, break_on_hyphens=False) or [""]
