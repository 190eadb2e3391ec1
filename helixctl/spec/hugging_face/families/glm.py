"""GLM: norms around the blocks, and a rotary embedding of neighbouring dims of a part of the head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import Field

from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.decoder import Decoder, Flag, Share, Whole
from helixctl.spec.hugging_face.families.mixtures import OfDeepSeek


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


class Glm4Moe(OfDeepSeek):
    """GLM-4.5 to 4.7: the mixture of DeepSeek V3. ``attention_bias`` is of queries, keys and values."""

    always: ClassVar[dict[str, Any]] = {"attention.output_bias": False}
    keys: ClassVar[dict[str, str]] = {"attention.qk_norm": "use_qk_norm"}

    num_key_value_heads: Count | None = 8
    max_position_embeddings: Count = 131072
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    attention_bias: Flag = False
    use_qk_norm: Flag = False
    partial_rotary_factor: Share = 0.5
    num_experts_per_tok: Count = 8
    num_nextn_predict_layers: Whole | None = None
    num_mtp_layers: Whole | None = None

    def left_out(self) -> Iterator[str]:
        """Its layers that predict further tokens."""
        for key in ("num_nextn_predict_layers", "num_mtp_layers"):
            if getattr(self, key):
                yield f"layers that predict further tokens ({key})"
                return
