"""Families with multi-head latent attention: DeepSeek V2 and V3, and Kimi K2, whose language model is V3's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from helixctl.spec.base import Contradiction, Count
from helixctl.spec.hugging_face.families.decoder import Decoder, Derived, Experts, Flag

_NORM_EPS = 1e-6  # of both vectors; transformers takes no key for it


class DeepseekV2(Decoder):
    """DeepSeek V2. ``head_dim`` and ``qk_head_dim`` are not read: they follow from the dims of a head's two parts."""

    max_position_embeddings: Count = 2048
    intermediate_size: Count
    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False
    q_lora_rank: Count | None
    kv_lora_rank: Count
    qk_nope_head_dim: Count
    qk_rope_head_dim: Count
    qk_head_dim: Count | None = None
    v_head_dim: Count
    first_k_dense_replace: Annotated[int, Field(strict=True, ge=0, le=4096)] = 0
    n_routed_experts: Experts = 64
    n_shared_experts: Count | None = 2
    n_group: Count | None = None
    topk_group: Count | None = None
    topk_method: str | None = "greedy"
    norm_topk_prob: Flag = False
    num_experts_per_tok: Count | None = None
    moe_intermediate_size: Count = 1407
    routed_scaling_factor: float = 1.0

    @model_validator(mode="after")
    def _heads_are_alike(self) -> Self:
        if self.num_key_value_heads not in {None, self.num_attention_heads}:
            message = f"{self.num_key_value_heads} num_key_value_heads: of a latent there are as many as of queries"
            raise Contradiction(message, "num_key_value_heads")
        return self

    @model_validator(mode="after")
    def _all_layers_are_dense(self) -> Self:
        if self.first_k_dense_replace < self.num_hidden_layers:
            message = f"experts behind the first {self.first_k_dense_replace} layers: not modelled"
            raise Contradiction(message, "first_k_dense_replace")
        return self

    def derived(self) -> Iterator[Derived]:
        """Heads of a latent, which is one for all of them."""
        dims = ("qk_nope_head_dim", "qk_rope_head_dim")
        yield Derived("attention.kv_heads", 1)
        yield Derived("attention.head_dim", self.qk_nope_head_dim + self.qk_rope_head_dim, dims)
        yield Derived("attention.v_head_dim", self.v_head_dim, ("v_head_dim",))
        yield Derived("attention.latent.q_rank", self.q_lora_rank, ("q_lora_rank",))
        yield Derived("attention.latent.kv_rank", self.kv_lora_rank, ("kv_lora_rank",))
        yield Derived("attention.latent.rope_dim", self.qk_rope_head_dim, ("qk_rope_head_dim",))
        yield Derived("attention.latent.norm_eps", _NORM_EPS)


class DeepseekV3(DeepseekV2):
    """DeepSeek V3 and R1."""

    max_position_embeddings: Count = 4096
    first_k_dense_replace: Annotated[int, Field(strict=True, ge=0, le=4096)] = 3
    n_routed_experts: Experts = 256
    n_shared_experts: Count | None = 1
    n_group: Count | None = 8
    topk_group: Count | None = 4
    norm_topk_prob: Flag = True
    num_experts_per_tok: Count | None = 8
    moe_intermediate_size: Count = 2048
    routed_scaling_factor: float = 2.5
    rope_interleave: Flag | None = True
    num_nextn_predict_layers: Annotated[int, Field(strict=True, ge=0, le=4096)] = 1  # layers that are left out


class KimiK2(DeepseekV3):
    """Kimi K2: DeepSeek V3's class under a name of its own."""

    architectures: ClassVar[tuple[str, ...]] = ("DeepseekV3ForCausalLM",)
