"""Small models as GGUF files: written with the package gguf, heads permuted as llama.cpp's converter does it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch

# The model_type, and what a GGUF file calls it.
ARCHITECTURES: Final = {"llama": "llama", "qwen3": "qwen3", "qwen3_moe": "qwen3moe"}
SIZES: Final[dict[str, Any]] = {
    "vocab_size": 101, "num_hidden_layers": 2, "max_position_embeddings": 64, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 16, "hidden_size": 256, "intermediate_size": 512, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "rms_norm_eps": 1e-6,
}  # fmt: skip
_EXPERTS: Final = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 256, "norm_topk_prob": True,
}  # fmt: skip
_NAMES: Final = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
_ENDS: Final = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}  # fmt: skip


def made(kind: str, **changes: Any) -> Any:
    """A random model of transformers."""
    transformers = pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        own = _EXPERTS if kind == "qwen3_moe" else {}
        config = transformers.AutoConfig.for_model(kind, **(SIZES | own | changes))
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around, deviation = (1.0, 0.2) if "norm" in name else (0.0, parameter.shape[-1] ** -0.5)
            parameter.normal_(around, deviation)
    return model


def write(model: Any, path: Path, kind: str, **metadata: Any) -> None:
    """Write a model with its matrices in a type where their rows have whole blocks, else in Q8_0.

    The model is left with the numbers that the file means.
    """
    import gguf

    config = model.config
    its = ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(path, its)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    if its == "qwen3moe":
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    for key, value in metadata.items():
        writer.add_string(f"{its}.{key}", value) if isinstance(value, str) else writer.add_uint32(f"{its}.{key}", value)
    state = model.state_dict()
    for name in sorted(state):
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        weight = state[name].numpy()
        for own, part in _tensors(name, weight):
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(own.split(".")[-2])
            stored = quantised(part, kind) if part.ndim > 1 and "gate_inp" not in own else None
            meant = part if stored is None else gguf.quants.dequantize(stored[0], stored[1])
            np.copyto(part, meant)
            data = part if stored is None else stored[0]
            if its == "llama" and heads:
                data = _permuted(data, heads)
            writer.add_tensor(own, np.ascontiguousarray(data), raw_dtype=None if stored is None else stored[1])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(name: str, weight: Any) -> list[tuple[str, Any]]:
    """The tensors of a file for one of transformers, as views of it."""
    if name in _ENDS:
        return [(_ENDS[name], weight)]
    _, _, layer, rest = name.split(".", 3)
    stem, _, end = rest.rpartition(".")
    if rest == "mlp.experts.gate_up_proj":
        half = weight.shape[1] // 2
        return [
            (f"blk.{layer}.ffn_gate_exps.weight", weight[:, :half]),
            (f"blk.{layer}.ffn_up_exps.weight", weight[:, half:]),
        ]
    if rest == "mlp.experts.down_proj":
        return [(f"blk.{layer}.ffn_down_exps.weight", weight)]
    return [(f"blk.{layer}.{_NAMES[stem]}.{end}", weight)]


def _permuted(rows: Any, heads: int) -> Any:
    """``LlamaModel.permute`` of llama.cpp's convert_hf_to_gguf.py."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def quantised(weight: Any, kind: str) -> tuple[Any, Any]:
    """A matrix in a type, and which that is. Blocks of K types, which the package does not make, are random."""
    import gguf

    size, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    if weight.shape[-1] % size:
        return quantised(weight, "Q8_0")
    chosen = gguf.GGMLQuantizationType[kind]
    if not kind.endswith("_K"):
        return gguf.quants.quantize(np.ascontiguousarray(weight), chosen), chosen
    blocks = np.random.default_rng(weight.size).integers(
        256, size=(*weight.shape[:-1], weight.shape[-1] // size, nbytes)
    )
    blocks = blocks.astype(np.uint8)
    # The scales of all of a block are two half floats, at its end in Q6_K: one.
    scale = np.array([0.0005, 0.0004], np.float16).view(np.uint8)
    if kind == "Q6_K":
        blocks[..., -2:] = scale[:2]
    else:
        blocks[..., :4] = scale
    return blocks.reshape(*weight.shape[:-1], -1), chosen
