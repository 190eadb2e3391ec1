"""From a path to text, and from text to a mapping; all that is wrong is said with its place."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO, Final, Never

from helixctl.errors import Diagnostic, HelixError
from helixctl.spec.limits import MAX_DAG_NBYTES, MAX_NBYTES, MAX_YAML, shortened
from helixctl.spec.yaml_reader import YamlReader

_DAG: Final = re.compile(rb'(?:\xef\xbb\xbf)?\s{0,100}\{\s{0,100}"\$schema"\s{0,100}:\s{0,100}"urn:helixctl:dag:')
_LFS_POINTER: Final = "version https://git-lfs.github.com/"
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def read_text(path: str, *, dags: bool = False) -> str:
    """The text of a file, or of standard input for "-".

    Args:
        path: the file.
        dags: a dag may be read, which may be longer than anything else.

    Raises:
        HelixError: HX101.
    """
    try:
        data = _read_bytes(path, dags=dags)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise HelixError(Diagnostic("HX101", f"cannot be read: {reason}", file=path)) from None
    except ValueError:  # a null byte in the path
        raise HelixError(Diagnostic("HX101", "cannot be read: not a path", file=path)) from None
    if len(data) > MAX_DAG_NBYTES:
        message = f"is larger than {MAX_DAG_NBYTES // 2**20} MiB, the most that is read of a dag"
        raise HelixError(Diagnostic("HX101", message, "its plan says the same in a page", path))
    if len(data) > MAX_NBYTES and not (dags and _DAG.match(data)):
        message = f"is larger than {MAX_NBYTES // 2**20} MiB, the most that is read of anything but a dag"
        raise HelixError(Diagnostic("HX101", message, "a dag begins with its $schema" if dags else None, path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        col = error.start - data.rfind(b"\n", 0, error.start)
        message = f"is not UTF-8: byte 0x{data[error.start]:02x}"
        raise HelixError(Diagnostic("HX101", message, "save the file as UTF-8", path, line, col)) from None


def _read_bytes(path: str, *, dags: bool) -> bytes:
    """All of it, or more than may be."""
    if path == "-":
        return _read_some(sys.stdin.buffer, dags=dags)
    with Path(path).open("rb") as stream:
        return _read_some(stream, dags=dags)


def _read_some(stream: BinaryIO, *, dags: bool) -> bytes:
    data = stream.read(MAX_NBYTES + 1)
    return data + stream.read(MAX_DAG_NBYTES + 1 - len(data)) if dags and _DAG.match(data) else data


def parse_mapping(text: str, file: str) -> dict[str, Any]:
    """The mapping that a YAML or JSON text holds.

    Raises:
        HelixError: HX102, HX107 or HX110, each with its place.
    """
    if text.startswith(_LFS_POINTER):
        message = "is a Git LFS pointer, not the file itself"
        raise HelixError(Diagnostic("HX110", message, "in the clone: git lfs pull; or get it with hf download", file))
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
        if len(text) > MAX_YAML:
            return strict_json(text)
        try:
            return _json(text)
        except _DuplicateKeyError as duplicate:
            _explain_duplicate(text, duplicate)
        except (ValueError, RecursionError):
            pass  # YAML's flow style begins like JSON; if it is neither, the YAML reader says where
    return YamlReader(text).read()


def _no_json(error: ValueError | RecursionError) -> Diagnostic:
    """What keeps a text from being JSON."""
    if isinstance(error, json.JSONDecodeError):
        return Diagnostic(
            "HX102", f"is no JSON: {error.msg[0].lower()}{error.msg[1:]}", None, None, error.lineno, error.colno
        )
    message = "nested too deeply" if isinstance(error, RecursionError) else f"is no JSON: {shortened(str(error))}"
    return Diagnostic("HX102", message)


class _DuplicateKeyError(ValueError):
    """A JSON object with one key twice; JSON's own reader would keep the last."""

    def said(self) -> HelixError:
        """HX107, without a place."""
        message = f"key {shortened(repr(self.args[0]))} is given twice"
        return HelixError(Diagnostic("HX107", message, "remove one of them"))


def strict_json(text: str) -> Any:
    """What a text of JSON holds.

    Raises:
        HelixError: HX102 or HX107.
    """
    try:
        return _json(text)
    except _DuplicateKeyError as duplicate:
        raise duplicate.said() from None
    except (ValueError, RecursionError) as error:
        raise HelixError(_no_json(error)) from None


def _json(text: str) -> Any:
    """JSON, some 50 times as fast as through YAML's events."""
    data = _DECODER.decode(text)
    if _SURROGATE.search(text):
        json.dumps(data, ensure_ascii=False).encode()  # raises where one stands alone: no text could hold it
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _DuplicateKeyError(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return found


def _no_constant(name: str) -> Never:
    raise ValueError(name)  # NaN and Infinity are no JSON


# One for all calls: a long dag has a call for each of its lines.
_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _explain_duplicate(text: str, duplicate: _DuplicateKeyError) -> Never:
    """Read again for the place; a text that is JSON but not YAML still has its duplicate."""
    try:
        YamlReader(text).read()
    except HelixError as error:
        if any(d.code == "HX107" for d in error.diagnostics):
            raise
    raise duplicate.said()
