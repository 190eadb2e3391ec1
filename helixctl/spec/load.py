"""Loading what the user writes: every error of a file at once, each with file, line and column."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar

from pydantic.fields import FieldInfo

from helixctl.errors import Diagnostic, HelixError
from helixctl.records import record
from helixctl.spec.base import Dtype
from helixctl.spec.cluster import ClusterSpec, no_peak
from helixctl.spec.explain import Finding, examined
from helixctl.spec.fields import shown
from helixctl.spec.gguf import GgufFile, GgufTypes, is_gguf
from helixctl.spec.hugging_face import CONFIG_NAME, model_of_config, quantisation_beside
from helixctl.spec.model import ModelDocument
from helixctl.spec.named import named_cluster
from helixctl.spec.named_models import named_config
from helixctl.spec.origins import Origin, after_overrides
from helixctl.spec.overrides import Override, apply_overrides, override, parse_overrides
from helixctl.spec.parse import parse_mapping, read_text
from helixctl.spec.placing import placed

__all__ = [
    "HUGGING_FACE_KEYS",
    "TELLING_KEYS",
    "DocumentKind",
    "Loaded",
    "apply_overrides",
    "document_kind",
    "document_path",
    "for_planning",
    "load_cluster",
    "load_model",
    "load_pair",
    "load_specs",
    "parse_mapping",
    "parse_overrides",
    "read_text",
    "validate_document",
    "validate_model",
]

T = TypeVar("T")
DocumentKind = Literal["model", "cluster", "plan", "dag"]

_URN: Final = re.compile(r"urn:helixctl:(plan|dag):(.*)", re.DOTALL)
_VERSION: Final = "1"
# The keys by which a document without a known $schema is told; the kind with most of them wins.
TELLING_KEYS: Final[dict[DocumentKind, set[str]]] = {
    "cluster": {"hosts", "devices_per_host"},
    "model": {"attention", "layers"},
    "dag": {"tasks", "tensors"},
    "plan": {"layout", "digests"},
}
# Those of a Hugging Face config.json, which is a model too.
HUGGING_FACE_KEYS: Final = {"model_type", "architectures"}


@record
class Loaded:
    """A model and a cluster; of a model in another format than ours also where each of its fields comes from."""

    model: ModelDocument
    cluster: ClusterSpec
    origins: tuple[Origin, ...] = ()
    notes: tuple[str, ...] = ()


class Validated(NamedTuple):
    """A model, the origins of its fields, and what else its config says (``ReadConfig.notes``)."""

    model: ModelDocument
    origins: tuple[Origin, ...] = ()
    notes: tuple[str, ...] = ()


def load_pair(model: str, cluster: str, sets: Sequence[str] = ()) -> Loaded:
    """Load a model and a cluster to plan for, with ``--set`` texts applied.

    Args:
        model: a model file, a Hugging Face config.json, the folder of one, a GGUF file, or a name such as
            ``Llama-3.1-8B``.
        cluster: a cluster file, or a name such as ``h100:2x8``.
        sets: texts such as ``attention.heads=8``.

    Raises:
        HelixError: all that is wrong with either file and with the ``--set`` texts.
    """
    if model == cluster == "-":
        raise HelixError(Diagnostic("HX101", "MODEL and CLUSTER cannot both be standard input"))
    problems: list[Diagnostic] = []
    overrides = _attempt(lambda: parse_overrides(sets), problems) or ()
    found = _attempt(lambda: _load_model(model, overrides, planned=True), problems)
    dtype = found.model.dtype if found else None
    cluster_spec = _attempt(lambda: load_cluster(cluster, overrides, dtype), problems)
    if found is None or cluster_spec is None or problems:
        raise HelixError(problems)
    return Loaded(found.model, cluster_spec, found.origins, found.notes)


def load_specs(model: str, cluster: str, sets: Sequence[str] = ()) -> tuple[ModelDocument, ClusterSpec]:
    """The two specs that ``load_pair`` gives."""
    loaded = load_pair(model, cluster, sets)
    return loaded.model, loaded.cluster


def load_model(path: str, overrides: Sequence[Override] = ()) -> ModelDocument:
    """Load a model file or folder ("-" is standard input). Overrides of the cluster are passed over."""
    return _load_model(path, overrides).model


def load_cluster(path: str, overrides: Sequence[Override] = (), dtype: Dtype | None = None) -> ClusterSpec:
    """Load a cluster.

    Args:
        path: the file; ``-`` is standard input; ``h100:2x8`` is one of ours by its name.
        overrides: ``--set`` texts; those of the model are passed over.
        dtype: in which a model will compute on it: its rate must be given (HX114).
    """
    text, data = _read("cluster", path)
    if named_cluster(path):
        text = ""  # it is in no file, so nothing has a line
    mine = [item for item in overrides if item.document == "cluster"]
    cluster = validate_document(ClusterSpec, override(data, mine), text, path, overrides=mine)
    without = [n for n, kind in enumerate(cluster.kinds) if dtype is not None and dtype not in kind.device.peak]
    if dtype is not None and without:
        found = []
        for place in without:
            problem = no_peak(dtype, cluster.kinds[place].device)
            where = ("hosts", place) if isinstance(cluster.hosts, tuple) else ()
            found.append(Finding(problem.code, problem.message, problem.hint, (*where, "device", "peak"), of_key=True))
        raise HelixError(placed(found, text, path, mine))
    return cluster


def document_path(path: str) -> str:
    """The file that a path stands for: a folder, or the name of a model of ours, stands for a config.json."""
    try:
        if path != "-" and Path(path).is_dir():
            return str(Path(path) / CONFIG_NAME)
        return path if path == "-" or Path(path).exists() else named_config(path) or path
    except (OSError, ValueError):  # a null byte in the path, or too long a one, which reading will say
        return path


def _load_model(path: str, overrides: Sequence[Override], *, planned: bool = False) -> Validated:
    file = document_path(path)
    mine = [item for item in overrides if item.document == "model"]
    if is_gguf(file):
        return _finished(*_of_gguf(file), "", file, mine, planned=planned)
    text, data = _read("model", file)
    return validate_model(data, text, file, mine, planned=planned)


def _read(expected: Literal["model", "cluster"], path: str) -> tuple[str, dict[str, Any]]:
    if expected == "cluster" and _stands_for_a_model(path):
        text, data, kind = "", dict[str, Any](), "model"
    else:
        text = read_text(path, wanted=expected)
        data = parse_mapping(text, path)
        kind = document_kind(data, path)
    if kind != expected:
        message = f"is a {kind}; it was given as {expected.upper()}"
        hint = "give the model first, then the cluster" if kind in {"model", "cluster"} else None
        raise HelixError(Diagnostic("HX110", message, hint, path))
    return text, data


def _stands_for_a_model(path: str) -> bool:
    """Whether a path is the folder or the name of a model."""
    return (file := document_path(path)) != path and Path(file).is_file()


def validate_model(
    data: dict[str, Any], text: str, file: str, overrides: Sequence[Override] = (), *, planned: bool = False
) -> Validated:
    """The model that data stands for, in our format or as a Hugging Face config, and the origins of its fields.

    Args:
        data: what ``parse_mapping`` gave.
        text: the file's text, to find the lines of errors.
        file: the file's name in diagnostics.
        overrides: ``--set`` texts to apply.
        planned: the model is to be planned for its workload.

    Raises:
        HelixError: everything that is wrong, in the order of the file.
    """
    origins: tuple[Origin, ...] = ()
    notes: tuple[str, ...] = ()
    if _is_hugging_face(data):
        beside = quantisation_beside(file)
        more = parse_mapping(read_text(str(beside), wanted="model"), str(beside)) if beside else None
        found, findings = model_of_config(data, file, more)
        if findings:
            raise HelixError(placed(findings, text, file))
        data, origins, notes = found
    return _finished(data, origins, notes, text, file, overrides, planned=planned)


def _of_gguf(file: str) -> tuple[dict[str, Any], tuple[Origin, ...], tuple[str, ...]]:
    """The data, the origins and the notes of the model that a GGUF file holds."""
    gguf = GgufFile(file)
    found, findings = model_of_config(gguf.config, file, types=GgufTypes(gguf))
    if findings:
        raise HelixError(placed(findings, "", file))
    return found.data, tuple(replace(o, source=gguf.key_of(o.source)) for o in found.origins), found.notes


def _finished(
    data: dict[str, Any],
    origins: tuple[Origin, ...],
    notes: tuple[str, ...],
    text: str,
    file: str,
    overrides: Sequence[Override],
    *,
    planned: bool,
) -> Validated:
    """The model of data in our format, with the origins of its fields after overrides."""
    model = validate_document(
        ModelDocument, override(data, overrides), text, file, overrides=overrides, origins=origins
    )
    if planned:
        model = _with_logits(model)
    return Validated(model, after_overrides(origins, overrides) if origins else (), notes)


def for_planning(model: ModelDocument, cluster: ClusterSpec) -> ModelDocument:
    """A model as ``load_pair`` gives it to be planned on a cluster, where both were loaded or made otherwise.

    Raises:
        HelixError: HX114, the devices have no rate for the model's dtype.
    """
    if without := [kind.device for kind in cluster.kinds if model.dtype not in kind.device.peak]:
        raise HelixError([no_peak(model.dtype, device) for device in without])
    return _with_logits(model)


def _with_logits(model: ModelDocument) -> ModelDocument:
    """The model with the logits that are planned for where nothing says which: those that a token is sampled from."""
    if model.vocabulary is None or "logits" in model.workload.model_fields_set:
        return model
    return model.model_copy(update={"workload": model.workload.model_copy(update={"logits": "last"})})


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
    if _is_hugging_face(data):
        return "model"
    kind = max(TELLING_KEYS, key=lambda kind: len(TELLING_KEYS[kind] & data.keys()))
    if TELLING_KEYS[kind] & data.keys():
        return kind
    message = "is neither a model, a cluster, a plan nor a dag"
    hint = (
        "a model has the keys layers and attention, a Hugging Face config model_type; "
        "a cluster has hosts and devices_per_host"
    )
    raise HelixError(Diagnostic("HX110", message, hint, file))


def _is_hugging_face(data: dict[str, Any]) -> bool:
    """Told by its keys; a document with all the telling keys of ours is ours, and these are slips in it."""
    return bool(HUGGING_FACE_KEYS & data.keys()) and not any(keys <= data.keys() for keys in TELLING_KEYS.values())


def _has_schema_key(cls: type[object]) -> bool:
    """Whether ``$schema`` is a field; told without the class's JSON Schema, which takes longer than most documents."""
    fields: dict[str, FieldInfo] = getattr(cls, "model_fields", {})
    return any(field.alias == "$schema" for field in fields.values())


def validate_document(
    cls: type[T],
    data: dict[str, Any],
    text: str,
    file: str,
    *,
    malformed: str | None = None,
    overrides: Sequence[Override] = (),
    origins: Sequence[Origin] = (),
) -> T:
    """The object that a document's data stands for; a root key ``$schema`` that the class lacks is passed over.

    Args:
        cls: a pydantic model or dataclass.
        data: what ``parse_mapping`` gave, with ``overrides`` applied.
        text: the file's text, to find the lines of errors.
        file: the file's name in diagnostics.
        malformed: the code that takes the place of HX103, HX104 and HX105.
        overrides: the ``--set`` texts applied, so that an error they caused is not laid at the file's door.
        origins: where the text has another format than the class, the keys that gave the data.

    Raises:
        HelixError: everything that is wrong, in the order of the file.
    """
    if "$schema" in data and not _has_schema_key(cls):
        data = {key: value for key, value in data.items() if key != "$schema"}
    found, findings = examined(cls, data)
    if found is not None:
        return found
    if malformed:
        findings = [replace(f, code=malformed) if f.code in {"HX103", "HX104", "HX105"} else f for f in findings]
    raise HelixError(placed(findings, text, file, overrides, origins))
