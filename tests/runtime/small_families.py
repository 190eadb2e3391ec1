"""A small model of each further family, as transformers makes and writes it; one row a family."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

import pytest
import torch

VOCABULARY: Final = 101
# Heads that 4 does not divide, fewer heads of keys, and a head's dims that are not hidden_size / heads where a family
# allows it.
_SIZES: Final[dict[str, Any]] = {
    "vocab_size": VOCABULARY, "num_hidden_layers": 2, "max_position_embeddings": 256, "num_attention_heads": 6,
    "num_key_value_heads": 2, "hidden_size": 48, "intermediate_size": 56, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
_WIDE: Final = {"head_dim": 12}
_LONGROPE: Final = {
    "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "short_factor": [1.0, 1.5],
    "long_factor": [2.0, 3.0],
}  # fmt: skip
_DYNAMIC: Final = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 3.0}
_YARN: Final = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
_MROPE: Final = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2], "mrope_interleaved": True}
_WINDOW: Final = {"use_sliding_window": True, "sliding_window": 7}
_MIXED: Final = {"layer_types": ["sliding_attention", "full_attention"]}
_DENSE_AND_WINDOWS: Final = {
    "num_hidden_layers": 4, "first_k_dense_replace": 2, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1,
    "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "sliding_window": 7,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}  # fmt: skip
_EXPERTS: Final = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_OF_DEEPSEEK: Final = {
    "n_routed_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 3, "topk_group": 2,
    "norm_topk_prob": True, "routed_scaling_factor": 2.5, "first_k_dense_replace": 1,
}  # fmt: skip
_OF_QWEN: Final = {
    "depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 48,
    "deepstack_visual_indexes": [0],
}  # fmt: skip
# Of families whose text model is a part of another: what else that has.
_BESIDE: Final[dict[str, dict[str, Any]]] = {
    "qwen3_vl": _OF_QWEN,
    "qwen3_vl_moe": _OF_QWEN,
    "mistral3": {
        "model_type": "pixtral", "num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2,
        "intermediate_size": 64, "image_size": 28, "patch_size": 14,
    },
    "gemma4": {
        "num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8,
        "intermediate_size": 16, "position_embedding_size": 16, "pooling_kernel_size": 1, "patch_size": 4,
    },
    "llama4": {
        "num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 28,
        "patch_size": 14, "projector_input_dim": 16, "projector_output_dim": 16, "vision_output_dim": 16,
    },
}  # fmt: skip
_MSCALE: Final = {**_YARN, "mscale": 0.7, "mscale_all_dim": 1.3}
_LATENT: Final = {
    "num_key_value_heads": 6, "kv_lora_rank": 20, "q_lora_rank": 22, "qk_nope_head_dim": 10, "qk_rope_head_dim": 8,
    "v_head_dim": 14, "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 12,
    "n_shared_experts": 2, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1,
}  # fmt: skip
# Rows of fewer tokens than index_topk and of more; layers that share a choice, and ones that make a second one.
_SPARSE: Final = {**_LATENT, "index_n_heads": 7, "index_head_dim": 10, "index_topk": 8}
_SHARING: Final = {
    "num_hidden_layers": 4, "indexer_types": ["full", "shared", "full", "shared"],
    "mlp_layer_types": ["dense", "sparse", "sparse", "dense"],
}  # fmt: skip

_MIMO: Final = {
    "num_key_value_heads": 3, "head_dim": 12, "v_head_dim": 10, "sliding_window": 6,
    "n_routed_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 3, "topk_group": 2,
}  # fmt: skip
_GEMMA4: Final = {**_WIDE, "global_head_dim": 16, "sliding_window": 7, "hidden_size_per_layer_input": 0}
_LLAMA3: Final = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
_SCALED: Final = {**_YARN, "original_max_position_embeddings": 4, "llama_4_scaling_beta": 0.4}
_LLAMA4: Final = {
    **_WIDE, "intermediate_size": 16, "intermediate_size_mlp": 56, "num_local_experts": 6, "num_experts_per_tok": 2,
    "attention_chunk_size": 5, "floor_scale": 3, "attn_scale": 0.5,
}  # fmt: skip

# A name -> the model_type, and what its config has beside the sizes.
SMALL_FAMILIES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "gemma": ("gemma", _WIDE),
    "llama with dynamic ntk, long": ("llama", {**_WIDE, "rope_parameters": _DYNAMIC, "max_position_embeddings": 6}),
    "mistral with a window": ("mistral", {"sliding_window": 7}),
    "qwen2 with a window": ("qwen2", {**_WINDOW, "max_window_layers": 0}),
    "qwen3 with windows": ("qwen3", {**_WIDE, **_WINDOW, "max_window_layers": 1}),
    "gemma2": (
        "gemma2",
        {
            **_WIDE,
            "sliding_window": 7,
            "query_pre_attn_scalar": 20,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 2.0,
        },
    ),
    "gemma3_text": ("gemma3_text", {**_WIDE, "sliding_window": 7, "query_pre_attn_scalar": 20, **_MIXED}),
    "gemma4 with keys for values": (
        "gemma4_text",
        {
            **_GEMMA4,
            "num_hidden_layers": 3,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 3,
            "final_logit_softcapping": 2.0,
            "attention_bias": True,
        },
    ),
    "gemma4 with experts": (
        "gemma4",
        {
            **_GEMMA4,
            **_MIXED,
            "enable_moe_block": True,
            "num_experts": 6,
            "top_k_experts": 2,
            "moe_intermediate_size": 16,
        },
    ),
    "olmo3": ("olmo3", {"sliding_window": 7, **_MIXED}),
    "exaone4": ("exaone4", {"sliding_window": 7, "sliding_window_pattern": 2}),
    "cohere2": ("cohere2", {"sliding_window": 7, **_MIXED}),
    "dots1 with windows": ("dots1", _DENSE_AND_WINDOWS),
    "olmo2": ("olmo2", {}),
    "glm4": ("glm4", _WIDE),
    "cohere": ("cohere", {}),
    "cohere with q and k norms": ("cohere", {"use_qk_norm": True}),
    "granite": (
        "granite",
        {"embedding_multiplier": 3.0, "residual_multiplier": 0.22, "logits_scaling": 6.0, "attention_multiplier": 0.2},
    ),
    "seed_oss": ("seed_oss", {**_WIDE, "mlp_bias": True, "attention_out_bias": True}),
    "ernie4_5": ("ernie4_5", {**_WIDE, "use_bias": True}),
    "starcoder2": ("starcoder2", {}),
    "smollm3": ("smollm3", {"no_rope_layer_interval": 2}),
    "phi3": ("phi3", {"rope_parameters": _LONGROPE, "original_max_position_embeddings": 128}),
    "phi3, long": ("phi3", {"rope_parameters": _LONGROPE, "original_max_position_embeddings": 8}),
    "qwen3 with yarn": ("qwen3", {**_WIDE, "rope_parameters": _YARN}),
    "deepseek_v2": ("deepseek_v2", {**_LATENT, "topk_method": "group_limited_greedy", "routed_scaling_factor": 1.5}),
    "deepseek_v2 without a rank of queries": ("deepseek_v2", {**_LATENT, "q_lora_rank": None}),
    "deepseek_v3": ("deepseek_v3", {**_LATENT, "rope_parameters": _MSCALE}),
    "deepseek_v3, halves": ("deepseek_v3", {**_LATENT, "rope_interleave": False, "first_k_dense_replace": 0}),
    "deepseek_v32": ("deepseek_v32", {**_SPARSE, "rope_parameters": _MSCALE}),
    "glm_moe_dsa": ("glm_moe_dsa", {**_SPARSE, **_SHARING}),
    "qwen3_vl": ("qwen3_vl", {**_WIDE, "rope_parameters": _MROPE}),
    "qwen3_vl_moe": ("qwen3_vl_moe", {**_WIDE, **_EXPERTS, "rope_parameters": _MROPE}),
    "qwen2_moe": ("qwen2_moe", {**_EXPERTS, "shared_expert_intermediate_size": 24, "mlp_only_layers": [0]}),
    "qwen3_moe with dense layers": ("qwen3_moe", {**_WIDE, **_EXPERTS, "decoder_sparse_step": 2}),
    "dots1": ("dots1", {**_WIDE, **_OF_DEEPSEEK, "n_shared_experts": 2}),
    "glm4_moe": ("glm4_moe", {**_WIDE, **_OF_DEEPSEEK, "use_qk_norm": True, "num_mtp_layers": 0}),
    "ernie4_5_moe": ("ernie4_5_moe", {"moe_num_experts": 6, "moe_k": 2, "moe_intermediate_size": 16}),
    "granitemoe": (
        "granitemoe",
        {
            "num_local_experts": 6,
            "intermediate_size": 16,
            "embedding_multiplier": 1.5,
            "residual_multiplier": 0.7,
            "attention_multiplier": 0.3,
            "logits_scaling": 2.0,
        },
    ),
    "gpt_oss": (
        "gpt_oss",
        {
            **_WIDE,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "intermediate_size": 16,
            "sliding_window": 5,
            "swiglu_limit": 0.5,
        },
    ),
    "olmoe": ("olmoe", {"num_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 16}),
    "phimoe": ("phimoe", {"num_local_experts": 6, "intermediate_size": 16, "router_jitter_noise": 0.2}),
    "llama4": (
        "llama4",
        {
            **_LLAMA4,
            "interleave_moe_layer_step": 2,
            "no_rope_layer_interval": 2,
        },
    ),
    "llama4, layers listed": (
        "llama4_text",
        {
            **_LLAMA4,
            "num_hidden_layers": 4,
            "moe_layers": [1, 2],
            "no_rope_layers": [1, 1, 0, 0],
            "layer_types": ["chunked_attention", "full_attention"] * 2,
            "use_qk_norm": False,
            "rope_parameters": _LLAMA3,
        },
    ),
    "mistral3 with a window": (
        "mistral3",
        {**_WIDE, "model_type": "ministral3", "rope_parameters": _SCALED, "sliding_window": 7},
    ),
    "mistral4": ("mistral4", {**_LATENT, "rope_parameters": {**_SCALED, "mscale_all_dim": 1.3}}),
    "mimo_v2_flash": ("mimo_v2_flash", _MIMO),
    "mimo_v2_flash, layers listed": (
        "mimo_v2_flash",
        {
            **_MIMO,
            "num_hidden_layers": 3,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "mlp_layer_types": ["sparse", "dense", "sparse"],
            "attention_bias": True,
            "attention_value_scale": None,
            "rope_parameters": {
                "full_attention": {**_YARN, "partial_rotary_factor": 0.5},
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.7},
            },
        },
    ),
    "afmoe": (
        "afmoe",
        {
            **_WIDE,
            "num_hidden_layers": 3,
            "global_attn_every_n_layers": 2,
            "sliding_window": 7,
            "num_dense_layers": 1,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "num_shared_experts": 2,
            "moe_intermediate_size": 16,
            "route_scale": 2.5,
            "mup_enabled": True,
        },
    ),
    "afmoe, layers listed": (
        "afmoe",
        {
            **_WIDE,
            "num_hidden_layers": 3,
            "layer_types": ["full_attention", "full_attention", "sliding_attention"],
            "sliding_window": 5,
            "num_dense_layers": 2,
            "num_experts": 4,
            "num_experts_per_tok": 1,
            "num_shared_experts": 1,
            "moe_intermediate_size": 16,
            "attention_bias": True,
        },
    ),
    "minimax_m2": (
        "minimax_m2",
        {**_WIDE, "num_local_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 16, "rotary_dim": 8},
    ),
}


def written(name: str, folder: Path, changes: dict[str, Any] | None = None) -> Any:
    """Write a random model with a config of its own, and return it."""
    transformers = pytest.importorskip("transformers")
    kind, own = SMALL_FAMILIES[name]
    sizes = {**_SIZES, **own, **(changes or {})}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        if kind in _BESIDE:
            config = transformers.AutoConfig.for_model(kind, text_config=sizes, vision_config=_BESIDE[kind])
            model = transformers.AutoModelForImageTextToText.from_config(config).eval()
        else:
            # The other ways of transformers pass over a soft cap, and sinks.
            how = {"attn_implementation": "eager"} if kind in {"gemma2", "gpt_oss"} else {}
            config = transformers.AutoConfig.for_model(kind, **sizes)
            if kind == "mistral4":  # which AutoModelForCausalLM does not know
                model = transformers.Mistral4ForCausalLM(config)
            else:
                model = transformers.AutoModelForCausalLM.from_config(config, **how)
        model = model.eval()
        with torch.no_grad():
            biases = [(n, b) for n, b in model.named_buffers() if "correction_bias" in n]
            for parameter_name, parameter in [*model.named_parameters(), *biases]:
                if any(word in parameter_name for word in ("norm", "bias", "router.scale", "per_expert_scale")):
                    # constant as they are made
                    around = 0.0 if "bias" in parameter_name or kind in {"gemma", "gemma2", "gemma3_text"} else 1.0
                    parameter.normal_(around, 0.2)
                elif parameter_name.endswith("sinks"):
                    parameter.normal_()
                elif parameter.dim() > 1:
                    parameter.normal_(0.0, parameter.shape[-1] ** -0.5)
            for buffer_name, buffer in model.named_buffers():
                if buffer_name.endswith("layer_scalar"):
                    buffer.normal_(1.0, 0.2)
                if buffer_name.endswith("correction_bias"):
                    buffer.normal_(0.0, 0.2)
        model.save_pretrained(folder)
    return model
