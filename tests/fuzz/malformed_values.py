"""Malformations of the content of a document: well-formed JSON or YAML, with wrong keys and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.fuzz.malformation import Draw, MalformationRegistry, read

malformation = MalformationRegistry()
Path = tuple[str | int, ...]

_NUMBERS = (0, -1, -0.0, 0.5, 1e30, -1e30, 10**30, -(10**30), 2**31, 2**53 + 1, 2**63, 2**64, 1e308, 5e-324, 10**4000,
            float("nan"), float("inf"), float("-inf"))  # fmt: skip
_TEXTS = ("", " ", "0", "1", "true", "null", "NaN", "x" * 10_000, "\0", "\n", "\ud800", "\u202e", "日本", "😀" * 100,
          "../../etc/passwd", "${HOME}", "{{7*7}}", "[bold]x[/bold", "%s%n", "A" * 101)  # fmt: skip
_OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [{}], {"": None}, [None] * 1000, {"a": {"b": {"c": 1}}})
_QUANTITIES = ("1 parsec", "-3 GB", "1e999 GB/s", "NaN GB", "inf s", "\uff11\uff12 GB", "9" * 400 + " TB", "GB",
               "12", "1 2 GB", "1,5 GB", "0 B", "0 s", "1e-400 s", "3 gb/s", "1 GB/week", "+5 GB")  # fmt: skip
_COUNTS = (2**40, 2**40 - 1, 2**39, 10**9, 999_983, 4096, 4095, 1024, 1023, 720_720)
_KEYS = (
    "",
    " ",
    "$schema",
    "__proto__",
    "__class__",
    "Heads",
    "heads ",
    "héads",
    "\ud800",
    "a.b",
    "a[0]",
    "x" * 5000,
    "<<",
    "0",
    "-",
)


@malformation("a value of another type", 6)
def other_value(draw: Draw) -> bytes:
    return _changed(draw, 5, lambda data: _put(draw, data, _wrong(draw)))


@malformation("a number that cannot be", 4)
def other_number(draw: Draw) -> bytes:
    return _changed(
        draw, 3, lambda data: _put(draw, data, draw.pick(_NUMBERS), draw.random.random() < 0.8 and int | float)
    )


@malformation("a quantity that cannot be", 2)
def other_quantity(draw: Draw) -> bytes:
    return _changed(draw, 3, lambda data: _put(draw, data, draw.pick(_QUANTITIES), str))


@malformation("counts without measure", 6)
def counts(draw: Draw) -> bytes:
    """Each may be allowed; all together would make solving or lowering go on for ever."""
    return _changed(draw, 6, lambda data: _put(draw, data, draw.pick((*_COUNTS, draw.size(1, 2**20))), int))


@malformation("a key is missing", 2)
def missing(draw: Draw) -> bytes:
    data = draw.fresh()
    for _ in range(draw.size(1, 5)):
        path = draw.pick(_paths(data)[1:] or [()])
        if path:
            del _at(data, path[:-1])[path[-1]]
    return draw.written(data)


@malformation("a key is unknown", 2)
def unknown(draw: Draw) -> bytes:
    data = draw.fresh()
    for _ in range(draw.size(1, 5)):
        mappings = [found for path in _paths(data) if isinstance(found := _at(data, path), dict)]
        draw.pick(mappings)[draw.pick((*_KEYS, *read()[draw.name]))] = _wrong(draw)
    return draw.written(data)


@malformation("keys mistyped")
def renamed(draw: Draw) -> bytes:
    data = draw.fresh()
    for _ in range(draw.size(1, 3)):
        path = draw.pick(_paths(data))
        if path and isinstance(key := path[-1], str) and key:
            parent, at = _at(data, path[:-1]), draw.random.randrange(len(key))
            parent[key[:at] + draw.pick(("", "_", "x", key[at] * 2)) + key[at + 1 :]] = parent.pop(key)
    return draw.written(data)


@malformation("parts exchanged with another document's", 3)
def exchanged(draw: Draw) -> bytes:
    other = read()[draw.pick(sorted(read()))]
    return _changed(draw, 5, lambda data: _put(draw, data, _copied(_at(other, draw.pick(_paths(other))))))


@malformation("a part of itself within itself")
def nested(draw: Draw) -> bytes:
    return _changed(draw, 4, lambda data: _put(draw, data, _copied(_at(data, draw.pick(_paths(data))))))


@malformation("lists longer, shorter or turned")
def lists(draw: Draw) -> bytes:
    data = draw.fresh()
    for _ in range(draw.size(1, 4)):
        found = [part for path in _paths(data) if isinstance(part := _at(data, path), list)]
        if found:
            items = draw.pick(found)
            draw.pick(
                (items.clear, items.reverse, lambda i=items: i.extend(i), lambda i=items: i.append(_wrong(draw)))
            )()
    return draw.written(data)


@malformation("not a mapping at all")
def no_mapping(draw: Draw) -> bytes:
    return draw.written(draw.pick((*_NUMBERS, *_TEXTS, *_OTHERS, [draw.fresh()], list(draw.fresh()))))


def _changed(draw: Draw, most: int, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The good document, changed in one place or in some."""
    data = draw.fresh()
    for _ in range(draw.size(1, most)):
        change(data)
    return draw.written(data)


def _wrong(draw: Draw) -> Any:
    return _copied(draw.pick(draw.pick((_NUMBERS, _TEXTS, _OTHERS, _QUANTITIES))))


def _put(draw: Draw, data: dict[str, Any], value: Any, only: Any = object) -> None:
    paths = [path for path in _paths(data)[1:] if isinstance(_at(data, path), only or object)]
    if paths:
        path = draw.pick(paths)
        _at(data, path[:-1])[path[-1]] = value


def _paths(data: Any, path: Path = ()) -> list[Path]:
    """The paths of all parts; of a long list only some, the first and the last among them."""
    found = [path]
    items = enumerate(data) if isinstance(data, list) else data.items() if isinstance(data, dict) else ()
    length = len(data) if isinstance(data, list) else 0
    for key, part in items:
        if length < 20 or key in {0, length // 3, length // 2, length - 1}:
            found += _paths(part, (*path, key))
    return found


def _at(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data


def _copied(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _copied(value) for key, value in data.items()}
    return [_copied(value) for value in data] if isinstance(data, list) else data
