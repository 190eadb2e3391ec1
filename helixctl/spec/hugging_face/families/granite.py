"""Granite: Llama with numbers that embeddings, scores, residuals and logits are multiplied by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from helixctl.spec.attention import Positive
from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.decoder import Decoder, Derived, Experts, Flag


class Multiplied(Decoder):
    """What all of Granite 3 have. ``attention_bias`` is of all four projections."""

    always: ClassVar[dict[str, Any]] = {"attention.qk_norm": False}
    keys: ClassVar[dict[str, str]] = {
        "attention.scale": "attention_multiplier",
        "multipliers.embedding": "embedding_multiplier",
        "multipliers.residual": "residual_multiplier",
    }

    max_position_embeddings: Count = 2048
    intermediate_size: Count
    attention_bias: Flag = False
    embedding_multiplier: Positive = 1.0
    residual_multiplier: Positive = 1.0
    attention_multiplier: Positive = 1.0
    logits_scaling: Positive = 1.0

    def derived(self) -> Iterator[Derived]:
        """The multiplier of logits, which a config gives as what they are divided by."""
        yield Derived("multipliers.logits", 1 / self.logits_scaling, ("logits_scaling",))


class Granite(Multiplied):
    """Granite 3, dense."""

    keys: ClassVar[dict[str, str]] = {"feed_forward.bias": "mlp_bias", **Multiplied.keys}

    mlp_bias: Flag = False


class GraniteMoe(Multiplied):
    """Granite 3 with experts, whose gates are a softmax over the chosen ones."""

    num_local_experts: Experts | None = None
    num_experts: None = None
    num_experts_per_tok: Count = 2
