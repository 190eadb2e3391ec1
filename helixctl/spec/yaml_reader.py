"""YAML without its traps, read from the parser's events.

Plain scalars follow YAML 1.2's core schema, so that a JSON text means the same as in JSON: ``no`` is text, ``1e-5`` is
a number, a date is text. Anchors, aliases, tags, duplicate keys and keys that are not text are refused.

Events rather than ``yaml.compose``: several times as fast, and composing a deeply nested text overflows the C stack.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final, Never

import yaml

from helixctl.errors import Diagnostic, HelixError
from helixctl.records import record
from helixctl.spec.limits import MAX_DEPTH, MAX_YAML, MOST_FINDINGS, shortened

DocumentPath = tuple[str | int, ...]
Position = tuple[int, int]  # line and column, both from 1

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_ALLOWED_TAGS: Final = {None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq"))}
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: Final[dict[str, bool | float | None]] = (
    dict.fromkeys(("", "~", "null", "Null", "NULL"))
    | dict.fromkeys(("true", "True", "TRUE"), True)
    | dict.fromkeys(("false", "False", "FALSE"), False)
    | dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf"))
    | dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf"))
    | dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan"))
)
# What YAML does not allow in a text, not even in quotes. Compiled for an error alone: that takes some milliseconds.
_CONTROL: Final = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"


@record
class Place:
    """Where a node stands, and where its key does (none for the root and for items of a list)."""

    key: Position | None
    value: Position


class YamlReader:
    """One pass over one document. ``places`` holds the places of the ``wanted`` paths, as far as the pass has come."""

    def __init__(self, text: str, wanted: Collection[DocumentPath] = ()) -> None:
        """Read nothing yet.

        Raises:
            HelixError: HX102: the text is too long.
        """
        if len(text) > MAX_YAML:
            message = f"is longer than {MAX_YAML // 1024} KiB, the most that is read of YAML"
            raise HelixError(Diagnostic("HX102", message, "write it as JSON"))
        self._text = text
        self._events = iter(yaml.parse(text, Loader=_LOADER))
        self._wanted = wanted
        self._problems: list[Diagnostic] = []
        self.places: dict[DocumentPath, Place] = {}

    def read(self) -> Any:
        """The document's value; None where the text is empty.

        Raises:
            HelixError: HX102 or HX107 with line and column; the file is for the caller to add.
        """
        try:
            value = self._document()
        except yaml.YAMLError as error:
            raise HelixError(_not_well_formed(error, self._text)) from None
        except UnicodeEncodeError:  # a lone surrogate, which only a command line can hold
            raise HelixError(Diagnostic("HX102", "holds bytes that are not UTF-8")) from None
        if self._problems:
            raise HelixError(self._problems)
        return value

    def _document(self) -> Any:
        next(self._events)  # the stream starts
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        value = self._node(next(self._events), (), None)
        next(self._events)  # the document ends
        extra = next(self._events)
        if not isinstance(extra, yaml.StreamEndEvent):
            self._refuse(extra.start_mark, "a second document begins here", "give one document per file")
        return value

    def _node(self, event: Any, path: DocumentPath, key: Position | None) -> Any:
        if path in self._wanted:
            self.places[path] = Place(key, _position(event.start_mark))
        if len(path) > MAX_DEPTH:
            self._stop(event.start_mark, f"nested more than {MAX_DEPTH} levels deep")
        if event.anchor is not None:
            self._refuse(event.start_mark, "anchors (&) and aliases (*) are not supported", "write the value out")
        elif event.tag not in _ALLOWED_TAGS:
            self._refuse(event.start_mark, f"tags such as {event.tag} are not supported", "leave the tag out")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        return None  # an alias, refused above

    def _scalar(self, event: Any) -> Any:
        if not event.implicit[0]:  # quoted, a block of text, or tagged as text
            return event.value
        try:
            return plain_scalar(event.value)
        except ValueError:  # Python's own limit on the digits of an integer
            self._refuse(event.start_mark, f"a number of {len(event.value)} digits")
            return None

    def _sequence(self, path: DocumentPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, (*path, len(items)), None))
        return items

    def _mapping(self, path: DocumentPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            mark: Any = event.start_mark
            key = self._node(event, (*path, -1), None)  # -1: a key has no path of its own
            if not isinstance(key, str):
                shown = event.value if isinstance(event, yaml.ScalarEvent) else "this one"
                self._refuse(mark, f"a key must be text, which {shown or 'an empty one'} is not", "put it in quotes")
                key = ""
            elif key in lines:
                message = f"key {shortened(repr(key))} is given twice, first on line {lines[key]}"
                self._note(Diagnostic("HX107", message, "remove one of them", None, *_position(mark)))
            lines.setdefault(key, mark.line + 1)
            found[key] = self._node(next(self._events), (*path, key), _position(mark))
        return found

    def _refuse(self, mark: Any, message: str, hint: str | None = None) -> None:
        self._note(Diagnostic("HX102", message, hint, None, *_position(mark)))

    def _note(self, problem: Diagnostic) -> None:
        self._problems.append(problem)
        if len(self._problems) == MOST_FINDINGS:
            line, col = problem.line, problem.col
            self._problems.append(
                Diagnostic(problem.code, "reading ended here: too much is wrong", None, None, line, col)
            )
            raise HelixError(self._problems)

    def _stop(self, mark: Any, message: str) -> Never:
        self._refuse(mark, message)
        raise HelixError(self._problems)


def plain_scalar(text: str) -> str | int | float | bool | None:
    """What unquoted text means in YAML 1.2's core schema, less its octal and hexadecimal numbers."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _position(mark: Any) -> Position:
    return (mark.line + 1, mark.column + 1)


def _not_well_formed(error: yaml.YAMLError, text: str) -> Diagnostic:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        line, col = _position(error.problem_mark)
        message, hint = _reworded(error, text[error.problem_mark.index : error.problem_mark.index + 1])
        return Diagnostic("HX102", message, hint, None, line, col)
    if found := re.search(_CONTROL, text):
        before = text[: found.start()]
        line, col = before.count("\n") + 1, found.start() - before.rfind("\n")
        return Diagnostic("HX102", f"character U+{ord(found[0]):04X} is not allowed", None, None, line, col)
    return Diagnostic("HX102", " ".join(str(error).split()))


def _reworded(error: yaml.MarkedYAMLError, character: str) -> tuple[str, str | None]:
    """Message and hint; the parser's own words where no better ones are known."""
    problem = error.problem or ""
    if character == "\t":
        return "a tab in the indentation", "indent with spaces"
    if "cannot start any token" in problem:
        return f"a value cannot begin with {character!r}", "put it in quotes"
    if "mapping values are not allowed" in problem:
        return "a ':' where no key can end", "check the indentation; text that holds ': ' needs quotes"
    return ", ".join(part for part in (error.context, problem) if part), None
