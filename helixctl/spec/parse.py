"""From a path to text, and from text to a mapping; all that is wrong is said with its place."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from helixctl.errors import Diagnostic, HelixError
from helixctl.spec.json_text import SlipError, json_value
from helixctl.spec.limits import MAX_DAG_NBYTES, MAX_NBYTES, MAX_YAML
from helixctl.spec.named import looks_like_a_cluster, named_cluster, way_to_a_cluster
from helixctl.spec.named_models import of_the_hub, way_to_a_model
from helixctl.spec.yaml_reader import YamlReader

Wanted = Literal["model", "cluster"] | None
_LFS_POINTER: Final = "version https://git-lfs.github.com/"
_HUB_ID: Final = re.compile(r"(?:https?://(?:huggingface\.co|hf\.co)/)?([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)/?")
_FEW: Final = 5  # files of a folder that are named
# A text that may be JSON, and the key by which a long one says that it is a dag, wherever a formatter put it.
_OBJECT: Final = re.compile(rb"(?:\xef\xbb\xbf)?(?:[ \t\r\n]|//[^\n]{0,1000}\n){0,100}\{")
# JSON behind comments, as editors allow it.
_COMMENTED: Final = re.compile(r"\s*(?:(?://[^\n]*\n|/\*.*?\*/)\s*)+\{", re.DOTALL)
_CONFLICT: Final = re.compile(r"^(?:<{7}|={7}|>{7})(?: .*)?$", re.MULTILINE)
_DAG: Final = re.compile(rb'"\$schema"\s{0,100}:\s{0,100}"urn:helixctl:dag:')


def read_text(path: str, *, dags: bool = False, wanted: Wanted = None) -> str:
    """The text of a file, of standard input for "-", or of a cluster by name: ``h100:2x8``.

    Args:
        path: the file, or the name; a file that has the name of a cluster is written ``./h100:2x8``.
        dags: a dag may be read, which may be longer than anything else.
        wanted: what the file must be, so that a text that is no file was meant to name one.

    Raises:
        HelixError: HX101; HX105, the name of a cluster says no number of GPUs.
    """
    if named := named_cluster(path):
        return named.text
    try:
        data = _read_bytes(path, dags=dags)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        way = _way_to(path, error, wanted)
        raise HelixError(Diagnostic("HX101", f"cannot be read: {reason}", way, path)) from None
    except ValueError:  # a null byte in the path
        raise HelixError(Diagnostic("HX101", "cannot be read: not a path", file=path)) from None
    if len(data) > MAX_DAG_NBYTES:
        message = f"is larger than {MAX_DAG_NBYTES // 2**20} MiB, the most that is read of a dag"
        raise HelixError(
            Diagnostic(
                "HX101", message, "write it without indentation, or give its plan, which says the same in a page", path
            )
        )
    if len(data) > MAX_NBYTES and not (dags and _is_dag(data)):
        message = f"is larger than {MAX_NBYTES // 2**20} MiB, the most that is read of anything but a dag"
        raise HelixError(Diagnostic("HX101", message, "a dag is JSON and has a $schema" if dags else None, path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        col = error.start - data.rfind(b"\n", 0, error.start)
        utf_16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        message = "is UTF-16, not UTF-8" if utf_16 else f"is not UTF-8: byte 0x{data[error.start]:02x}"
        raise HelixError(Diagnostic("HX101", message, "save the file as UTF-8", path, line, col)) from None


def _way_to(path: str, error: OSError, wanted: Wanted) -> str | None:
    """What was meant by a path that is no file: a name of ours, a model of the hub, or a file in a folder."""
    if isinstance(error, IsADirectoryError):
        try:
            inside = sorted(p.name for p in Path(path).iterdir() if p.suffix in {".yaml", ".yml", ".json"})
        except OSError:
            inside = []
        return f"a file is needed; in the folder there are {', '.join(inside[:_FEW])}" if inside else None
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        return None
    if way := _way_to_a_name(path, wanted):
        return way
    file = Path(path)
    if file.name == "config.json" and file.parent.is_dir():
        return "the folder has no config.json, by which it would be a model"
    hub = _HUB_ID.fullmatch(path)
    if hub is None or file.parent.exists() or file.suffix in {".json", ".yaml", ".yml"}:
        return None
    return of_the_hub(hub[1])


def _way_to_a_name(text: str, wanted: Wanted) -> str | None:
    if (wanted == "cluster" or looks_like_a_cluster(text)) and (way := way_to_a_cluster(text)):
        return way
    return None if wanted == "cluster" else way_to_a_model(text, wanted=wanted == "model")


def _read_bytes(path: str, *, dags: bool) -> bytes:
    """All of it, or more than may be."""
    if path == "-":
        return _read_some(sys.stdin.buffer, dags=dags)
    with Path(path).open("rb") as stream:
        return _read_some(stream, dags=dags)


def _read_some(stream: BinaryIO, *, dags: bool) -> bytes:
    data = stream.read(MAX_NBYTES + 1)
    may_be_a_dag = dags and len(data) > MAX_NBYTES and _OBJECT.match(data)
    return data + stream.read(MAX_DAG_NBYTES + 1 - len(data)) if may_be_a_dag else data


def _is_dag(data: bytes) -> bool:
    return _OBJECT.match(data) is not None and _DAG.search(data) is not None


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
        problems = [d.at(file, d.line, d.col) for d in error.diagnostics]
        if conflict := _CONFLICT.search(text):
            line = text.count("\n", 0, conflict.start()) + 1
            problems = [
                Diagnostic("HX102", "a conflict that git left to be resolved", "resolve the merge", file, line, 1)
            ]
        raise HelixError(problems) from None
    if isinstance(data, dict):
        return data
    found = "is empty" if data is None else f"holds {'a list' if isinstance(data, list) else 'one value'}"
    message = f"{found}, where a mapping of keys to values is expected"
    raise HelixError(Diagnostic("HX110", message, file=file))


def _parse(text: str) -> Any:
    if text.lstrip()[:1] != "{":
        if _COMMENTED.match(text):
            return json_value(text)  # which says where the comment is
        return YamlReader(text).read()
    try:
        return json_value(text)
    except HelixError as no_json:
        # YAML's flow style begins like JSON, and has other rules.
        if len(text) > MAX_YAML or _ends_in_a_comment(no_json):
            raise
        return _flow_style(text, no_json)


def _ends_in_a_comment(error: HelixError) -> bool:
    """Whether JSON ends where a comment of JavaScript begins: YAML would take it for a part of the key after it."""
    return error.diagnostics[0].message.startswith("a comment (/")


def _flow_style(text: str, no_json: HelixError) -> Any:
    """The text as YAML; where it is none either, what is wrong with it as what it looks like."""
    try:
        return YamlReader(text).read()
    except HelixError as error:
        meant_as_json = isinstance(no_json, SlipError) and text.lstrip()[1:].lstrip()[:1] == '"'
        duplicate = no_json.diagnostics[0].code == "HX107" and error.diagnostics[0].code != "HX107"
        raise (no_json if meant_as_json or duplicate else error) from None
