"""GLM: norms around the blocks, and a rotary embedding of neighbouring dims of a part of the head."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.decoder import Decoder, Flag, Share


class Glm4(Decoder):
    """GLM-4 of 2025. ``attention_bias`` is of queries, keys and values."""

    always: ClassVar[dict[str, Any]] = {
        "attention.qk_norm": False,
        "attention.output_bias": False,
        "attention.rotary.interleaved": True,
        "norm.place": "around",
    }

    head_dim: Count = 128
    num_key_value_heads: Count | None = 2
    max_position_embeddings: Count = 131072
    intermediate_size: Count
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1.5625e-07
    attention_bias: Flag = True
    partial_rotary_factor: Share = 0.5
