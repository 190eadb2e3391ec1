"""Families with multi-head latent attention: DeepSeek V2 and V3, and Kimi K2, whose language model is V3's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import model_validator

from helixctl.spec.attention import Positive
from helixctl.spec.base import Contradiction, Count
from helixctl.spec.hugging_face.families.decoder import Decoder, Derived, Flag, Whole
from helixctl.spec.hugging_face.families.mixtures import Mixture, OfDeepSeek

_NORM_EPS: Final = 1e-6  # of the norms of both vectors; transformers takes no key for it
_ROPES: Final = ("rope_parameters", "rope_scaling")


class OfLatent(Decoder):
    """What families with a latent have in common.

    ``qk_head_dim`` is not looked at, nor is ``head_dim`` of V2: they follow from the dims of the two parts of a head.
    """

    attention_bias: Literal[False] = False
    q_lora_rank: Count | None
    kv_lora_rank: Count
    qk_nope_head_dim: Count
    qk_rope_head_dim: Count
    qk_head_dim: Count | None = None
    v_head_dim: Count

    @model_validator(mode="after")
    def _heads_are_alike(self) -> Self:
        if self.num_key_value_heads not in {None, self.num_attention_heads}:
            message = f"{self.num_key_value_heads} num_key_value_heads: of a latent there are as many as of queries"
            raise Contradiction(message, "num_key_value_heads")
        return self

    @property
    def interleaved(self) -> tuple[bool, tuple[str, ...]]:
        """Whether neighbouring dims are turned, and the keys that say so."""
        return True, ()

    def heads(self) -> Iterator[Derived]:
        """The heads of a latent, which is one for all of them."""
        dims = ("qk_nope_head_dim", "qk_rope_head_dim")
        width = self.qk_nope_head_dim + self.qk_rope_head_dim
        yield Derived("attention.kv_heads", 1)
        yield Derived("attention.head_dim", width, dims)
        yield Derived("attention.v_head_dim", self.v_head_dim, ("v_head_dim",))
        if (scale := self._scale(width)) is not None:
            key = next(key for key in _ROPES if getattr(self, key))
            yield Derived("attention.scale", scale, (*dims, key))
        neighbours, keys = self.interleaved
        if neighbours:
            yield Derived("attention.rotary.interleaved", neighbours, keys)
        yield Derived("attention.latent.q_rank", self.q_lora_rank, ("q_lora_rank",))
        yield Derived("attention.latent.kv_rank", self.kv_lora_rank, ("kv_lora_rank",))
        yield Derived("attention.latent.rope_dim", self.qk_rope_head_dim, ("qk_rope_head_dim",))
        yield Derived("attention.latent.norm_eps", _NORM_EPS)

    def _scale(self, width: int) -> float | None:
        """Of a scaled rotary embedding with ``mscale_all_dim``: it enters queries and keys, and so the scale twice."""
        rope: dict[str, Any] = next((found for key in _ROPES if (found := getattr(self, key))), {})
        kind, by, factor = rope.get("rope_type") or rope.get("type"), rope.get("mscale_all_dim"), rope.get("factor")
        if kind in (None, "default") or not by or not factor:
            return None
        both = (0.1 * by * math.log(factor) + 1.0) ** 2 if factor > 1 else 1.0
        return float(both / math.sqrt(width))


class DeepseekV2(OfLatent, Mixture):
    """DeepSeek V2: a softmax over all experts; the best groups of them may be chosen first; shared experts."""

    width_key: ClassVar[str] = "moe_intermediate_size"
    experts_keys: ClassVar[tuple[str, ...]] = ("n_routed_experts", "num_experts")

    max_position_embeddings: Count = 2048
    intermediate_size: Count
    mlp_bias: Literal[False] = False
    first_k_dense_replace: Whole = 0
    n_routed_experts: Count | None = None
    num_experts: Count | None = None
    num_experts_per_tok: Count
    n_shared_experts: Count = 2
    n_group: Count | None = None
    topk_group: Count | None = None
    topk_method: Literal["greedy", "group_limited_greedy"] = "greedy"
    norm_topk_prob: Flag = False  # transformers does not look at it
    moe_intermediate_size: Count = 1407
    routed_scaling_factor: Positive = 1.0

    def dense_layers(self) -> tuple[range, tuple[str, ...]]:
        """The first ``first_k_dense_replace``."""
        return range(min(self.first_k_dense_replace, self.num_hidden_layers)), ("first_k_dense_replace",)

    def derived(self) -> Iterator[Derived]:
        """Heads, the router and the shared experts, which are one."""
        yield from self.heads()
        router = "feed_forward.experts.router"
        yield Derived("feed_forward.experts.renormalise", False)  # noqa: FBT003  a value
        if self.routed_scaling_factor != 1:
            yield Derived(f"{router}.scale", self.routed_scaling_factor, ("routed_scaling_factor",))
        if self.topk_method == "group_limited_greedy" and (self.n_group or 1) > 1:
            groups = {"count": self.n_group, "top_k": self.topk_group, "score": "best"}
            yield Derived(f"{router}.groups", groups, ("topk_method", "n_group", "topk_group"))
        width = self.n_shared_experts * self.moe_intermediate_size
        keys = ("n_shared_experts", "moe_intermediate_size")
        yield Derived("feed_forward.experts.shared.intermediate_size", width, keys)


class Interleaving(OfLatent):
    """Those whose configs say whether neighbouring dims are turned."""

    rope_interleave: Flag | None = True

    @property
    def interleaved(self) -> tuple[bool, tuple[str, ...]]:
        """``rope_interleave``."""
        return bool(self.rope_interleave), ("rope_interleave",)


class DeepseekV3(Interleaving, OfDeepSeek):
    """DeepSeek V3 and R1. Its layers that predict further tokens are left out."""

    max_position_embeddings: Count = 4096
    n_shared_experts: Count = 1
    n_group: Count = 8
    topk_group: Count = 4
    num_experts_per_tok: Count = 8
    moe_intermediate_size: Count = 2048
    routed_scaling_factor: Positive = 2.5
    first_k_dense_replace: Whole = 3
    scoring_func: Literal["sigmoid"] = "sigmoid"
    topk_method: Literal["noaux_tc"] = "noaux_tc"
    num_nextn_predict_layers: Whole = 1
    auto_map: dict[str, str] | None = None  # of the published configs, which are older than transformers' class

    @model_validator(mode="after")
    def _code_is_deepseeks(self) -> Self:
        others = [
            name for name in (self.auto_map or {}).values() if not name.rpartition(".")[2].startswith("DeepseekV3")
        ]
        if others:
            raise Contradiction(f"code of the model's own: not modelled ({', '.join(others)})", "auto_map")
        return self

    @model_validator(mode="after")
    def _head_dim_is_rotated(self) -> Self:
        """Transformers takes ``head_dim``, where it is given, for how many dims are rotated."""
        if self.head_dim not in {None, self.qk_rope_head_dim}:
            message = f"head_dim {self.head_dim} and qk_rope_head_dim {self.qk_rope_head_dim} differ"
            raise Contradiction(message, "head_dim")
        return self

    def derived(self) -> Iterator[Derived]:
        """Heads, then experts."""
        yield from self.heads()
        yield from super().derived()


class KimiK2(DeepseekV3):
    """Kimi K2: DeepSeek V3's class under a name of its own."""

    architectures: ClassVar[tuple[str, ...]] = ("DeepseekV3ForCausalLM",)


class KimiK25Text(KimiK2):
    """The text model of Kimi K2.5, which is Kimi K2."""

    architectures: ClassVar[tuple[str, ...]] = (
        "DeepseekV3ForCausalLM",
        "KimiK25ForConditionalGeneration",
        "Kimi_K25ForConditionalGeneration",
    )
