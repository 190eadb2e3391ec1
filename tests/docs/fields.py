"""The fields of spec classes, and those that a table of docs/formats.md names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

# ``| `field` | default | what |``
_ROW = re.compile(r"^\| `([\w.]+)` \| ([^|]*) \| ([^|]*) \|$", re.MULTILINE)


def fields(cls: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The dotted path and the default of every field, and of those of the classes within it; a path may come twice."""
    for name, field in cls.model_fields.items():
        yield prefix + name, "required" if field.is_required() else default_text(cls, name)
        for path, inner in classes(field.annotation):
            yield from fields(inner, f"{prefix}{name}.{path}")


def classes(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """The spec classes that a type holds; of a mapping by dtype they are under ``DTYPE.``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "", annotation
    under = "DTYPE." if getattr(annotation, "__origin__", None) is dict else ""
    for argument in get_args(annotation):
        yield from ((under + path, inner) for path, inner in classes(argument))


def default_text(cls: type[BaseModel], name: str) -> str:
    """A default as the page has it: what a document would hold, or that it is a mapping with its own."""
    value = cls.model_fields[name].get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its defaults"
    value = cls.model_json_schema(mode="serialization")["properties"][name].get("default", value)
    return value if isinstance(value, str) else json.dumps(value)


def rows(section: str) -> dict[str, str]:
    """The default of every field that a section's tables name, and say something of."""
    return {path: default.strip() for path, default, _ in _ROW.findall(section)}
