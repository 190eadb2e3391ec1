"""JSON, read value by value: so that a long text needs little memory, and so that every value has a place.

A value is read in a window of the text that ends, so that junk of many megabytes is refused when it has cost a few.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, Never

from helixctl.errors import Diagnostic, HelixError
from helixctl.spec.json_slips import no_json, position_at
from helixctl.spec.limits import MAX_DEPTH, MAX_NBYTES, shortened

# Characters of one value: the order of one rank names all of its tasks.
LONGEST_VALUE: Final = 8 * MAX_NBYTES
_WINDOW: Final = 2**16
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_NO_NUMBER: Final = re.compile(r'"(?:[^"\\]|\\.)*"|(NaN|-?Infinity|[0-9]{4301,})')  # Python reads 4,300 digits
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:]')


class SlipError(HelixError):
    """The text is not JSON where JSON's reader stopped."""


class DuplicateKeyError(ValueError):
    """A JSON object with one key twice; JSON's own reader would keep the last."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise DuplicateKeyError(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return found


def _no_constant(name: str) -> Never:
    raise ValueError(name)  # NaN and Infinity are no JSON


# One for all calls: a long dag has a call for each of its rows.
_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def json_value(text: str) -> Any:
    """What a text of JSON holds.

    Raises:
        HelixError: HX102 or HX107 with line and column; the file is for the caller to add.
    """
    cursor = JsonCursor(text)
    found = cursor.value(len(text) + 1)
    cursor.end()
    return found


class JsonCursor:
    """A place in a JSON text, which moves over it from value to value."""

    def __init__(self, text: str) -> None:
        """Begin before the first value."""
        self.text = text
        self.at = 0
        self._window, self._begin = "", 0
        self._surrogates = _SURROGATE.search(text) is not None

    def value(self, longest: int = LONGEST_VALUE) -> Any:
        """Read the value that is next.

        Raises:
            HelixError: HX102 or HX107: it is not JSON, or longer than the limit of characters.
        """
        self.space()
        try:
            found, end = _DECODER.raw_decode(self._window, self.at - self._begin)
        except (ValueError, RecursionError):  # it may go on behind the window
            end = len(self._window)
        if end < len(self._window):
            self.at = self._begin + end
        else:
            found = self._in_a_new_window(longest)
        if self._surrogates:
            self._refuse_lone_surrogates(found)
        return found

    def members(self) -> Iterator[tuple[str, int]]:
        """The keys of the object that is next, and where each begins; the caller reads the value before the next."""
        for _ in self._parts("{", "}"):
            at = self.at
            if self.text[at : at + 1] != '"':
                raise self.refused("expecting property name enclosed in double quotes")
            key = self.value()
            self._take(":")
            self.space()
            yield key, at

    def items(self) -> Iterator[int]:
        """The indices of the array that is next; the caller reads the item before the next."""
        yield from self._parts("[", "]")

    def end(self) -> None:
        """See that nothing follows.

        Raises:
            HelixError: HX102: something does.
        """
        self.space()
        if self.at < len(self.text):
            raise self.refused("extra data")

    def space(self) -> str:
        """Move to what is next, and say what it begins with."""
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return self.text[self.at : self.at + 1]

    def refused(self, message: str) -> HelixError:
        """HX102 at this place."""
        return SlipError(no_json(self.text, self.at, message))

    def _parts(self, opens: str, closes: str) -> Iterator[int]:
        self._take(opens)
        if self.space() == closes:
            self.at += 1
            return
        index = 0
        while True:
            self.space()
            yield index
            index += 1
            if self.space() == closes:
                self.at += 1
                return
            self._take(",")

    def _take(self, sign: str) -> None:
        if self.space() != sign:
            raise self.refused(f"expecting {sign!r}")
        self.at += 1

    def _in_a_new_window(self, longest: int) -> Any:
        """Read the value in a short window that begins here; in one of the longest value if that is too short."""
        for size in (min(_WINDOW, longest), longest):
            self._begin, self._window = self.at, self.text[self.at : self.at + size]
            whole = self.at + size >= len(self.text)
            try:
                found, end = _DECODER.raw_decode(self._window)
            except (ValueError, RecursionError) as error:
                if whole or size == longest:
                    raise self._explained(error, cut=not whole) from None
                continue
            if whole or end < len(self._window):
                self.at += end
                return found
        raise self._too_long()

    def _explained(self, error: ValueError | RecursionError, *, cut: bool) -> HelixError:
        start = self.at
        if isinstance(error, DuplicateKeyError):
            return duplicate_key(self.text, error.args[0], _twice(self.text, start, start + len(self._window)), start)
        if isinstance(error, json.JSONDecodeError):
            if cut and (error.pos >= len(self._window) - 8 or error.msg.startswith("Unterminated")):
                return self._too_long()
            return SlipError(no_json(self.text, start + error.pos, error.msg))
        stop = start + len(self._window)
        if isinstance(error, RecursionError):
            place = position_at(self.text, _deep(self.text, start, stop))
            return HelixError(Diagnostic("HX102", "nested too deeply", None, None, *place))
        place = position_at(self.text, _no_number(self.text, start, stop))
        return HelixError(Diagnostic("HX102", f"is no JSON: {shortened(str(error))}", None, None, *place))

    def _too_long(self) -> HelixError:
        message = f"a value of more than {len(self._window):,} characters begins here"
        return HelixError(Diagnostic("HX102", message, None, None, *position_at(self.text, self.at)))

    def _refuse_lone_surrogates(self, value: Any) -> None:
        """No file could hold one."""
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            message = f"is no JSON: {shortened(str(error))}"
            raise HelixError(Diagnostic("HX102", message, None, None, *position_at(self.text, self.at))) from None


def duplicate_key(text: str, key: str, places: tuple[int, int] | None, start: int) -> HelixError:
    """HX107 at the second place of a key; at the value that has it where the places are not known."""
    first = f", first on line {position_at(text, places[0])[0]}" if places else ""
    place = position_at(text, places[1] if places else start)
    message = f"key {shortened(repr(key))} is given twice{first}"
    return HelixError(Diagnostic("HX107", message, "remove one of them", None, *place))


def _twice(text: str, start: int, stop: int) -> tuple[int, int] | None:
    """Where a key stands first and again in one object, in text that is JSON so far."""
    keys: list[dict[str, int]] = []  # of every open object; an array has none
    last, at = "", start
    for token in _TOKEN.finditer(text, start, min(stop, start + MAX_NBYTES)):
        sign = token[0]
        if sign == ":":
            key = json.loads(last)
            if key in keys[-1]:
                return keys[-1][key], at
            keys[-1][key] = at
        elif sign in "{[":
            keys.append({})
        elif sign in "}]":
            keys.pop()
        else:
            last, at = sign, token.start()
    return None


def _deep(text: str, start: int, stop: int) -> int:
    """Where a value is nested more deeply than documents are."""
    depth = 0
    for token in _TOKEN.finditer(text, start, stop):
        depth += (token[0] in "{[") - (token[0] in "}]")
        if depth > MAX_DEPTH + 1:
            return token.start()
    return start


def _no_number(text: str, start: int, stop: int) -> int:
    """Where a number stands that JSON does not have, or Python does not read."""
    found = (match.start() for match in _NO_NUMBER.finditer(text, start, stop) if match[1])
    return next(found, start)
