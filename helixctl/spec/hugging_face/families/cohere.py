"""Cohere's Command R: layer norms, attention and feed-forward network side by side, logits times a number."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from helixctl.spec.attention import Positive
from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.decoder import Decoder, Flag


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
