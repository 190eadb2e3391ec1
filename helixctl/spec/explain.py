"""From an error of pydantic to a finding in plain words: the field, the bad value, and what is allowed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import ValidationError

from helixctl.records import record
from helixctl.spec.base import Contradiction
from helixctl.spec.fields import (
    Fields,
    Node,
    adapter,
    describe,
    did_you_mean,
    dotted,
    fields_of,
    keys_of,
    meant,
    shown,
)
from helixctl.spec.limits import MOST_FINDINGS, not_shown
from helixctl.spec.yaml_reader import DocumentPath, plain_scalar
from helixctl.units import UnitError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

T = TypeVar("T")
_UNKNOWN: Final = {"extra_forbidden", "unexpected_keyword_argument"}
_JSON_TYPES: Final = {int: "integer", float: "number", bool: "boolean", str: "string"}


@record
class Finding:
    """A diagnostic that has no line yet.

    Attributes:
        of_key: the key at ``path`` is at fault rather than its value.
        last: it says how much more is wrong; it has no place.
    """

    code: str
    message: str
    hint: str | None
    path: DocumentPath
    of_key: bool
    last: bool = False


def examined(cls: type[T], data: Any) -> tuple[T | None, list[Finding]]:
    """The object that data stands for, or what is wrong with it: everything, but of very much only the first."""
    hashable: Any = cls  # which mypy does not believe of a class
    try:
        return adapter(hashable).validate_python(data), []
    except ValidationError as error:
        fields = fields_of(hashable)
        errors = error.errors(include_url=False)
        findings = [explain(item, fields, data) for item in errors[:MOST_FINDINGS]]
        if more := len(errors) - len(findings):
            findings.append(Finding(findings[-1].code, not_shown(more), None, (), of_key=False, last=True))
        return None, findings


def explain(error: ErrorDetails, fields: Fields, data: Any) -> Finding:
    """One error of the ValidationError over ``data``, in plain words."""
    loc, kind = error["loc"], error["type"]
    if kind in _UNKNOWN or loc[-1:] == ("[key]",):
        return _unknown_key(loc, fields, data)
    if kind == "missing" and isinstance(loc[-1], str):
        return _missing_key(loc[:-1], loc[-1], fields)
    if kind == "union_tag_not_found":
        _, node = fields.follow(loc)
        return _missing_key(loc, node["discriminator"]["propertyName"], fields)
    cause = error.get("ctx", {}).get("error")
    if cause is not None:
        return _refused_by_a_rule(loc, cause, fields)
    return _wrong_value(loc, error, fields)


def _unknown_key(loc: DocumentPath, fields: Fields, data: Any) -> Finding:
    path, _ = fields.follow(loc)
    _, parent = fields.follow(loc[: -2 if loc[-1] == "[key]" else -1])
    for part in path[:-1]:
        data = data[part]
    key, known = str(path[-1]), keys_of(parent)
    hint = did_you_mean(key, [name for name in known if name not in data])
    if hint is None:  # `batch` at the root of a model is meant for workload.batch
        hint = meant([dotted(leaf) for leaf in fields.leaves() if leaf[-1] == key])
    return Finding(
        "HX103",
        f"unknown key {shown(key)}{_within(path[:-1])}",
        hint or f"known keys: {', '.join(known)}",
        path,
        of_key=True,
    )


def _missing_key(loc: DocumentPath, key: str, fields: Fields) -> Finding:
    path, node = fields.follow(loc)
    hint = f"{key} is {describe(fields.step(node, key))}"
    return Finding("HX104", f"missing key {key!r}{_within(path)}", hint, path, of_key=True)


def _refused_by_a_rule(loc: DocumentPath, cause: Exception, fields: Fields) -> Finding:
    path, node = fields.follow(loc)
    message = f"{dotted(path)}: {cause}" if path else str(cause)
    if isinstance(cause, Contradiction):
        return Finding("HX109", message, None, (*path, cause.field), of_key=True)
    if isinstance(cause, UnitError):
        return Finding("HX106", message, cause.hint, path, of_key=False)
    return Finding("HX105", message, None, path, of_key="object" in node.get("type", ""))


def _wrong_value(loc: DocumentPath, error: ErrorDetails, fields: Fields) -> Finding:
    value: Any = error["input"]
    if error["type"] == "missing":  # an item of a list of fixed length; the input is the list
        loc = loc[:-1]
    path, node = fields.follow(loc)
    node = fields.option(node, value)
    if error["type"] == "union_tag_invalid":
        tag = node["discriminator"]["propertyName"]
        path, value, node = (*path, tag), value[tag], fields.step(node, tag)
    message = f"{dotted(path) or 'the document'} must be {describe(node)}, {_not(value, node)}"
    return Finding("HX105", message, _way_out(value, node), path, of_key=not isinstance(value, str | int | float))


def _not(value: object, node: Node) -> str:
    """The bad value as the end of a sentence."""
    if value is None:
        return "but has no value"
    text_for_another = isinstance(value, str) and node.get("type", "string") != "string"
    return f"not {'the text ' if text_for_another else ''}{shown(value)}"


def _way_out(value: object, node: Node) -> str | None:
    kind = node.get("type")
    if isinstance(value, str):
        if "enum" in node:
            return did_you_mean(value, [str(allowed) for allowed in node["enum"]])
        if _JSON_TYPES.get(type(_plain(value)), "string") == kind != "string":
            return f"write {value} without quotes"
        return _allowed_name(value, node.get("pattern"))
    if isinstance(value, float) and value.is_integer() and kind == "integer":
        return f"write {int(value)}"
    if isinstance(value, int | float) and kind == "string" and "enum" not in node:
        return f'write "{shown(value)}", in quotes'
    return None


def _plain(text: str) -> object:
    try:
        return plain_scalar(text)
    except ValueError:  # more digits than Python reads
        return text


def _allowed_name(text: str, pattern: str | None) -> str | None:
    """A text close to a bad one that the pattern lets through: "my-model" for "my model"."""
    candidate = re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-._+")
    fits = pattern is not None and candidate != text and re.search(pattern, candidate)
    return f"did you mean {shown(candidate)}?" if fits else None


def _within(path: DocumentPath) -> str:
    return f" in {dotted(path)}" if path else ""
