"""Keys of Hugging Face configs that do not change what a forward pass computes: by rule, and by their purpose.

Of a key that is not known here nobody can say so: a slip in a name looks like one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from helixctl.spec.explain import Finding
from helixctl.spec.fields import shown
from helixctl.spec.hugging_face.families import FAMILIES, Decoder
from helixctl.spec.hugging_face.features import lacks

_BY_PURPOSE: Final = {
    "what the file is": """
        transformers.js_config base_model_tp_plan base_model_pp_plan base_model_ep_plan
        quantization_config quantization compression_config
        $schema architectures model_type name_or_path transformers_version tokenizer_class model_name base_model
        unsloth_version unsloth_fixed prefix task_specific_params finetuning_task problem_type id2label label2id
        num_labels is_decoder tie_encoder_decoder is_llama_config license language tags
    """,
    "training": """
        initializer_range initializer_std init_std init_method attention_dropout hidden_dropout resid_pdrop embd_pdrop
        attn_pdrop resid_dropout embd_dropout attn_dropout ffn_dropout mlp_dropout residual_dropout embedding_dropout
        hidden_dropout_prob attention_probs_dropout_prob classifier_dropout layerdrop dropout neftune_noise_alpha
        router_aux_loss_coef router_z_loss_coef router_jitter_noise aux_loss_alpha seq_aux output_router_logits
        gradient_checkpointing tf_legacy_loss use_bfloat16 sequence_parallel recompute
    """,
    "how it is computed, and what else is given back": """
        use_cache cache_implementation keys_to_ignore_at_inference output_attentions output_hidden_states return_dict
        use_return_dict return_dict_in_generate output_scores torchscript chunk_size_feed_forward attn_implementation
        experts_implementation num_logits_to_keep use_flash_attn use_flash_attention use_flash_attention_2 use_sdpa
        fused_attn fused_mlp fused_rms_norm use_fused_rope use_fused_rms_norm use_fused_swiglu use_liger_kernel
        ep_size tp_size pp_size tensor_parallel_size tensor_parallel_degree pipeline_parallel_size
    """,
    "tokens": """
        bos_token_id eos_token_id pad_token_id sep_token_id unk_token_id eod_token_id decoder_start_token_id
        bos_token eos_token pad_token unk_token chat_template forced_bos_token_id pad_vocab_size_multiple
        forced_eos_token_id suppress_tokens begin_suppress_tokens bad_words_ids max_sequence_length model_max_length
        max_seq_len max_seq_length seq_length sequence_length n_ctx n_positions
    """,
    "generation": """
        max_length max_new_tokens min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty
        temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
        encoder_no_repeat_ngram_size num_return_sequences remove_invalid_values exponential_decay_length_penalty
    """,
}
_WITHOUT_EFFECT: Final = frozenset(key for keys in _BY_PURPOSE.values() for key in keys.split())
_TOKENIZER: Final = "tokenizer_"
# Qwen 3 with experts: its window is of all layers or of none.
_IN_ONE_FAMILY: Final = {
    "qwen3_moe": {"max_window_layers"},
    "qwen3_vl_moe_text": {"intermediate_size"},
}

# Keys that other programs have for one of the family's; transformers does not read them.
_AGAIN: Final = {
    "hidden_size": "dim d_model n_embd n_embed embed_dim",
    "num_hidden_layers": "num_layers n_layer n_layers",
    "num_attention_heads": "num_heads n_head n_heads",
    "num_experts_per_tok": "experts_per_token",
    "num_key_value_heads": "num_kv_heads n_kv_heads n_head_kv multi_query_group_num",
    "intermediate_size": "ffn_dim ffn_hidden_size n_inner d_ff",
    "head_dim": "kv_channels attention_head_dim",
    "hidden_act": "activation activation_function hidden_activation act_fn mlp_activation",
    "rms_norm_eps": "norm_eps layer_norm_eps layer_norm_epsilon layernorm_epsilon",
    "vocab_size": "n_vocab padded_vocab_size",
}
_KEY_OF: Final = {other: key for key, others in _AGAIN.items() for other in others.split()}
_GATED: Final = {"silu": {"swiglu", "swish", "silu"}, "gelu": {"geglu", "gelu"}, "relu": {"reglu", "relu"}}

# An unknown flag that is off says what the model lacks, unless it is of something that every model of ours has.
_FLAG: Final = re.compile(r"(?:use|is|has|with|enable|add|apply|do|share|fuse)_")
_OURS: Final = re.compile(r"causal|rope|rotary|norm|gate|glu|scal|softmax|residual|embed|attention$|bias$")
_QK_NORM: Final = {"use_qk_norm", "qk_norm", "qk_layernorm", "use_qk_layernorm"}
_BIASES: Final = {
    "bias",
    "use_bias",
    "qkv_bias",
    "add_bias_linear",
    "attn_bias",
    "attention_bias",
    "lm_head_bias",
    "head_bias",
}


def without_effect(key: str, value: Any, family: str) -> bool:
    """Whether a key of a family's config can be passed over."""
    if value is None or key.startswith(("_", _TOKENIZER)) or key in _WITHOUT_EFFECT or key in _KEY_OF:
        return True
    if key in _QK_NORM and value is FAMILIES[family].always["attention.qk_norm"]:
        return True  # a flag of what every model of the family has
    return key in _IN_ONE_FAMILY.get(family, ()) or lacks(key, value) or (value is False and _is_lacking(key, family))


def _is_lacking(key: str, family: str) -> bool:
    always = FAMILIES[family].always
    if key in _QK_NORM:
        return not always["attention.qk_norm"]
    if key in _BIASES:
        return not always.get("attention.qkv_bias")
    return _FLAG.match(key) is not None and _OURS.search(key) is None


def said_again(config: Mapping[str, Any], decoder: Decoder) -> Iterator[Finding]:
    """Keys without effect that contradict the key which has it, given or by default."""
    for other, key in _KEY_OF.items():
        mine, theirs = getattr(decoder, key, None), config.get(other)
        if mine is None or theirs is None or theirs == mine or other in type(decoder).model_fields:
            continue
        if isinstance(mine, str) and isinstance(theirs, str) and theirs.lower() in _GATED.get(mine, ()):
            continue
        message = f"{other} {shown(theirs)} and {key} {shown(mine)} differ"
        yield Finding(
            "HX109", message, f"transformers reads {key}: take {other} out if that is right", (other,), of_key=True
        )
