"""The text models of Qwen3-VL: for tokens without pictures its rotary embedding is the usual one."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.decoder import Decoder, Experts, Flag


class Qwen3VLText(Decoder):
    """The dense one: Qwen 3."""

    always: ClassVar[dict[str, Any]] = {"attention.qk_norm": True}
    default_theta: ClassVar[float] = 500000.0
    architectures: ClassVar[tuple[str, ...]] = ("Qwen3VLForConditionalGeneration",)

    head_dim: Count = 128
    num_key_value_heads: Count | None = 32
    max_position_embeddings: Count = 128000
    intermediate_size: Count
    attention_bias: Flag = False
    mrope_section: list[Count] | None = None
    mrope_interleaved: Flag | None = None


class Qwen3VLMoeText(Decoder):
    """The one with experts in every layer, whose gates transformers always renormalises."""

    always: ClassVar[dict[str, Any]] = {"attention.qk_norm": True}
    default_theta: ClassVar[float] = 500000.0
    width_key: ClassVar[str] = "moe_intermediate_size"
    architectures: ClassVar[tuple[str, ...]] = ("Qwen3VLMoeForConditionalGeneration",)

    head_dim: Count | None = None
    num_key_value_heads: Count | None = 16
    max_position_embeddings: Count = 128000
    attention_bias: Flag = False
    moe_intermediate_size: Count
    num_local_experts: Experts | None = None
    num_experts: Experts | None = None
    num_experts_per_tok: Count
    norm_topk_prob: Literal[True] = True
    mrope_section: list[Count] | None = None
    mrope_interleaved: Flag | None = None
