"""From a path to text, and from text to a mapping; all that is wrong is said with its place."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Final, Never

from helixctl.errors import Diagnostic, HelixError
from helixctl.spec.yaml_reader import YamlReader

MAX_NBYTES: Final = 64 * 2**20
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def read_text(path: str, max_nbytes: int = MAX_NBYTES) -> str:
    """The text of a file, or of standard input for "-".

    Raises:
        HelixError: HX101.
    """
    try:
        data = _read_bytes(path, max_nbytes + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise HelixError(Diagnostic("HX101", f"cannot be read: {reason}", file=path)) from None
    except ValueError:  # a null byte in the path
        raise HelixError(Diagnostic("HX101", "cannot be read: not a path", file=path)) from None
    if len(data) > max_nbytes:
        message = f"is larger than {max_nbytes // 2**20} MiB, the most that is read"
        raise HelixError(Diagnostic("HX101", message, file=path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        col = error.start - data.rfind(b"\n", 0, error.start)
        message = f"is not UTF-8: byte 0x{data[error.start]:02x}"
        raise HelixError(Diagnostic("HX101", message, "save the file as UTF-8", path, line, col)) from None


def _read_bytes(path: str, most: int) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read(most)
    with Path(path).open("rb") as stream:
        return stream.read(most)


def parse_mapping(text: str, file: str) -> dict[str, Any]:
    """The mapping that a YAML or JSON text holds.

    Raises:
        HelixError: HX102, HX107 or HX110, each with its place.
    """
    try:
        data = _parse(text)
    except HelixError as error:
        raise HelixError([d.at(file, d.line, d.col) for d in error.diagnostics]) from None
    if isinstance(data, dict):
        return data
    found = "is empty" if data is None else f"holds {'a list' if isinstance(data, list) else 'one value'}"
    message = f"{found}, where a mapping of keys to values is expected"
    raise HelixError(Diagnostic("HX110", message, file=file))


def _parse(text: str) -> Any:
    if text.lstrip()[:1] == "{":
        try:
            return _parse_json(text)
        except _DuplicateKeyError as duplicate:
            _explain_duplicate(text, duplicate)
        except (ValueError, RecursionError):
            pass  # YAML's flow style begins like JSON; if it is neither, the YAML reader says where
    return YamlReader(text).read()


class _DuplicateKeyError(ValueError):
    """A JSON object with one key twice; JSON's own reader would keep the last."""


def _parse_json(text: str) -> Any:
    """JSON, some 50 times as fast as through YAML's events."""
    data = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    if _SURROGATE.search(text):
        json.dumps(data, ensure_ascii=False).encode()  # raises where one stands alone: no text could hold it
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKeyError(next(key for key in keys if keys.count(key) > 1))
    return found


def _no_constant(name: str) -> Never:
    raise ValueError(name)  # NaN and Infinity are no JSON


def _explain_duplicate(text: str, duplicate: _DuplicateKeyError) -> Never:
    """Read again for the place; a text that is JSON but not YAML still has its duplicate."""
    try:
        YamlReader(text).read()
    except HelixError as error:
        if any(d.code == "HX107" for d in error.diagnostics):
            raise
    raise HelixError(Diagnostic("HX107", f"key {duplicate.args[0]!r} is given twice", "remove one of them"))
