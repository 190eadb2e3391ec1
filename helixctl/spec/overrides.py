"""``--set FIELD=VALUE``: a field of the model or of the cluster, set from the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel

from helixctl.errors import Diagnostic, HelixError
from helixctl.records import record
from helixctl.spec.cluster import ClusterSpec
from helixctl.spec.fields import Node, dotted, fields_of, keys_of, like, meant, shown
from helixctl.spec.model import ModelDocument
from helixctl.spec.yaml_reader import YamlReader, plain_scalar

SpecKind = Literal["model", "cluster"]
_CLASSES: Final[dict[SpecKind, Any]] = {"model": ModelDocument, "cluster": ClusterSpec}


@record
class Override:
    """One ``--set``: the document it is for, the path in it, the value, and the text as the user gave it."""

    document: SpecKind
    path: tuple[str, ...]
    value: Any
    text: str

    def __str__(self) -> str:
        """As on the command line."""
        return f"--set {_printable(self.text)}"


def parse_overrides(sets: Sequence[str]) -> tuple[Override, ...]:
    """Read ``--set`` texts.

    Raises:
        HelixError: HX108, one for each text that names no field.
    """
    results = [_parse_one(text) for text in sets]
    problems = [result for result in results if isinstance(result, Diagnostic)]
    if problems:
        raise HelixError(problems)
    return tuple(result for result in results if isinstance(result, Override))


def override(data: dict[str, Any], overrides: Iterable[Override]) -> dict[str, Any]:
    """A document's data with its overrides, the last one winning. ``data`` stays as it is."""
    for item in overrides:
        data = _with(data, item.path, item.value)
    return data


def apply_overrides(
    model_data: dict[str, Any], cluster_data: dict[str, Any], sets: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The data of both documents with the ``--set`` texts applied.

    Raises:
        HelixError: HX108, one for each text that names no field.
    """
    overrides = parse_overrides(sets)
    return (
        override(model_data, [item for item in overrides if item.document == "model"]),
        override(cluster_data, [item for item in overrides if item.document == "cluster"]),
    )


def _with(data: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The data with one value put at a path; an optional mapping that the file leaves out is made."""
    key, rest = path[0], path[1:]
    if not rest:
        return {**data, key: value}
    inner = data.get(key)
    if inner is None:
        inner = {}
    # Where the file has another thing than a mapping it is wrong already, which validation will say.
    return {**data, key: _with(inner, rest, value)} if isinstance(inner, dict) else data


def _parse_one(text: str) -> Override | Diagnostic:
    left, equals, value = text.partition("=")
    if not equals:
        return _problem(text, "has no '='", "write --set FIELD=VALUE, for example --set workload.batch=8")
    name = left.strip()
    documents, path = _documents_and_path(name)
    homes = [document for document in documents if _has(document, path)]
    if not homes:
        return _problem(text, f"no field {shown(name)} in the {' or the '.join(documents)}", _hint(documents, path))
    if len(homes) > 1:
        choice = " or ".join(f"{document}.{name}" for document in homes)
        return _problem(text, f"the model and the cluster both have a field {shown(name)}", f"write {choice}")
    try:
        return Override(homes[0], path, _scalar(value.strip()), text)
    except (HelixError, ValueError):
        return _problem(text, "the value cannot be read", "close the quotes, or leave them out")


def _documents_and_path(name: str) -> tuple[tuple[SpecKind, ...], tuple[str, ...]]:
    """The documents in which to look for a field, and its path in them; a prefix leaves only one to look at."""
    path = tuple(name.split("."))
    for document in _CLASSES:
        if path[0] == document:
            return (document,), path[1:]
    return tuple(_CLASSES), path


def _has(document: SpecKind, path: tuple[str, ...]) -> bool:
    """Whether a document has a field. Of most its class tells; to make a schema takes longer than to read a spec."""
    declared = _declared(_CLASSES[document], path) if path else None
    return _node(document, path) is not None if declared is None else declared


def _declared(annotation: Any, path: tuple[str, ...]) -> bool | None:
    """Whether a class of documents declares a field; None where its annotation is not simply that of such a class."""
    if not path:
        return True
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return None
    its = annotation.model_fields.get(path[0])
    return False if its is None else _declared(its.annotation, path[1:])


def _node(document: SpecKind, path: tuple[str, ...]) -> Node | None:
    """The field's node in the document's schema, or None; a document as a whole is no field."""
    fields = fields_of(_CLASSES[document])
    node: Node | None = None
    for part in path:
        parent = fields.root if node is None else node
        if part not in keys_of(parent):
            return None
        node = fields.step(parent, part)
    return node


def _hint(documents: tuple[SpecKind, ...], path: tuple[str, ...]) -> str:
    """The likest field, else the fields beside the one that was not found."""
    leaves = [leaf for document in documents for leaf in fields_of(_CLASSES[document]).leaves()]
    close = _with_one_part_mended(documents, path) or _with_the_last_part(path, leaves)
    return meant(list(map(dotted, close))) or _siblings(documents, path, leaves)


def _with_one_part_mended(documents: tuple[SpecKind, ...], path: tuple[str, ...]) -> list[tuple[str, ...]]:
    """``attention.haeds`` is meant for ``attention.heads``, ``between_host.latency`` for ``between_hosts.latency``."""
    mended = []
    for document in documents:
        for at, part in enumerate(path):
            known = _keys(document, path[:at])
            mended += [(*path[:at], name, *path[at + 1 :]) for name in like(part, known, cutoff=0.6)]
    return [found for found in mended if any(_node(document, found) is not None for document in documents)]


def _with_the_last_part(path: tuple[str, ...], leaves: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """``heads`` is meant for ``attention.heads``."""
    last = like(path[-1] if path else "", [leaf[-1] for leaf in leaves], cutoff=0.75)
    return [leaf for leaf in leaves if leaf[-1] in last]


def _siblings(documents: tuple[SpecKind, ...], path: tuple[str, ...], leaves: Sequence[tuple[str, ...]]) -> str:
    for length in range(len(path) - 1, 0, -1):
        known = [key for document in documents for key in _keys(document, path[:length])]
        if known:
            return f"fields of {dotted(path[:length])}: {', '.join(known)}"
    # There are over a hundred: of a mapping its name alone.
    first = dict.fromkeys(leaf[0] if len(leaf) == 1 else f"{leaf[0]}.*" for leaf in leaves)
    return f"fields: {', '.join(first)}"


def _keys(document: SpecKind, path: tuple[str, ...]) -> tuple[str, ...]:
    node = _node(document, path) if path else fields_of(_CLASSES[document]).root
    return keys_of(node or {})


def _scalar(text: str) -> Any:
    """A YAML scalar: quoted, or plain. All else, such as ``[1, 2]``, is text, which the field will refuse."""
    return YamlReader(text).read() if text[:1] in {'"', "'"} else plain_scalar(text)


def _problem(text: str, message: str, hint: str | None) -> Diagnostic:
    return Diagnostic("HX108", f"--set {_printable(text)}: {message}", hint)


def _printable(text: str) -> str:
    """Text from the command line, safe for one line of a terminal."""
    return text if text.isprintable() else shown(text)
