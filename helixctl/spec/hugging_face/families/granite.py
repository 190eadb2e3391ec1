"""Granite: Llama with numbers that embeddings, scores, residuals and logits are multiplied by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from helixctl.spec.attention import Positive
from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.decoder import Decoder, Derived, Flag


class Granite(Decoder):
    """Granite 3, dense. ``attention_bias`` is of all four projections."""

    always: ClassVar[dict[str, Any]] = {"attention.qk_norm": False}
    keys: ClassVar[dict[str, str]] = {
        "feed_forward.bias": "mlp_bias",
        "attention.scale": "attention_multiplier",
        "multipliers.embedding": "embedding_multiplier",
        "multipliers.residual": "residual_multiplier",
    }

    max_position_embeddings: Count = 2048
    intermediate_size: Count
    attention_bias: Flag = False
    mlp_bias: Flag = False
    embedding_multiplier: Positive = 1.0
    residual_multiplier: Positive = 1.0
    attention_multiplier: Positive = 1.0
    logits_scaling: Positive = 1.0

    def derived(self) -> Iterator[Derived]:
        """Logits are divided."""
        yield Derived("multipliers.logits", 1 / self.logits_scaling, ("logits_scaling",))
