"""Documents in files: identified by content, proved, and every finding with its position in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from helixctl.dag import Dag
from helixctl.dag.document import DAG_SCHEMA
from helixctl.dag.rows import read_rows
from helixctl.errors import Diagnostic, HelixError
from helixctl.plan import Plan
from helixctl.plan.document import FORMAT_VERSION
from helixctl.records import record
from helixctl.spec import ClusterSpec, ModelDocument
from helixctl.spec.fields import shown
from helixctl.spec.gguf import is_gguf
from helixctl.spec.limits import MAX_DAG_NBYTES, MAX_NBYTES, MOST_FINDINGS, not_shown
from helixctl.spec.load import (
    DocumentKind,
    document_kind,
    document_path,
    load_model,
    parse_mapping,
    parse_overrides,
    read_text,
    validate_document,
    validate_model,
)
from helixctl.spec.overrides import Override, override
from helixctl.spec.positions import locate
from helixctl.spec.yaml_reader import DocumentPath
from helixctl.units import human_bytes

Document = ModelDocument | ClusterSpec | Plan | Dag


@record
class Source:
    """A document whose file was read and whose kind is known; nothing in it is checked yet.

    Attributes:
        file: the path as the user gave it.
        text: the content of the file.
        data: what the text holds.
        kind: model, cluster, plan or dag.
    """

    file: str
    text: str
    data: dict[str, Any]
    kind: DocumentKind


def load_document(path: str, sets: Sequence[str] = ()) -> Document:
    """Read one document of any kind and prove it.

    Args:
        path: a file, ``-`` for standard input, a folder, which stands for the config.json in it, or the name of a
            model or a cluster.
        sets: texts such as ``attention.heads=8``, for a model or a cluster.

    Raises:
        HelixError: it cannot be read, is malformed, or is refused by a proof; HX108, it has no such field to set.
    """
    source = read_document(document_path(path))
    return prove(source, _overrides(sets, source))


def read_document(file: str) -> Source:
    """Read a file and identify the kind of its document.

    Raises:
        HelixError: it cannot be read, is not a mapping, or is of none of the kinds.
    """
    if is_gguf(file):
        return Source(file, "", {}, "model")
    text = read_text(file, dags=True)
    data = read_mapping(text, file)
    return Source(file, text, data, document_kind(data, file))


def read_mapping(text: str, file: str) -> dict[str, Any]:
    """The mapping that a text holds.

    Args:
        text: YAML or JSON.
        file: the path of its file, for messages.

    Raises:
        HelixError: the text is not a mapping.
    """
    if len(text) > MAX_NBYTES:  # only dags may be longer
        return read_rows(text, file)
    return parse_mapping(text, file)


def prove(source: Source, overrides: Sequence[Override] = ()) -> Document:
    """The proved document of a source.

    Args:
        source: the source.
        overrides: fields to set, of documents of its kind.

    Raises:
        HelixError: it is malformed, or is refused by a proof.
    """
    file, text, data = source.file, source.text, source.data
    if is_gguf(file):
        return load_model(file, overrides)
    if source.kind == "model":
        return validate_model(data, text, file, overrides).model
    if source.kind == "cluster":
        return validate_document(ClusterSpec, override(data, overrides), text, file, overrides=overrides)
    if source.kind == "plan":
        plan = read_plan(source)
        _refuse(_plan_findings(plan), text, file)
        return plan
    _check_version(data.get("format_version"), file)
    _check_schema(data, file)
    dag = validate_document(Dag, data, text, file, malformed="HX401")
    findings = _dag_findings(dag)
    _refuse(findings, text, file, _rows(dag, findings) if findings else {})
    return dag


def read_plan(source: Source, *, request: bool = False) -> Plan:
    """The plan of a source, without a proof.

    Args:
        source: a source of the kind plan.
        request: keep what it was asked for with.

    Raises:
        HelixError: it is malformed, or of a version that is not supported.
    """
    _check_version(source.data.get("format_version"), source.file)
    plan = validate_document(Plan, source.data, source.text, source.file, malformed="HX301")
    return plan if request else plan.without_request()


def dag_text(dag: Dag) -> str:
    """The text of a dag's document.

    Raises:
        HelixError: HX305, it is longer than helixctl reads.
    """
    text = dag.to_json()
    if len(text) > MAX_DAG_NBYTES:
        raise HelixError(too_long(dag.plan, f"has {human_bytes(len(text))}"))
    return text


def too_long(plan: Plan, size: str) -> Diagnostic:
    """The diagnostic HX305 of a dag that is too long to be written.

    Args:
        plan: its plan.
        size: the clause that says its size.
    """
    most = f"{MAX_DAG_NBYTES // 2**20} MiB are the most that helixctl reads"
    hint = "write the plan alone: every command takes it in the place of its dag"
    return Diagnostic("HX305", f"layout {plan.layout}: the document of its dag {size}; {most}", hint)


def _overrides(sets: Sequence[str], source: Source) -> tuple[Override, ...]:
    """The overrides that the texts describe.

    Raises:
        HelixError: HX108, a text names a field of another kind of document.
    """
    overrides = parse_overrides(sets)
    if strange := [item for item in overrides if item.document != source.kind]:
        raise HelixError([_wrong_document(item, source) for item in strange])
    return overrides


def _wrong_document(item: Override, source: Source) -> Diagnostic:
    message = f"{item} names a field of a {item.document}, and this is a {source.kind}"
    return Diagnostic("HX108", message, f"set it where the {item.document} is loaded", source.file)


def _plan_findings(plan: Plan) -> list[Diagnostic]:
    from helixctl.verify import verify_plan

    return verify_plan(plan)


def _dag_findings(dag: Dag) -> list[Diagnostic]:
    from helixctl.verify import verify

    return verify(dag)


def _check_version(version: object, path: str) -> None:
    if isinstance(version, str) and version != FORMAT_VERSION:
        message, hint = f"format_version {version} is not supported", f"this helixctl reads {FORMAT_VERSION}"
        raise HelixError(Diagnostic("HX304", message, hint, path))


def _check_schema(data: dict[str, Any], path: str) -> None:
    """Refuse another $schema than that of dags. A dag may lack it, because its keys identify it; a plan has a field."""
    if data.get("$schema", DAG_SCHEMA) != DAG_SCHEMA:
        message = f"$schema must be {DAG_SCHEMA}, not {shown(data['$schema'])}"
        raise HelixError(Diagnostic("HX401", message, None, path, path="$schema"))


def _refuse(findings: list[Diagnostic], text: str, path: str, rows: Mapping[str, DocumentPath] | None = None) -> None:
    """Raise the findings, each with the position of the row that it is about."""
    if findings:
        first, at = findings[:MOST_FINDINGS], rows or {}
        places = locate(text, at.values()) if at else {}
        found = [places.get(at.get(d.path or "", ("",))) for d in first]
        positions = [place.value if place else (None, None) for place in found]
        placed = [d.at(path, line, col) for d, (line, col) in zip(first, positions, strict=True)]
        placed.sort(key=lambda d: (d.line is None, d.line or 0))
        if more := len(findings) - len(first):
            placed.append(Diagnostic(first[-1].code, not_shown(more), file=path))
        raise HelixError(placed)


def _rows(dag: Dag, findings: Sequence[Diagnostic]) -> dict[str, DocumentPath]:
    """The rows of a dag that findings are about, by the names that the findings use."""
    wanted = {finding.path for finding in findings[:MOST_FINDINGS]}
    names = {
        "tasks": (task.id for task in dag.tasks),
        "values": (value.id for value in dag.values),
        "tensors": (tensor.name for tensor in dag.tensors),
        "order": (f"order[{rank}]" for rank in range(len(dag.order))),
    }
    found: dict[str, DocumentPath] = {}
    for table, table_names in names.items():
        for index, name in enumerate(table_names):
            if name in wanted:
                found.setdefault(name, (table, index))
    return found
