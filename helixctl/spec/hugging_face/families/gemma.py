"""Gemma: norms with 1 + weight, embeddings times the root of the hidden size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from helixctl.spec.attention import Positive
from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.decoder import Activation, Decoder, Derived, Flag


class Gemma(Decoder):
    """Gemma 1. Its ``hidden_act`` of gelu means the approximation by tanh, as transformers has it."""

    always: ClassVar[dict[str, Any]] = {
        "attention.qk_norm": False,
        "norm.unit_offset": True,
        "multipliers.embedding_in_dtype": True,
    }
    activations: ClassVar[dict[str, str]] = {**Decoder.activations, "gelu": "gelu_tanh"}

    hidden_act: Activation = "gelu_pytorch_tanh"
    head_dim: Count = 256
    max_position_embeddings: Count = 8192
    intermediate_size: Count
    num_key_value_heads: Count | None = 16
    tie_word_embeddings: Flag = True
    attention_bias: Flag = False
    use_bidirectional_attention: Literal[False] | None = None

    def derived(self) -> Iterator[Derived]:
        """The multiplier of embeddings."""
        yield Derived("multipliers.embedding", self.hidden_size**0.5, ("hidden_size",))


class Gemma2(Gemma):
    """Gemma 2: norms around the blocks, soft caps, and a sliding window in every other layer, the first of all."""

    always: ClassVar[dict[str, Any]] = {**Gemma.always, "norm.place": "around"}
    activations: ClassVar[dict[str, str]] = {**Decoder.activations}
    act_key: ClassVar[str] = "hidden_activation"
    alternates: ClassVar[bool] = True
    keys: ClassVar[dict[str, str]] = {
        "attention.soft_cap": "attn_logit_softcapping",
        "multipliers.logits_cap": "final_logit_softcapping",
    }

    num_key_value_heads: Count | None = 4
    hidden_activation: Activation = "gelu_pytorch_tanh"
    query_pre_attn_scalar: Positive = 256
    sliding_window: Count = 4096
    attn_logit_softcapping: Positive | None = 50.0
    final_logit_softcapping: Positive | None = 30.0

    def window(self) -> tuple[str | None, int | None]:
        """The one of the layers that slide."""
        return "sliding_window", self.sliding_window

    def derived(self) -> Iterator[Derived]:
        """The scale of attention besides."""
        yield from super().derived()
        yield Derived("attention.scale", self.query_pre_attn_scalar**-0.5, ("query_pre_attn_scalar",))

    def apart(self, attention: Mapping[str, Any]) -> Iterator[Derived]:
        """The layers with full attention: every second."""
        kinds = [("sliding_attention", "full_attention")[layer % 2] for layer in range(self.num_hidden_layers)]
        yield from self.full_apart(kinds, {**attention, "sliding_window": None})
