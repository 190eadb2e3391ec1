"""What a file holds that an output would replace: told by its content, as documents are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

from helixctl.errors import HelixError
from helixctl.output import SIGNATURE
from helixctl.spec.limits import MAX_DAG_NBYTES
from helixctl.spec.load import document_kind, parse_mapping

Kind = Literal[
    "plan", "dag", "cluster file", "page", "svg drawing", "dot drawing", "png drawing", "pdf drawing", "graph", "trace",
    "report of a run", "prediction", "comparison of plans", "report of validate", "table of plan", "tensor file",
    "launch file", "trace of Chakra", "file of process groups",
    "data of a sweep", "table of a sweep", "page of a sweep", "plot of a sweep",
]  # fmt: skip
_REPORTS: Final[dict[Kind, tuple[str, ...]]] = {
    "report of a run": ("helixctl run", "helixctl run --compare"),
    "prediction": ("helixctl simulate",),
    "comparison of plans": ("helixctl diff",),
    "table of plan": ("helixctl plan",),
    "data of a sweep": ("helixctl sweep",),
}
_SCHEMA: Final = re.compile(rb'"\$schema"\s*:\s*"urn:helixctl:(plan|dag):')
# What the first line of a report of ``validate`` has, as text or for a CI system; the second of one in XML.
_FINDINGS: Final = re.compile(
    rb'\A(?:.*\n)?<testsuites name="helixctl validate"|\A::error |'
    rb"\A.*(?:: valid (?:model|cluster|plan|dag)\b|\bHX[1-5][0-9]{2} )"
)
_LONGEST_HEADER: Final = 10**6


def holds(path: Path, kind: Kind) -> bool:
    """Whether a file is empty, or holds what helixctl writes of this kind."""
    if path.stat().st_size > MAX_DAG_NBYTES and kind not in _LONG:
        return False
    with path.open("rb") as stream:
        data = stream.read(MAX_DAG_NBYTES)
    return not data.strip() or _HELD[kind](data)


def _document(kind: str) -> Callable[[bytes], bool]:
    def held(data: bytes) -> bool:
        schemas = set(_SCHEMA.findall(data)) if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else set()
        # A dag holds its plan.
        return bool(schemas) and (kind == "dag") == (b"dag" in schemas)

    return held


def _cluster(data: bytes) -> bool:
    try:
        return document_kind(parse_mapping(data.decode("utf-8-sig"), "")) == "cluster"
    except (HelixError, UnicodeDecodeError):
        return False


def _report(kind: Kind) -> Callable[[bytes], bool]:
    def held(data: bytes) -> bool:
        found = _json(data)
        return isinstance(found, dict) and found.get("report") in _REPORTS[kind]

    return held


def _findings(data: bytes) -> bool:
    found = _json(data)
    if not isinstance(found, dict):
        return _FINDINGS.search(data) is not None
    runs = found.get("runs")
    tool = runs[0].get("tool") if isinstance(runs, list) and runs and isinstance(runs[0], dict) else None
    return found.get("report") == "helixctl validate" or '"helixctl"' in json.dumps(tool)


def _trace(data: bytes) -> bool:
    return b'"traceEvents"' in data and re.search(rb'"times"\s*:\s*"(?:simulated|measured)', data) is not None


def _tensors(data: bytes) -> bool:
    """A safetensors file with nothing but a model's output."""
    size = int.from_bytes(data[:8], "little")
    header = _json(data[8 : 8 + size]) if size < _LONGEST_HEADER else None
    return isinstance(header, dict) and header.keys() - {"__metadata__"} in ({"logits"}, {"output"}, {"tokens"})


def _groups(data: bytes) -> bool:
    """Numbers of process groups, each with the numbers of its ranks."""
    found = _json(data)
    if not isinstance(found, dict):
        return False
    return all(name.isdecimal() and isinstance(ranks, list) for name, ranks in found.items())


def _chakra(data: bytes) -> bool:
    """The first message of a trace: its length, and a version as field 1."""
    return re.match(rb"[\x80-\xff]{0,4}[\x00-\x7f]\n\x050\.0\.\d", data) is not None


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _with(*parts: bytes) -> Callable[[bytes], bool]:
    return lambda data: all(part in data for part in parts)


# Those that may be longer than a dag: what tells them stands at their beginning.
_LONG: Final[frozenset[Kind]] = frozenset(
    {"tensor file", "trace", "dag", "page", "svg drawing", "dot drawing", "graph", "trace of Chakra"}
)
_HELD: Final[dict[Kind, Callable[[bytes], bool]]] = {
    "plan": _document("plan"),
    "dag": _document("dag"),
    "cluster file": _cluster,
    "page": _with(b"<!DOCTYPE html>", b'placeholder="Search task ids'),
    "svg drawing": _with(b"<svg", b".task.communication text"),
    "dot drawing": _with(b"digraph", b"layout=nop2"),
    "png drawing": _with(b"\x89PNG", b"tEXtSoftware\0" + SIGNATURE),
    "pdf drawing": _with(b"%PDF", b"% " + SIGNATURE),
    "graph": _with(b"<graphml", b'attr.name="plan_digest"'),
    "trace": _trace,
    "report of a run": _report("report of a run"),
    "prediction": _report("prediction"),
    "comparison of plans": _report("comparison of plans"),
    "table of plan": _report("table of plan"),
    "report of validate": _findings,
    "tensor file": _tensors,
    "launch file": _with(b"# written by helixctl export --to "),
    "trace of Chakra": _chakra,
    "file of process groups": _groups,
    "data of a sweep": _report("data of a sweep"),
    "table of a sweep": lambda data: data.startswith(b"batch,input_len,devices,"),
    "page of a sweep": _with(b"<!DOCTYPE html>", b'<body class="sweep">'),
    "plot of a sweep": _with(b"\x89PNG", b"tEXtSoftware\0" + SIGNATURE),
}
