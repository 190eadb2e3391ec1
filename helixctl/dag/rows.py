"""A long dag, read row by row, however it is laid out: every row becomes its object at once, and a bad one ends it."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from helixctl.dag.document import Dag, Task, Tensor, Value
from helixctl.errors import Diagnostic, HelixError
from helixctl.spec.json_slips import position_at
from helixctl.spec.json_text import JsonCursor
from helixctl.spec.limits import MAX_NBYTES
from helixctl.spec.load import validate_document

_ROWS: Final[dict[str, Any]] = {"tensors": Tensor, "values": Value, "tasks": Task, "order": list[str]}
# More rows of the order than a dag of 64 MiB can have ranks with a task.
_MOST_RANKS: Final = 2**17


@cache
def _adapter(table: str) -> TypeAdapter[Any]:
    return TypeAdapter(_ROWS[table])


def read_rows(text: str, file: str) -> dict[str, Any]:
    """The mapping that a dag's text holds; its rows are objects of their classes already.

    Raises:
        HelixError: HX102 or HX107: the text is not JSON. HX401 or HX403: a row is none, or its name is taken.
    """
    try:
        return _Reader(text, file).read()
    except HelixError as error:
        raise HelixError([d.at(file, d.line, d.col) for d in error.diagnostics]) from None


class _Reader:
    def __init__(self, text: str, file: str) -> None:
        self._cursor = JsonCursor(text)
        self._file = file

    def read(self) -> dict[str, Any]:
        cursor, found = self._cursor, dict[str, Any]()
        left, places = MAX_NBYTES, dict[str, int]()
        for key, at in cursor.members():
            if key in found:
                first = position_at(cursor.text, places[key])[0]
                message = f"key {key!r} is given twice, first on line {first}"
                raise self._refused("HX107", message, at, "remove one of them")
            places[key] = at
            if key in _ROWS and cursor.space() == "[":
                found[key] = self._table(key)
                continue
            found[key] = cursor.value(left)
            left -= cursor.at - at
            if left <= 0:
                message = f"holds more than {MAX_NBYTES // 2**20} MiB beside its tables"
                raise self._refused("HX401", message, at, f"the tables of a dag are {', '.join(_ROWS)}")
        cursor.end()
        return found

    def _table(self, name: str) -> list[Any]:
        cursor, adapter, rows = self._cursor, _adapter(name), list[Any]()
        names: set[str] = set()
        for index in cursor.items():
            at = cursor.at
            row = cursor.value()
            try:
                rows.append(adapter.validate_python(row))
            except ValidationError:
                raise self._bad_row(name, [*rows, row]) from None
            if name != "order":
                own = rows[-1].name if name == "tensors" else rows[-1].id
                if own in names:
                    raise self._refused("HX403", f"{name[:-1]} {own} is declared twice", at)
                names.add(own)
            elif index == _MOST_RANKS:
                raise self._refused("HX401", f"the order is given for more than {_MOST_RANKS:,} ranks", at)
        return rows

    def _bad_row(self, table: str, rows: list[Any]) -> HelixError:
        """What is wrong with the last of these rows, as validating the whole dag would say it."""
        try:
            validate_document(Dag, {table: rows}, self._cursor.text, self._file, malformed="HX401")
        except HelixError as error:
            of_table = [d for d in error.diagnostics if d.path is not None and d.path.startswith(f"{table}[")]
            return HelixError(of_table)
        raise TypeError(table)  # its class refused the row, so that of the dag does

    def _refused(self, code: str, message: str, at: int, hint: str | None = None) -> HelixError:
        return HelixError(Diagnostic(code, message, hint, None, *position_at(self._cursor.text, at)))
