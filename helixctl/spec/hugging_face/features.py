"""What models have that is not modelled, told by the keys of their configs and refused by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from helixctl.records import record
from helixctl.spec.explain import Finding
from helixctl.spec.fields import dotted, shown
from helixctl.spec.hugging_face.rotary import ROPE_KEYS, ROPE_TYPES
from helixctl.spec.yaml_reader import DocumentPath

Predicate = Callable[[Any], bool]


def _given(value: Any) -> bool:
    return value not in (None, False, 0, "", [], {})


def _other_than(*values: Any) -> Predicate:
    return lambda value: value is not None and value not in values


_NOT_ONE: Final = _other_than(1)
_OVER_ONE: Final[Predicate] = lambda value: value not in (None, 0, 1)  # noqa: E731  beside its like
# name -> the keys that tell it, and when. A key that ends in * stands for all that begin so.
_BY_KEY: Final[dict[str, tuple[str, Predicate]]] = {
    "multi-head latent attention": ("kv_lora_rank q_lora_rank qk_nope_head_dim qk_rope_head_dim", _given),
    "a sparse choice of keys": ("index_topk index_n_heads index_head_dim", _given),
    "blocks of several kinds": (
        "layers_block_type hybrid_override_pattern hybrid_layer_pattern attn_type_list attn_layer_period",
        _given,
    ),
    "state-space layers (Mamba)": ("mamba_* ssm_* use_mamba_kernels state_size time_step_rank", _given),
    "linear attention": ("linear_* full_attention_interval", _given),
    "chunked attention": ("attention_chunk_size", _given),
    "attention sinks": (
        "attention_sinks attention_sink add_swa_attention_sink_bias add_full_attention_sink_bias",
        _given,
    ),
    "alternating sliding and full attention": ("sliding_window_pattern", _NOT_ONE),
    "soft-capped logits": ("attn_logit_softcapping final_logit_softcapping logit_softcapping", _given),
    "a scale of its own for attention": ("query_pre_attn_scalar attention_multiplier", _given),
    "scaled embeddings, residuals or logits": (
        "embedding_multiplier residual_multiplier logits_scaling logit_scale scale_emb scale_depth",
        _NOT_ONE,
    ),
    "gated attention": ("attn_output_gate", _given),
    "two rotary embeddings": ("rope_local_base_freq local_rope_theta swa_rope_theta", _given),
    "layers without a rotary embedding": ("no_rope_layers no_rope_layer_interval", _given),
    "rotary embedding of a part of the head": ("partial_rotary_factor rotary_pct rotary_dim", _NOT_ONE),
    "multimodal rotary embedding": ("use_mrope mrope_section mrope_interleaved", _given),
    "a rotary embedding of neighbouring dims": (
        "rope_interleaved rope_interleave rotary_interleaved interleaved_rope use_interleaved_rope",
        _given,
    ),
    "positions without a rotary embedding": (
        "alibi use_alibi position_embedding_type",
        lambda value: _given(value) and value != "rope",
    ),
    "attention and feed-forward network side by side": (
        "parallel_attn use_parallel_residual parallel_residual",
        _given,
    ),
    "attention scaled by the length": ("use_logn_attn use_dynamic_ntk llama_4_scaling_beta", _given),
    "heads of several widths": ("global_head_dim num_global_key_value_heads swa_head_dim", _given),
    "keys and values shared between layers": ("num_kv_shared_layers use_double_wide_mlp attention_k_eq_v", _given),
    "embeddings of every layer": ("hidden_size_per_layer_input", _given),
    "a clamped activation": ("swiglu_limit", _given),
    "biases in the feed-forward network": ("mlp_bias", _given),
    "shared experts": ("n_shared_experts num_shared_experts shared_expert_intermediate_size", _given),
    "a choice among groups of experts": ("n_group topk_group num_expert_group", _OVER_ONE),
    "gates other than a softmax": ("scoring_func moe_router_activation_func", _other_than("softmax")),
    "scaled gates": ("routed_scaling_factor", _NOT_ONE),
    "dense layers among layers of experts": ("first_k_dense_replace mlp_only_layers num_dense_layers", _given),
    "experts in some layers": ("decoder_sparse_step moe_layer_freq expert_layer_period", _NOT_ONE),
    "layers that predict further tokens": ("num_nextn_predict_layers num_mtp_layers mtp_num_hidden_layers", _given),
    "layers that differ": ("per_layer_config block_configs", _given),
    "an encoder": ("is_encoder_decoder add_cross_attention cross_attention_hidden_size", _given),
    "pruned heads": ("pruned_heads", _given),
    "projections computed in slices": ("pretraining_tp", _OVER_ONE),
    "code of the model's own": ("auto_map", _given),
    "several modalities": ("text_config vision_config audio_config speech_config llm_config", _given),
}
_TOLD: Final = {key: (name, when) for name, (keys, when) in _BY_KEY.items() for key in keys.split()}
# What no key of the config tells.
_BY_TYPE: Final = {"gpt_oss_puzzle": "attention sinks"}
# Keys that say that weights are stored in another form: planned in the dtype of the computation, and said so.
QUANTISED: Final = ("quantization_config", "quantization", "compression_config")
_ACTIVATIONS: Final = {"silu", "gelu", "relu", "gelu_pytorch_tanh", "relu2"}


@record
class Feature:
    """A feature and the keys that tell it, in the order of the file, with what to say of each."""

    name: str
    told_by: Mapping[DocumentPath, str]

    def finding(self) -> Finding:
        """HX111 at the first of the keys."""
        path = next(iter(self.told_by))
        message = f"{self.name}: not modelled ({', '.join(self.told_by.values())})"
        return Finding("HX111", message, None, path, of_key=True)


def features_of(
    config: Mapping[str, Any], reads: Collection[str] = (), layer_kinds: Collection[str] = ()
) -> list[Feature]:
    """All features of a config that are not modelled, those of the configs nested in it as well.

    Args:
        config: a Hugging Face config.
        reads: keys that the config's family reads, which are therefore modelled.
        layer_kinds: what ``layer_types`` may have by that family besides layers of one kind.
    """
    found: dict[str, dict[DocumentPath, str]] = {}
    for name, path, value in _told(config, (), reads, layer_kinds):
        said = "" if isinstance(value, dict | list) else f" {shown(value)}"
        found.setdefault(name, {}).setdefault(path, dotted(path) + said)
    return [Feature(name, told_by) for name, told_by in found.items()]


def lacks(key: str, value: Any) -> bool:
    """Whether a key says that the model lacks a feature: ``rope_interleaved: false``."""
    name, when = _feature(key)
    return bool(name) and not when(value)


def _feature(key: str) -> tuple[str, Predicate]:
    return _TOLD.get(key) or _TOLD.get(f"{key.partition('_')[0]}_*") or ("", _given)


def _told(
    config: Mapping[str, Any], at: DocumentPath, reads: Collection[str], layer_kinds: Collection[str]
) -> Iterator[tuple[str, DocumentPath, Any]]:
    for key, value in config.items():
        path = (*at, key)
        name, when = _feature(key)
        if name and when(value) and key not in reads:
            yield name, path, value
        if key in ROPE_KEYS and isinstance(value, dict):
            yield from _of_rope(value, path, reads)
        elif key == "layer_types" and isinstance(value, list):
            yield from _of_layers(value, path, layer_kinds)
        elif key in {"hidden_act", "hidden_activation"} and isinstance(value, str) and value not in _ACTIVATIONS:
            yield f"activation {shown(value)}", path, value
        elif key == "model_type" and isinstance(value, str) and value in _BY_TYPE:
            yield _BY_TYPE[value], path, value
        elif key in {"text_config", "llm_config"} and isinstance(value, dict) and not at:
            yield from _told(value, path, (), ())


def _of_rope(
    rope: Mapping[str, Any], at: DocumentPath, reads: Collection[str]
) -> Iterator[tuple[str, DocumentPath, Any]]:
    for key, value in rope.items():
        path = (*at, key)
        name, when = _TOLD.get(key, ("", _given))
        if name and when(value) and key not in reads:
            yield name, path, value
        elif isinstance(value, dict):
            yield "rotary embeddings that differ by layer", path, value
        elif key == _tag(rope) and isinstance(value, str) and value not in ROPE_TYPES:
            yield f"rotary embedding of type {shown(value)}", path, value


def _tag(rope: Mapping[str, Any]) -> str:
    """The key that says the type; older configs have ``type``."""
    return "rope_type" if rope.get("rope_type") is not None else "type"


def _of_layers(kinds: list[Any], at: DocumentPath, known: Collection[str]) -> Iterator[tuple[str, DocumentPath, Any]]:
    names = {kind for kind in kinds if isinstance(kind, str)}
    if others := names - ({*known} or {"full_attention"}) - {"sliding_attention"}:
        yield f"layers of {', '.join(sorted(others))}", at, kinds
    elif "sliding_attention" in names and "sliding_attention" not in known:
        yield "alternating sliding and full attention", at, kinds
