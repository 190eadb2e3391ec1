"""Cohere's Command R: layer norms, attention and feed-forward network side by side, logits times a number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from helixctl.spec.attention import Positive
from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.decoder import Decoder, Derived, Flag


class Cohere(Decoder):
    """Command R and R+. ``use_qk_norm``: every head of queries and keys has a weight of its own."""

    always: ClassVar[dict[str, Any]] = {
        "attention.qk_norm": False,
        "attention.qk_norm_weight": "per_head",
        "attention.rotary.interleaved": True,
        "norm.function": "layer_norm",
        "side_by_side": True,
    }
    default_theta: ClassVar[float] = 500000.0
    eps_key: ClassVar[str] = "layer_norm_eps"
    keys: ClassVar[dict[str, str]] = {"attention.qk_norm": "use_qk_norm", "multipliers.logits": "logit_scale"}

    max_position_embeddings: Count = 8192
    intermediate_size: Count
    layer_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    rms_norm_eps: None = None  # type: ignore[assignment]
    logit_scale: Positive = 0.0625
    tie_word_embeddings: Flag = True
    attention_bias: Flag = False
    use_qk_norm: Flag = False


class Cohere2(Decoder):
    """Command R7B and A: three layers with a sliding window and a rotary embedding, then one with neither."""

    always: ClassVar[dict[str, Any]] = {**Cohere.always, "attention.qk_norm_weight": "shared"}
    eps_key: ClassVar[str] = "layer_norm_eps"
    alternates: ClassVar[bool] = True
    keys: ClassVar[dict[str, str]] = {"multipliers.logits": "logit_scale"}

    max_position_embeddings: Count = 8192
    intermediate_size: Count
    layer_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    rms_norm_eps: None = None  # type: ignore[assignment]
    logit_scale: Positive = 0.0625
    tie_word_embeddings: Flag = True
    attention_bias: Flag = False
    sliding_window: Count = 4096
    sliding_window_pattern: Count = 4

    def window(self) -> tuple[str | None, int | None]:
        """The one of the layers that slide."""
        return "sliding_window", self.sliding_window

    def apart(self, attention: Mapping[str, Any]) -> Iterator[Derived]:
        """The layers with full attention: each ``sliding_window_pattern``-th."""
        kinds = [
            "sliding_attention" if (layer + 1) % self.sliding_window_pattern else "full_attention"
            for layer in range(self.num_hidden_layers)
        ]
        yield from self.full_apart(kinds, {**attention, "sliding_window": None, "rotary": None})
