"""What keeps a text from being JSON, in plain words: the slips that people make in it, each at its own place."""

from __future__ import annotations

import re
from typing import Final

from helixctl.errors import Diagnostic
from helixctl.spec.yaml_reader import Position

_Slip = tuple[str, str | None, int]  # message, hint and place
_WORD: Final = re.compile(r"-?[A-Za-z_]+")
_INSTEAD: Final = {
    "None": "null", "True": "true", "False": "false", "NULL": "null", "Null": "null", "nil": "null",
    "undefined": "null", "NaN": "a number, or null", "Infinity": "a number", "-Infinity": "a number",
}  # fmt: skip
_SPACE: Final = frozenset(" \t\r\n")


def position_at(text: str, at: int) -> Position:
    """Line and column, from 1, of a character of a text."""
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def no_json(text: str, at: int, reason: str) -> Diagnostic:
    """HX102 at the slip.

    Args:
        text: the text that is no JSON.
        at: where its reader stopped.
        reason: what the reader says, for slips that are not known here.
    """
    known = _control(text[at : at + 1], at) if reason.startswith("Invalid control character") else _slip(text, at)
    message, hint, at = known or (f"is no JSON: {reason[:1].lower()}{reason[1:]}", None, at)
    return Diagnostic("HX102", message, hint, None, *position_at(text, at))


def _control(sign: str, at: int) -> _Slip | None:
    if sign == "\t":
        return "a tab inside of a text", "write \\t", at
    return ("a line ends inside of a text", "close the quotes, or write \\n", at) if sign in {"\r", "\n"} else None


def _slip(text: str, stopped: int) -> _Slip | None:
    at = _next(text, stopped)
    sign = text[at : at + 1]
    if text.startswith(("//", "/*", "#"), at):
        mark = "#" if sign == "#" else text[at : at + 2]
        return f"a comment ({mark}): JSON has none", "take it out, or write the file as YAML with # comments", at
    if not sign:
        return "ends too early: a closing quote, bracket or brace is missing", None, at
    if sign == "'":
        return "text in single quotes", 'JSON has double quotes: "', at
    if (word := _WORD.match(text, at)) and word[0] in _INSTEAD:
        return f"{word[0]} is no JSON", f"write {_INSTEAD[word[0]]}", at
    return _comma(text, at, sign)


def _comma(text: str, at: int, sign: str) -> _Slip | None:
    """A comma too many, or one too few."""
    before = at
    while before and text[before - 1] in _SPACE:
        before -= 1
    last = text[before - 1 : before]
    if sign in "}]" and last == ",":
        return f"a comma before {sign!r}", "take the comma out", before - 1
    return ("a comma is missing after this", None, before) if sign in '"{[' and last not in ",:{[" else None


def _next(text: str, at: int) -> int:
    while text[at : at + 1] in _SPACE:
        at += 1
    return at
