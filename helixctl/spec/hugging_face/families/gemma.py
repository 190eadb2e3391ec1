"""Gemma: norms with 1 + weight, embeddings times the root of the hidden size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

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
