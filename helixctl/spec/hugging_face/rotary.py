"""The rotary embedding of a Hugging Face config, in the spelling of transformers 4 or of 5.

4: ``rope_theta`` and ``rope_scaling: {rope_type or type, ...}``; 5: ``rope_parameters: {rope_theta, rope_type, ...}``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, Final

from pydantic import Field, create_model

from helixctl.spec.attention import Positive
from helixctl.spec.base import Count, Spec
from helixctl.spec.explain import Finding, examined
from helixctl.spec.fields import did_you_mean, shown
from helixctl.spec.hugging_face.families import Decoder
from helixctl.spec.origins import Origin
from helixctl.spec.yaml_reader import DocumentPath

ROPE_KEYS: Final = ("rope_scaling", "rope_parameters")
_ROTARY: Final = ("attention", "rotary")


class _Rope(Spec):
    rope_type: str | None = None
    type: str | None = None
    rope_theta: Positive | None = None
    partial_rotary_factor: Annotated[float, Field(strict=True, gt=0, le=1)] | None = None  # 1 where no family reads it
    mrope_section: list[Count] | None = None  # of families that read it; it says nothing of tokens alone
    mrope_interleaved: bool | None = None
    llama_4_scaling_beta: Annotated[float, Field(strict=True, ge=0)] | None = None  # of families that read it
    max_position_embeddings: Count | None = None  # beside it, and not looked at


class _Linear(_Rope):
    factor: Positive


class _Llama3(_Linear):
    low_freq_factor: Positive
    high_freq_factor: Positive
    original_max_position_embeddings: Count


class _Dynamic(_Linear):
    pass


class _Yarn(_Linear):
    original_max_position_embeddings: Count | None = None
    beta_fast: Positive | None = None
    beta_slow: Positive | None = None
    truncate: bool | None = None
    attention_factor: Positive | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None


class _LongRope(_Rope):
    factor: Positive | None = None
    short_factor: list[Positive]
    long_factor: list[Positive]
    original_max_position_embeddings: Count | None = None
    attention_factor: Positive | None = None


class _Proportional(_Rope):
    factor: Positive | None = None


ROPE_TYPES: Final[dict[str, type[_Rope]]] = {
    "default": _Rope,
    "linear": _Linear,
    "dynamic": _Dynamic,
    "llama3": _Llama3,
    "yarn": _Yarn,
    "longrope": _LongRope,
    "proportional": _Proportional,
}


def rope_findings(config: Mapping[str, Any]) -> Iterator[Finding]:
    """What is wrong with the rotary embedding of a config whose rope type is modelled."""
    given = [key for key in ROPE_KEYS if config.get(key) and isinstance(config[key], dict)]
    if len(given) > 1 and config[given[0]] != config[given[1]]:
        yield Finding("HX109", f"{' and '.join(given)} differ; which holds?", "keep one", (given[1],), of_key=True)
    for key in given:
        yield from _examine(config, key)


def _examine(config: Mapping[str, Any], key: str) -> Iterator[Finding]:
    rope = {name: value for name, value in config[key].items() if value is not None}
    old, new = rope.get("type"), rope.get("rope_type")
    if old is not None and new is not None and old != new:
        message = f"{key}: type {shown(old)} and rope_type {shown(new)} differ"
        yield Finding("HX109", message, "leave type out", (key, "type"), of_key=True)
    kind = _kind(rope)
    known = ROPE_TYPES[kind] if isinstance(kind, str) and kind in ROPE_TYPES else _Rope
    for finding in examined(_wrapped(key, known), {key: rope})[1]:
        yield unknown_key(finding, known) if finding.code == "HX103" else finding
    outer, inner = config.get("rope_theta"), rope.get("rope_theta")
    if outer is not None and inner is not None and outer != inner:
        message = f"rope_theta {shown(outer)} and {key}.rope_theta {shown(inner)} differ"
        yield Finding("HX109", message, "keep one", ("rope_theta",), of_key=True)


def unknown_key(finding: Finding, cls: type[Spec]) -> Finding:
    """HX112 in the place of HX103: a key of transformers that is not known here is no slip."""
    if finding.last:
        return replace(finding, code="HX112")
    key = str(finding.path[-1])
    hint = did_you_mean(key, list(cls.model_fields)) or "take it out if it does not"
    return Finding("HX112", f"{finding.message}: it may change the function", hint, finding.path, of_key=True)


@cache
def _wrapped(key: str, cls: type[_Rope]) -> type[Spec]:
    """A document with nothing but the mapping under its key, so that errors name the key."""
    return create_model("Rope", __base__=Spec, **{key: (cls, ...)})  # type: ignore[call-overload, no-any-return]


def _kind(rope: Mapping[str, Any]) -> Any:
    return rope.get("rope_type", rope.get("type", "default"))


def rope_origins(config: Mapping[str, Any], family: str, decoder: Decoder) -> Iterator[Origin]:
    """The fields of our rotary embedding, from a config without ``rope_findings``."""
    default_theta = decoder.default_theta
    key = next((key for key in ROPE_KEYS if config.get(key)), None)
    rope = {name: value for name, value in (config[key] if key else {}).items() if value is not None}
    theta = (*_ROTARY, "theta")
    if key and "rope_theta" in rope:
        yield Origin(theta, f"{key}.rope_theta", (key, "rope_theta"), rope["rope_theta"])
    elif config.get("rope_theta") is not None:
        yield Origin(theta, "rope_theta", ("rope_theta",), config["rope_theta"])
    else:
        yield Origin(theta, f"default of {family}", (), default_theta)
    yield from _turned_dims(decoder, key, rope)
    scaling = (*_ROTARY, "scaling")
    kind = _kind(rope)
    if key is None or kind == "default":
        said = next((name for name in ("rope_type", "type") if name in rope), None)
        source = f"{key}.{said}" if said else f"default of {family}"
        yield Origin(scaling, source, (key,) if key else (), None)
        return
    tag = "rope_type" if "rope_type" in rope else "type"
    yield Origin((*scaling, "kind"), f"{key}.{tag}", (key, tag), kind)
    if kind in _FIELDS:
        for name, value in _FIELDS[kind](rope, decoder).items():
            yield Origin((*scaling, name), key, (key,), value)
        return
    for name in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"):
        if name in rope:
            ours = "original_seq_len" if name == "original_max_position_embeddings" else name
            yield Origin((*scaling, ours), f"{key}.{name}", (key, name), rope[name])


def _turned_dims(decoder: Decoder, key: str | None, rope: Mapping[str, Any]) -> Iterator[Origin]:
    """How many dims are turned, of families that turn a part of a head."""
    fields = type(decoder).model_fields
    if key and _kind(rope) == "proportional":
        return  # its scaling says how many
    if "partial_rotary_factor" not in fields or "qk_rope_head_dim" in fields:  # a latent has a rotated part of its own
        return
    head_dim = decoder.rotary_width
    share: float = getattr(decoder, "partial_rotary_factor", 1.0)
    path: DocumentPath = ("partial_rotary_factor",)
    if key and "partial_rotary_factor" in rope:
        share, path = rope["partial_rotary_factor"], (key, "partial_rotary_factor")
    dims = int(head_dim * share)
    if dims < head_dim:
        yield Origin((*_ROTARY, "dims"), f"head_dim x {share}", path, dims)


def _original(rope: Mapping[str, Any], decoder: Decoder) -> int:
    """Tokens of the original context: a family's own key comes first."""
    own: int | None = getattr(decoder, "original_max_position_embeddings", None)
    found: int = own or rope.get("original_max_position_embeddings") or decoder.max_position_embeddings
    return found


