"""OLMo: norms after the blocks, and of queries and keys over all heads together."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.decoder import Decoder, Experts, Flag


class Olmo2(Decoder):
    """OLMo 2. ``attention_bias`` is of all four projections."""

    always: ClassVar[dict[str, Any]] = {
        "attention.qk_norm": True,
        "attention.qk_norm_over": "projection",
        "norm.place": "after",
    }

    max_position_embeddings: Count = 2048
    intermediate_size: Count
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    attention_bias: Flag = False


class Olmoe(Decoder):
    """OLMoE: experts in every layer, whose gates are not renormalised; norms before the blocks."""

    always: ClassVar[dict[str, Any]] = {"attention.qk_norm": True, "attention.qk_norm_over": "projection"}

    head_dim: None = None  # transformers gives its norms hidden_size numbers, whatever the heads
    max_position_embeddings: Count = 4096
    intermediate_size: Count
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    attention_bias: Flag = False
    clip_qkv: None = None
    num_local_experts: Experts | None = None
    num_experts: Experts | None = None
    num_experts_per_tok: Count = 8
    norm_topk_prob: Flag = False
