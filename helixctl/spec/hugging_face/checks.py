"""What is wrong with a Hugging Face config beyond its single values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from helixctl.spec.explain import Finding
from helixctl.spec.fields import shown
from helixctl.spec.hugging_face.families import FAMILIES, Decoder
from helixctl.spec.hugging_face.text_model import model_types

_NEAREST: Final = 3  # names that an unknown one may have meant


def other_family(config: Mapping[str, Any]) -> Finding:
    """Why a config is of none of the families."""
    family, known = config.get("model_type"), model_types()
    every = "helixctl models lists all"
    if family is None:
        missing = "missing key 'model_type' of a Hugging Face config"
        return Finding("HX104", missing, f"a name such as llama; {every}", ("model_type",), of_key=True)
    if not isinstance(family, str):
        message = f"model_type must be a name such as llama, not {shown(family)}"
        return Finding("HX105", message, every, ("model_type",), of_key=False)
    near = get_close_matches(family, known, n=_NEAREST)
    hint = f"the nearest that are modelled: {', '.join(near)}; {every}" if near else f"{every} that are"
    inner = config.get("text_config")
    if isinstance(inner, dict) and isinstance(inner.get("model_type"), str) and inner["model_type"] in FAMILIES:
        hint = f"its text_config is a {inner['model_type']}, which is: give that as a config.json of its own"
    message = f"model_type {shown(family)} is not modelled"
    return Finding("HX111", message, hint, ("model_type",), of_key=False)


def architecture_findings(config: Mapping[str, Any], family: str, also: Sequence[str] = ()) -> Iterator[Finding]:
    """The class that the weights are for: a family's language model, not a classifier or a variant of it.

    Args:
        config: the config.
        family: its model_type.
        also: further names of the family's language model.
    """
    names = config.get("architectures")
    if names is None:
        return
    expected = f"{''.join(part.capitalize() for part in family.split('_'))}ForCausalLM"
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        message = f"architectures must be a list of names such as {expected}, not {shown(names)}"
        yield Finding("HX105", message, None, ("architectures",), of_key=True)
        return
    # Llama's first configs have LLaMAForCausalLM.
    others = [name for name in names if name.lower() not in {expected.lower(), *map(str.lower, also)}]
    if others:
        message = f"architecture {', '.join(others)}: not modelled; of model_type {shown(family)} it is {expected}"
        yield Finding("HX111", message, None, ("architectures",), of_key=True)


def contradictions(decoder: Decoder) -> Iterator[Finding]:
    """Keys of one config that cannot both hold; those of our own specs are found with them."""
    given = decoder.model_fields_set
    own = "qk_rope_head_dim" in type(decoder).model_fields  # of a latent: heads have widths of their own
    if not own and decoder.head_dim is None and decoder.hidden_size % decoder.num_attention_heads:
        message = (
            f"head_dim is not given, and {decoder.num_attention_heads} num_attention_heads do not divide "
            f"hidden_size {decoder.hidden_size}"
        )
        yield Finding("HX109", message, "give head_dim", ("num_attention_heads",), of_key=True)
    if decoder.top_k_key in type(decoder).model_fields:
        keys = decoder.experts_keys
        counts = {key: getattr(decoder, key) for key in keys if getattr(decoder, key) is not None}
        if not counts:
            hint = f"{keys[0]} is a whole number from 2 to 4096"
            yield Finding("HX104", f"missing key {keys[0]!r}", hint, (keys[0],), of_key=True)
        elif len(set(counts.values())) > 1:
            message = f"{' and '.join(counts)} differ"
            yield Finding("HX109", message, "keep one", (keys[-1],), of_key=True)
    if {"dtype", "torch_dtype"} <= given and None is not decoder.dtype != decoder.torch_dtype is not None:
        message = f"dtype {decoder.dtype} and torch_dtype {decoder.torch_dtype} differ"
        yield Finding("HX109", message, "keep one", ("torch_dtype",), of_key=True)
    if decoder.layer_types is not None:
        yield from _layers(decoder, decoder.layer_types)


def _layers(decoder: Decoder, kinds: Sequence[str]) -> Iterator[Finding]:
    if len(kinds) != decoder.num_hidden_layers:
        message = f"layer_types has {len(kinds)} items for {decoder.num_hidden_layers} num_hidden_layers"
        yield Finding("HX109", message, None, ("layer_types",), of_key=True)
    if "sliding_attention" in kinds and decoder.window()[1] is None:
        message = "layer_types has sliding_attention, but there is no sliding window"
        hint = "use_sliding_window and sliding_window say which"
        yield Finding("HX109", message, hint, ("layer_types",), of_key=True)