def _yarn(rope: Mapping[str, Any], decoder: Decoder) -> dict[str, Any]:
    """As transformers reads it: the attention factor follows from the factor where it is not given."""
    factor, mscale, over_all = rope["factor"], rope.get("mscale"), rope.get("mscale_all_dim")

    def scale(by: float) -> float:
        return 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0

    attention = rope.get("attention_factor")
    if attention is None:
        attention = scale(mscale) / scale(over_all) if mscale and over_all else scale(1)
    return {
        "factor": factor,
        "original_seq_len": _original(rope, decoder),
        "beta_fast": rope.get("beta_fast") or 32.0,
        "beta_slow": rope.get("beta_slow") or 1.0,
        "truncate": rope.get("truncate", True),
        "attention_factor": attention,
    }


def _dynamic(rope: Mapping[str, Any], decoder: Decoder) -> dict[str, Any]:
    """The original context is the config's longest, as transformers has it."""
    return {"factor": rope["factor"], "original_seq_len": decoder.max_position_embeddings}


def _proportional(rope: Mapping[str, Any], decoder: Decoder) -> dict[str, Any]:
    share = rope.get("partial_rotary_factor") or 1.0
    return {"pairs": int(share * decoder.rotary_width // 2), "factor": rope.get("factor") or 1.0}


def _longrope(rope: Mapping[str, Any], decoder: Decoder) -> dict[str, Any]:
    original = _original(rope, decoder)
    factor, attention = rope.get("factor") or decoder.max_position_embeddings / original, rope.get("attention_factor")
    if attention is None:
        attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return {
        "short_factors": rope["short_factor"],
        "long_factors": rope["long_factor"],
        "original_seq_len": original,
        "attention_factor": attention,
    }


_FIELDS: Final = {"yarn": _yarn, "longrope": _longrope, "dynamic": _dynamic, "proportional": _proportional}
