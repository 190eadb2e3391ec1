"""Loading what the user writes: every error of a file at once, each with file, line and column."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, TypeVar

from pydantic import ValidationError

from helixctl.errors import Diagnostic, HelixError
from helixctl.spec.cluster import ClusterSpec
from helixctl.spec.explain import Finding, explain
from helixctl.spec.fields import adapter, dotted, fields_of, keys_of, shown
from helixctl.spec.model import ModelDocument
from helixctl.spec.overrides import Override, apply_overrides, override, parse_overrides
from helixctl.spec.parse import parse_mapping, read_text
from helixctl.spec.positions import locate, position
from helixctl.spec.yaml_reader import DocumentPath, Place

__all__ = [
    "DocumentKind",
    "apply_overrides",
    "document_kind",
    "load_cluster",
    "load_model",
    "load_specs",
    "parse_mapping",
    "parse_overrides",
    "read_text",
    "validate_document",
]

T = TypeVar("T")
DocumentKind = Literal["model", "cluster", "plan", "dag"]

_URN: Final = re.compile(r"urn:helixctl:(plan|dag):(.*)", re.DOTALL)
_VERSION: Final = "1"
# The keys by which a document without a known $schema is told; the kind with most of them wins.
_TELLING_KEYS: Final[dict[DocumentKind, set[str]]] = {
    "cluster": {"hosts", "devices_per_host"},
    "model": {"attention", "layers"},
    "dag": {"tasks", "tensors"},
    "plan": {"layout", "digests"},
}


def load_specs(model: str, cluster: str, sets: Sequence[str] = ()) -> tuple[ModelDocument, ClusterSpec]:
    """Load a model file and a cluster file, with ``--set`` texts applied.

    Raises:
        HelixError: all that is wrong with either file and with the ``--set`` texts.
    """
    if model == cluster == "-":
        raise HelixError(Diagnostic("HX101", "MODEL and CLUSTER cannot both be standard input"))
    problems: list[Diagnostic] = []
    overrides = _attempt(lambda: parse_overrides(sets), problems) or ()
    model_spec = _attempt(lambda: load_model(model, overrides), problems)
    cluster_spec = _attempt(lambda: load_cluster(cluster, overrides), problems)
    if model_spec is None or cluster_spec is None or problems:
        raise HelixError(problems)
    return model_spec, cluster_spec


def load_model(path: str, overrides: Sequence[Override] = ()) -> ModelDocument:
    """Load a model file ("-" is standard input). Overrides of the cluster are passed over."""
    return _load(ModelDocument, "model", path, overrides)


def load_cluster(path: str, overrides: Sequence[Override] = ()) -> ClusterSpec:
    """Load a cluster file ("-" is standard input). Overrides of the model are passed over."""
    return _load(ClusterSpec, "cluster", path, overrides)


def _load(cls: type[T], expected: Literal["model", "cluster"], path: str, overrides: Sequence[Override]) -> T:
    text = read_text(path)
    data = parse_mapping(text, path)
    kind = document_kind(data, path)
    if kind != expected:
        message = f"is a {kind}; it was given as {expected.upper()}"
        hint = "give the model first, then the cluster" if kind in {"model", "cluster"} else None
        raise HelixError(Diagnostic("HX110", message, hint, path))
    mine = [item for item in overrides if item.document == expected]
    return validate_document(cls, override(data, mine), text, path, overrides=mine)


def _attempt(load: Callable[[], T], problems: list[Diagnostic]) -> T | None:
    try:
        return load()
    except HelixError as error:
        problems.extend(error.diagnostics)
        return None


def document_kind(data: dict[str, Any], file: str | None = None) -> DocumentKind:
    """What a document is, by its ``$schema``, else by its keys.

    Raises:
        HelixError: HX304 for a version that this helixctl does not know, HX110 for a document of no known kind.
    """
    schema = data.get("$schema")
    match = _URN.fullmatch(schema) if isinstance(schema, str) else None
    if match is not None and match[2] != _VERSION:
        message = f"{shown(match[0])} is a version that this helixctl does not read"
        hint = f"it reads urn:helixctl:{match[1]}:{_VERSION}; a newer helixctl may read this one"
        raise HelixError(Diagnostic("HX304", message, hint, file, path="$schema"))
    if match is not None:
        return "plan" if match[1] == "plan" else "dag"
    kind = max(_TELLING_KEYS, key=lambda kind: len(_TELLING_KEYS[kind] & data.keys()))
    if _TELLING_KEYS[kind] & data.keys():
        return kind
    message = "is neither a model, a cluster, a plan nor a dag"
    hint = "a model has the keys layers and attention; a cluster has hosts and devices_per_host"
    raise HelixError(Diagnostic("HX110", message, hint, file))


def validate_document(
    cls: type[T],
    data: dict[str, Any],
    text: str,
    file: str,
    *,
    malformed: str | None = None,
    overrides: Sequence[Override] = (),
) -> T:
    """The object that a document's data stands for; a root key ``$schema`` that the class lacks is passed over.

    Args:
        cls: a pydantic model or dataclass.
        data: what ``parse_mapping`` gave, with ``overrides`` applied.
        text: the file's text, to find the lines of errors.
        file: the file's name in diagnostics.
        malformed: the code that takes the place of HX103, HX104 and HX105.
        overrides: the ``--set`` texts applied, so that an error they caused is not laid at the file's door.

    Raises:
        HelixError: everything that is wrong, in the order of the file.
    """
    hashable: Any = cls  # which mypy does not believe of a class
    if "$schema" in data and "$schema" not in keys_of(fields_of(hashable).root):
        data = {key: value for key, value in data.items() if key != "$schema"}
    try:
        return adapter(hashable).validate_python(data)  # type: ignore[no-any-return]
    except ValidationError as error:
        fields = fields_of(hashable)
        findings = [explain(item, fields, data) for item in error.errors(include_url=False)]
    if malformed:
        findings = [replace(f, code=malformed) if f.code in {"HX103", "HX104", "HX105"} else f for f in findings]
    raise HelixError(_placed(findings, text, file, overrides)) from None


def _placed(findings: Sequence[Finding], text: str, file: str, overrides: Sequence[Override]) -> list[Diagnostic]:
    places = locate(text, [finding.path for finding in findings])
    diagnostics = [_place(finding, places, file, overrides) for finding in findings]
    return sorted(diagnostics, key=lambda d: (d.file is None, d.line or 0, d.col or 0))


def _place(finding: Finding, places: dict[DocumentPath, Place], file: str, overrides: Sequence[Override]) -> Diagnostic:
    """A finding is the command line's where --set gave the value at fault, or made the mapping at fault."""
    where = dotted(finding.path) or None
    causes = [item for item in overrides if item.path == finding.path]
    if finding.path not in places:
        causes = [item for item in overrides if item.path[: len(finding.path)] == finding.path]
    if causes:
        return Diagnostic(finding.code, f"{causes[-1]}: {finding.message}", finding.hint, path=where)
    message = finding.message + _in_view_of(finding, overrides)
    line, col = position(places, finding.path, of_key=finding.of_key) or (None, None)
    return Diagnostic(finding.code, message, finding.hint, file, line, col, where)


def _in_view_of(finding: Finding, overrides: Sequence[Override]) -> str:
    """The --set texts that may have a part in a contradiction between fields."""
    scope = finding.path[:-1]
    parts = [str(item) for item in overrides if finding.code == "HX109" and item.path[: len(scope)] == scope]
    return f" (with {', '.join(parts)})" if parts else ""
