"""Families with experts."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.decoder import Decoder, Experts, Flag
from helixctl.spec.hugging_face.families.dense import Mistral


class Mixtral(Mistral):
    """Mixtral: Mistral with experts. transformers knows the experts' number by both keys."""

    default_theta: ClassVar[float] = 1000000.0

    sliding_window: Count | None = None
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    num_local_experts: Experts | None = None
    num_experts: Experts | None = None
    num_experts_per_tok: Count


class Qwen3Moe(Decoder):
    """Qwen 3 with experts in every layer."""

    always: ClassVar[dict[str, Any]] = {"attention.qk_norm": True}
    width_key: ClassVar[str] = "moe_intermediate_size"

    num_key_value_heads: Count | None = 4
    max_position_embeddings: Count = 32768
    attention_bias: Flag = False
    moe_intermediate_size: Count
    num_local_experts: Experts | None = None
    num_experts: Experts | None = None
    num_experts_per_tok: Count
    norm_topk_prob: Flag = False
    use_sliding_window: Flag = False
    sliding_window: Count | None = 4096

    def window(self) -> tuple[str | None, int | None]:
        """The one of all layers; ``max_window_layers`` is not looked at."""
        return ("sliding_window", self.sliding_window) if self.use_sliding_window else ("use_sliding_window", None)
