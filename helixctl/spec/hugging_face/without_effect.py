"""Keys of Hugging Face configs that do not change what a forward pass computes, by their purpose."""

from __future__ import annotations

from typing import Final

_BY_PURPOSE: Final = {
    "what the file is": """
        $schema architectures model_type _name_or_path name_or_path transformers_version _commit_hash tokenizer_class
        unsloth_version unsloth_fixed prefix task_specific_params finetuning_task problem_type id2label label2id
        num_labels is_decoder tie_encoder_decoder
    """,
    "training": """
        initializer_range attention_dropout hidden_dropout resid_pdrop embd_pdrop attn_pdrop router_aux_loss_coef
        router_jitter_noise output_router_logits gradient_checkpointing tf_legacy_loss use_bfloat16
    """,
    "how it is computed, and what else is given back": """
        use_cache cache_implementation keys_to_ignore_at_inference output_attentions output_hidden_states return_dict
        return_dict_in_generate output_scores torchscript chunk_size_feed_forward attn_implementation
        _attn_implementation _attn_implementation_autoset _attn_implementation_internal _flash_attn_2_enabled
        experts_implementation _experts_implementation num_logits_to_keep
    """,
    "tokens": """
        bos_token_id eos_token_id pad_token_id sep_token_id unk_token_id decoder_start_token_id forced_bos_token_id
        forced_eos_token_id suppress_tokens begin_suppress_tokens bad_words_ids max_sequence_length model_max_length
    """,
    "generation": """
        max_length max_new_tokens min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty
        temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
        encoder_no_repeat_ngram_size num_return_sequences remove_invalid_values exponential_decay_length_penalty
    """,
    "features that a config names to say that it lacks them; where it has them, they are refused": """
        mlp_bias partial_rotary_factor use_mrope mlp_only_layers decoder_sparse_step is_encoder_decoder
        add_cross_attention cross_attention_hidden_size pruned_heads pretraining_tp quantization_config auto_map
    """,
}
_WITHOUT_EFFECT: Final = frozenset(key for keys in _BY_PURPOSE.values() for key in keys.split())
# Qwen 3 with experts: the width of dense layers, which are refused; its window is of all layers or of none.
_IN_ONE_FAMILY: Final = {"qwen3_moe": {"intermediate_size", "max_window_layers"}}


def without_effect(key: str, family: str) -> bool:
    """Whether a key of a family's config can be passed over."""
    return key in _WITHOUT_EFFECT or key in _IN_ONE_FAMILY.get(family, ())
