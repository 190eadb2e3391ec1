"""Gemma 4's text model: wider heads in layers without a window, values that are the keys, layers that scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import model_validator

from helixctl.spec.attention import Positive
from helixctl.spec.base import Contradiction, Count
from helixctl.spec.hugging_face.families.alternating import FULL, SLIDING, TwoRotaries
from helixctl.spec.hugging_face.families.decoder import Activation, Derived, Experts, Flag, Share, Whole

_PER_LAYER: Final = "hidden_size_per_layer_input"


class Gemma4Text(TwoRotaries):
    """Gemma 4. The layers without a window, the last among them always, are the model's ``main`` block.

    With experts the network of a layer is their shared expert, and each has norms of its own. Embeddings of every
    layer, and keys and values shared between layers, are not modelled.
    """

    always: ClassVar[dict[str, Any]] = {
        "attention.qk_norm": True,
        "attention.value_norm": True,
        "attention.scale": 1.0,
        "norm.place": "around",
        "layer_scale": True,
        "multipliers.embedding_in_dtype": True,
    }
    keys: ClassVar[dict[str, str]] = {"multipliers.logits_cap": "final_logit_softcapping"}
    default_rope: ClassVar[Mapping[str, Any]] = {
        FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
        SLIDING: {"rope_type": "default", "rope_theta": 10000.0},
    }
    full_every: ClassVar[int] = 6
    act_key: ClassVar[str] = "hidden_activation"
    architectures: ClassVar[tuple[str, ...]] = ("Gemma4ForConditionalGeneration", "Gemma4ForCausalLM")

    hidden_activation: Activation = "gelu_pytorch_tanh"
    num_key_value_heads: Count = 4
    head_dim: Count = 256
    global_head_dim: Count = 512
    num_global_key_value_heads: Count | None = None
    per_layer_config: dict[str, dict[str, Count]] | None = None  # what transformers writes in the place of both
    intermediate_size: Count
    max_position_embeddings: Count = 131072
    tie_word_embeddings: Flag = True
    attention_bias: Flag = False
    sliding_window: Count = 512
    final_logit_softcapping: Positive | None = None
    use_bidirectional_attention: Literal["vision"] | None = None  # of pictures, none of which is in a text
    attention_k_eq_v: Flag = False
    partial_rotary_factor: Share | None = None
    enable_moe_block: Flag = False
    num_experts: Experts | None = None
    top_k_experts: Count | None = None
    moe_intermediate_size: Count | None = None
    vocab_size_per_layer_input: Whole | None = None  # of what is not modelled
    expert_intermediate_size: None = None

    @classmethod
    def flattened(cls, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """With both rotary embeddings apart, and embeddings of every layer, which a config has unless it says 0."""
        rope = config.get("rope_parameters") or dict(cls.default_rope)
        return super().flattened({_PER_LAYER: 256, **config, "rope_parameters": rope})

    @model_validator(mode="after")
    def _rotations_are_known(self) -> Self:
        rope = self.rope_parameters or {}
        kind = rope.get("rope_type", "default")
        if kind not in ("default", "proportional") or self.rope_scaling or self.partial_rotary_factor:
            raise Contradiction(f"rotary embedding of type {kind} in layers of wider heads", "rope_parameters")
        return self

    @model_validator(mode="after")
    def _full_layers_are_alike(self) -> Self:
        if self.per_layer_config is None:
            return self
        full = [str(layer) for layer, kind in enumerate(self.kinds()) if kind == FULL]
        own = list(self.per_layer_config.values())
        alike = (
            all(its == own[0] for its in own) and set(own[0]) <= {"head_dim", "num_key_value_heads"} if own else True
        )
        if sorted(self.per_layer_config) != sorted(full) or not alike:
            message = f"layers {', '.join(self.per_layer_config)} differ in another way than those without a window"
            raise Contradiction(message, "per_layer_config")
        return self

    @model_validator(mode="after")
    def _experts_are_said(self) -> Self:
        for key in ("num_experts", "top_k_experts", "moe_intermediate_size") if self.enable_moe_block else ():
            if getattr(self, key) is None:
                raise Contradiction(f"enable_moe_block without {key}", "enable_moe_block")
        return self

    def _heads(self) -> tuple[int, int]:
        """Dims of a head, and heads of keys, of the layers without a window."""
        if self.per_layer_config:
            own = next(iter(self.per_layer_config.values()))
            return own.get("head_dim", self.head_dim), own.get("num_key_value_heads", self.num_key_value_heads)
        fewer = self.num_global_key_value_heads if self.attention_k_eq_v else None
        return self.global_head_dim, fewer or self.num_key_value_heads

    @property
    def rotary_width(self) -> int:
        """Of layers without a window."""
        return self._heads()[0]

    def kinds(self) -> Sequence[str]:
        """The last layer has no window, whatever ``layer_types`` says."""
        return [*super().kinds()[:-1], FULL]

    def derived(self) -> Iterator[Derived]:
        """The heads of layers without a window, and the multiplier of embeddings."""
        yield Derived("multipliers.embedding", self.hidden_size**0.5, ("hidden_size",))
        head_dim, kv_heads = self._heads()
        either = ("per_layer_config",) if self.per_layer_config else ()
        yield Derived("attention.head_dim", head_dim, either or ("global_head_dim",))
        yield Derived("attention.kv_heads", kv_heads, either or ("num_global_key_value_heads",))
        if self.attention_k_eq_v:
            yield Derived("attention.values", "keys", ("attention_k_eq_v",))

        if self.enable_moe_block:
            yield Derived("feed_forward.intermediate_size", self.moe_intermediate_size, ("moe_intermediate_size",))
            yield Derived("feed_forward.experts", self._experts(), ("num_experts", "top_k_experts"))

    def _experts(self) -> dict[str, Any]:
        """The mixture beside the network of a layer, which is its shared expert."""
        return {
            "count": self.num_experts,
            "top_k": self.top_k_experts,
            "renormalise": True,
            "router": {"logits_scale": self.hidden_size**-0.5, "gate_scales": True},
            "shared": {"intermediate_size": self.intermediate_size},
            "norms": "apart",
        }

    def apart(self, attention: Mapping[str, Any]) -> Iterator[Derived]:
        """The block of the layers with a window, with heads of their own."""
        own = {"head_dim": self.head_dim, "kv_heads": self.num_key_value_heads, "values": "own"}
        yield from super().apart({**attention, **own})
