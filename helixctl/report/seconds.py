"""Seconds beside the milliseconds of a report: base units, and the keys that have been read so far."""

from __future__ import annotations

import re
from typing import Any, Final

_MILLISECONDS: Final = re.compile(r"_ms(?=_|$)")
_NO_TIMES: Final = {"n", "ratio"}  # beside times in a value


def with_seconds(document: dict[str, Any]) -> dict[str, Any]:
    """The same with ``step_time_s`` behind ``step_time_ms``, and so on, at any depth.

    Args:
        document: JSON-ready data. The value of a key in ms is a number, null, or an object of such.

    Returns:
        A copy. A key in seconds that is there already keeps its value.
    """
    found: dict[str, Any] = {}
    for key, value in document.items():
        found[key] = _inside(value)
        name = _MILLISECONDS.sub("_s", key)
        if name != key and name not in document:
            found[name] = _seconds(value)
    return found


def _inside(value: Any) -> Any:
    if isinstance(value, list):
        return [_inside(item) for item in value]
    return with_seconds(value) if isinstance(value, dict) else value


def _seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: its if key in _NO_TIMES else _seconds(its) for key, its in value.items()}
    return None if value is None else value / 1e3
