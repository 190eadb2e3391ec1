"""A long dag, read row by row as helixctl writes it: the first line that is no such row ends it. Junk costs little."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from helixctl.dag.document import Task, Tensor, Value
from helixctl.errors import Diagnostic, HelixError
from helixctl.spec.limits import MAX_NBYTES
from helixctl.spec.parse import strict_json

_ROWS: Final[dict[str, TypeAdapter[Any]]] = {
    "tensors": TypeAdapter(Tensor),
    "values": TypeAdapter(Value),
    "tasks": TypeAdapter(Task),
    "order": TypeAdapter(list[str]),
}
_Ended = Literal["and another follows", "and so does the dag", "at a bad row"]
_TABLE: Final = re.compile(r'"(\w{1,20})": ?\[')
# Characters: the order of one rank names all of its tasks.
_LONGEST_LINE: Final = 8 * MAX_NBYTES


def read_rows(text: str, file: str) -> dict[str, Any]:
    """The mapping that a dag's text holds; its rows are objects of their classes already.

    A row that is none stands as it is, and nothing after it is read: validating the mapping refuses it.

    Raises:
        HelixError: HX102, HX107 or HX401: the text is not JSON, or not laid out as ``Dag.to_json`` does it.
    """
    lines = _Lines(text, file)
    head: list[str] = []
    left = MAX_NBYTES  # that the head may be longer
    tables: dict[str, Any] = {}
    for line in lines:
        table = _TABLE.fullmatch(line)
        if table is None and not tables and left > 0:
            head.append(line)
            left -= len(line) + 1
            continue
        if table is None or table[1] not in _ROWS or table[1] in tables:
            raise lines.refused()
        rows = tables[table[1]] = []
        ended = _read_table(lines, _ROWS[table[1]], rows)
        if ended == "at a bad row":
            tables = dict.fromkeys(_ROWS, ()) | tables  # that the others are not there is not to be said
        if ended != "and another follows":
            return _head(head, lines) | tables
    raise lines.refused()


def _head(head: Sequence[str], lines: _Lines) -> dict[str, Any]:
    """What stands before the tables."""
    found: dict[str, Any] = lines.parsed("\n".join(head).rstrip().removesuffix(",") + "}", 1)
    if twice := sorted(found.keys() & _ROWS.keys()):
        raise HelixError(Diagnostic("HX107", f"key {twice[0]!r} is given twice", "remove one of them", lines.file))
    return found


def _read_table(lines: _Lines, adapter: TypeAdapter[Any], rows: list[Any]) -> _Ended:
    """Fill in the rows of a table."""
    more = True  # the row before this one ends in a comma, or there is none
    for line in lines:
        if line == "]," and not (rows and more):
            return "and another follows"
        if line == "]}" and not (rows and more):
            lines.end()
            return "and so does the dag"
        if not more:
            break
        more = line.endswith(",")
        row = lines.parsed(line.removesuffix(","), lines.number)
        try:
            rows.append(adapter.validate_python(row))
        except ValidationError:
            rows.append(row)
            return "at a bad row"
    raise lines.refused()


class _Lines:
    """The lines of a text, one by one."""

    def __init__(self, text: str, file: str) -> None:
        """Begin before the first."""
        self.number = 0
        self._text = text
        self.file = file
        self._at = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._at >= len(self._text):
            raise StopIteration
        self.number += 1
        end = self._text.find("\n", self._at, self._at + _LONGEST_LINE)
        if end < 0 and self._at + _LONGEST_LINE < len(self._text):
            raise self.refused()
        line = self._text[self._at : end if end >= 0 else None]
        self._at = end + 1 if end >= 0 else len(self._text)
        return line

    def end(self) -> None:
        """Nothing may follow.

        Raises:
            HelixError: something does.
        """
        if self._text[self._at :].strip():
            self.number += 1
            raise self.refused()

    def parsed(self, text: str, number: int) -> Any:
        """What a part of the text holds, which begins on the line of this number.

        Raises:
            HelixError: HX102 or HX107: it is not JSON.
        """
        try:
            return strict_json(text)
        except HelixError as error:
            found = [d.at(self.file, number + (d.line or 1) - 1, d.col) for d in error.diagnostics]
            raise HelixError(found) from None

    def refused(self) -> HelixError:
        """This line is not as helixctl writes it."""
        message = f"a dag of more than {MAX_NBYTES // 2**20} MiB must be as helixctl writes it, which this line is not"
        hint = "one tensor, value, task or rank's order a line: helixctl plan --dag"
        return HelixError(Diagnostic("HX401", message, hint, self.file, self.number, 1))
