"""From a Hugging Face config to the data of a model document, and for every field of ours the key that gave it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from helixctl.spec.explain import Finding, examined
from helixctl.spec.hugging_face.checks import architecture_findings, contradictions, other_family
from helixctl.spec.hugging_face.families import FAMILIES, Decoder, Derived, pattern_of
from helixctl.spec.hugging_face.features import QUANTISED, features_of
from helixctl.spec.hugging_face.quantised import IN_A_FILE_OF_ITS_OWN, Quantisation, Quantised, quantisation_of
from helixctl.spec.hugging_face.rotary import ROPE_KEYS, rope_findings, rope_origins, unknown_key
from helixctl.spec.hugging_face.stored_weights import stored_fields
from helixctl.spec.hugging_face.text_model import text_model
from helixctl.spec.hugging_face.without_effect import said_again, without_effect
from helixctl.spec.model import MAIN
from helixctl.spec.origins import Origin

CONFIG_NAME: Final = "config.json"
QUANTISATION_NAME: Final = "hf_quant_config.json"
_WORKLOAD_BATCH: Final = 8
_WORKLOAD_SEQ_LEN: Final = 2048
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


class ReadConfig(NamedTuple):
    """What a config says.

    Attributes:
        data: of a model document.
        origins: of its fields.
        notes: what a person should know beside them: what of the whole model is left out, and how weights are stored.
    """

    data: dict[str, Any]
    origins: tuple[Origin, ...]
    notes: tuple[str, ...] = ()


_Origins = dict[tuple[str, ...], Origin]
_NOTHING: Final = ReadConfig({}, ())


def model_of_config(
    config: Mapping[str, Any], file: str, beside: Mapping[str, Any] | None = None, types: Quantised | None = None
) -> tuple[ReadConfig, list[Finding]]:
    """What a config says; or what is wrong, and then the first is empty.

    Args:
        config: the config, read from its file.
        file: the file's path, which names a model that has no name of its own; "-" is standard input.
        beside: the hf_quant_config.json of its folder, which counts where the config itself has no quantisation.
        types: how weights are stored, where it is not the config that says it.
    """
    text = text_model(config)
    found, findings = _model_of(text.config, file, beside or {}, types)
    if findings:
        return _NOTHING, text.placed(findings)
    left_out = [f"left out: {what}" for what in text.left_out]
    origins = tuple(replace(origin, key=text.path(origin.key)) for origin in found.origins)
    return ReadConfig(found.data, origins, (*left_out, *found.notes)), []


def _model_of(
    config: Mapping[str, Any], file: str, beside: Mapping[str, Any], types: Quantised | None
) -> tuple[ReadConfig, list[Finding]]:
    """The same of a config of a text model alone."""
    family = config.get("model_type")
    cls = FAMILIES.get(family) if isinstance(family, str) else None
    config = cls.flattened(config) if cls else config
    features = features_of(config, cls.model_fields if cls else (), cls.layer_kinds if cls else ())
    refused = {path for feature in features for path in feature.told_by}
    findings = [feature.finding() for feature in features]
    if cls is None or not isinstance(family, str):
        return _NOTHING, [other_family(config), *findings]
    findings += architecture_findings(config, family, cls.architectures)
    known = {key: value for key, value in config.items() if (key,) not in refused and _counts(key, value, cls, family)}
    decoder, wrong = examined(cls, known)
    findings += [unknown_key(item, cls) if item.code == "HX103" else item for item in wrong]
    if not any(path[0] in ROPE_KEYS for path in refused):
        findings += rope_findings(config)
    if decoder is not None:
        findings += [*contradictions(decoder), *said_again(config, decoder)]
    key = next((key for key in QUANTISED if config.get(key)), None)
    said, unknown = quantisation_of(config, key) if key else quantisation_of(beside, IN_A_FILE_OF_ITS_OWN)
    quantisation = types or said
    findings += unknown if key else [replace(item, path=(), of_key=False) for item in unknown]
    if findings or decoder is None:
        return _NOTHING, findings
    # Those of the family itself replace what the rules for all families give.
    by_field = {origin.field: origin for origin in _origins(config, decoder, family, file)}
    attention = _nested(tuple(by_field.values()))["attention"]
    by_field |= {o.field: o for o in _derived(decoder.networks(), f"every {family}")}
    apart = {o.field: o for o in _derived(decoder.apart(attention), f"every {family}")}
    by_field |= _of_both(by_field, apart, decoder.num_hidden_layers)
    if quantisation:
        where, path = (key, (key,)) if key else (quantisation.method if types else QUANTISATION_NAME, ())
        fields = stored_fields(_nested(tuple(by_field.values())), quantisation)
        by_field |= {(name,): Origin((name,), str(where), path, value) for name, value in fields.items()}
    origins = tuple(by_field.values())
    data = _nested(origins)
    left_out = [f"left out: {what}" for what in decoder.left_out()]
    return ReadConfig(data, origins, (*left_out, *_of_storage(quantisation))), []


def _of_both(by_field: _Origins, apart: _Origins, layers: int) -> _Origins:
    """What ``apart`` gives; where layers differ in their networks already, each block is of one kind of either."""
    if ("blocks",) not in by_field or ("blocks",) not in apart:
        return dict(apart)
    networks, attentions = ({MAIN: {}} | {b["name"]: b for b in of["blocks",].value} for of in (by_field, apart))
    kinds = [
        tuple(of["pattern",].value[layer % len(of["pattern",].value)] for of in (by_field, apart))
        for layer in range(layers)
    ]
    names = {pair: "_".join(kind for kind in pair if kind != MAIN) or MAIN for pair in dict.fromkeys(kinds)}
    blocks = [{**networks[a], **attentions[b], "name": name} for (a, b), name in names.items() if name != MAIN]
    keys = (*by_field["blocks",].key, *apart["blocks",].key)
    found = {"blocks": blocks, "pattern": pattern_of([names[pair] for pair in kinds])}
    return {(field,): Origin((field,), " and ".join(map(str, keys)), keys, value) for field, value in found.items()}


def _derived(fields: Iterable[Derived], every: str) -> Iterator[Origin]:
    for item in fields:
        yield Origin(tuple(item.field.split(".")), " and ".join(item.keys) or every, item.keys, item.value)


def _of_storage(quantisation: Quantised | None) -> Iterator[str]:
    """That weights are stored in another form than they are computed in."""
    if quantisation:
        yield (
            f"weights are quantised by {quantisation.method}: their memory and their reading are planned as they are "
            "stored, their arithmetic in such numbers where activations are rounded too and the device has a rate"
        )
    if isinstance(quantisation, Quantisation) and quantisation.cache_key:
        yield (
            f"it has scales for a quantised KV cache ({quantisation.cache_key}): planned in the model's dtype unless "
            "--set workload.cache_dtype=float8"
        )


def _counts(key: str, value: object, cls: type[Decoder], family: str) -> bool:
    """Whether a key is to be looked at; null is the way of transformers to leave a key out that a class lacks."""
    return key in cls.model_fields or not without_effect(key, value, family)


def _origins(config: Mapping[str, Any], decoder: Decoder, family: str, file: str) -> Iterator[Origin]:
    """Every field of ours, in the order of our documents."""
    given = {key for key in decoder.model_fields_set if getattr(decoder, key) is not None}
    every, default = f"every {family}", f"default of {family}"

    def of(field: str, key: str, value: Any = None) -> Origin:
        value = getattr(decoder, key) if value is None else value
        written = key in decoder.model_fields_set
        return Origin(tuple(field.split(".")), key if written else default, (key,) if written else (), value)

    def fixed(field: str, value: Any) -> Origin:
        return Origin(tuple(field.split(".")), every, (), value)

    yield _name(config, family, file)
    yield of("layers", "num_hidden_layers")
    yield of("hidden_size", "hidden_size")
    yield of("attention.heads", "num_attention_heads")
    if decoder.num_key_value_heads is None:
        yield Origin(("attention", "kv_heads"), "num_attention_heads", ("num_attention_heads",), None)
    else:
        yield of("attention.kv_heads", "num_key_value_heads")
    yield _head_dim(decoder) or of("attention.head_dim", "head_dim")
    yield fixed("attention.softmax_slices", 1)
    yield fixed("attention.causal", True)  # noqa: FBT003  a value
    if "attention_bias" in type(decoder).model_fields:
        yield of("attention.qkv_bias", "attention_bias")
        yield of("attention.output_bias", "attention_bias")
    for field, value in decoder.always.items():
        yield fixed(field, value)
    yield from rope_origins(config, family, decoder)
    yield _window(decoder, every, default)
    yield of("feed_forward.intermediate_size", decoder.width_key)
    activation = getattr(decoder, decoder.act_key)
    yield of("feed_forward.activation", decoder.act_key, decoder.activations.get(activation, activation))
    if "feed_forward.gated" not in decoder.always:
        yield fixed("feed_forward.gated", True)  # noqa: FBT003
    yield from _experts(decoder, given, of, fixed)
    if "norm.function" not in decoder.always:
        yield fixed("norm.function", "rms_norm")
    yield of("norm.eps", decoder.eps_key)
    yield of("vocabulary.size", "vocab_size")
    yield of("vocabulary.tied", "tie_word_embeddings")
    dtype = next((key for key in ("dtype", "torch_dtype") if key in given), None)
    yield of("dtype", dtype) if dtype else _default_dtype(config, default)
    yield of("max_positions", "max_position_embeddings")
    for field, key in decoder.keys.items():
        yield of(field, key)
    yield from _derived(decoder.derived(), every)
    yield Origin(("workload", "batch"), "ours for a Hugging Face model", (), _WORKLOAD_BATCH)
    seq_len = min(_WORKLOAD_SEQ_LEN, decoder.max_position_embeddings)
    source = f"min({_WORKLOAD_SEQ_LEN}, max_position_embeddings)"
    yield Origin(("workload", "seq_len"), source, ("max_position_embeddings",), seq_len)
    yield Origin(("workload", "logits"), "ours for a Hugging Face model", (), "last")


def quantisation_beside(file: str) -> Path | None:
    """The file beside a config that says how weights are quantised, if there is one.

    Configs that were collected have the model's name ahead of either: x_config.json, x_hf_quant_config.json.
    """
    path = Path(file)
    if file == "-" or not path.name.endswith(CONFIG_NAME):
        return None
    found = path.with_name(path.name.removesuffix(CONFIG_NAME) + QUANTISATION_NAME)
    return found if found.is_file() else None


def _default_dtype(config: Mapping[str, Any], default: str) -> Origin:
    """The dtype where the config names none: float32 is that of weights stored in it, not of quantised ones."""
    quantised = next((key for key in QUANTISED if config.get(key)), None)
    if quantised:
        return Origin(("dtype",), f"ours for {quantised} without a dtype", (quantised,), "bfloat16")
    return Origin(("dtype",), default, (), "float32")


def _head_dim(decoder: Decoder) -> Origin | None:
    if decoder.head_dim is not None:
        return None
    value = decoder.hidden_size // decoder.num_attention_heads
    source = "hidden_size / num_attention_heads"
    return Origin(("attention", "head_dim"), source, ("num_attention_heads",), value)


def _window(decoder: Decoder, every: str, default: str) -> Origin:
    field, (key, window) = ("attention", "sliding_window"), decoder.main_window()
    if key is None:
        return Origin(field, every, (), window)
    written = key in decoder.model_fields_set
    return Origin(field, key if written else default, (key,) if written else (), window)


def _experts(decoder: Decoder, given: set[str], of: Any, fixed: Any) -> Iterator[Origin]:
    if decoder.top_k_key not in type(decoder).model_fields:
        yield fixed("feed_forward.experts", None)
        return
    yield of("feed_forward.experts.count", next(key for key in decoder.experts_keys if key in given))
    yield of("feed_forward.experts.top_k", decoder.top_k_key)
    if "norm_topk_prob" in type(decoder).model_fields:
        yield of("feed_forward.experts.renormalise", "norm_topk_prob")
    else:
        yield fixed("feed_forward.experts.renormalise", True)  # noqa: FBT003


def _nested(origins: tuple[Origin, ...]) -> dict[str, Any]:
    """The data of a document from its fields by path."""
    data: dict[str, Any] = {}
    for origin in origins:
        at = data
        for part in origin.field[:-1]:
            at = at.setdefault(part, {})
        at[origin.field[-1]] = origin.value
    return data


def _name(config: Mapping[str, Any], family: str, file: str) -> Origin:
    """The first that makes a name: the config's own, the folder's, the file's, the family's."""
    for key in ("_name_or_path", "name_or_path"):
        own = config.get(key)
        if isinstance(own, str) and (name := _fitting(own.replace("\\", "/").rstrip("/").rpartition("/")[2])):
            return Origin(("name",), key, (key,), name)
    if file != "-":
        path = Path(file)
        if path.name != CONFIG_NAME and (name := _fitting(path.stem)):
            return Origin(("name",), "name of the file", (), name)
        if path.name == CONFIG_NAME and (name := _fitting(_folder(path.resolve().parent))):
            return Origin(("name",), "name of the folder", (), name)
    return Origin(("name",), "model_type", ("model_type",), family)


def _folder(folder: Path) -> str:
    """A folder's name; in the cache of Hugging Face, models--org--name/snapshots/commit, that of the model."""
    if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name):
        return folder.parent.parent.name.rpartition("--")[2]
    return folder.name


def _fitting(text: str) -> str:
    """The text as a Name; empty if nothing is left of it."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-._+")[:100]
