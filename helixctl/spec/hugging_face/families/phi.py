"""Phi-3 and Phi-4: merged projections, a part of the head rotated, frequencies by the length (LongRoPE)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.decoder import Decoder, Share


class Phi3(Decoder):
    """Phi-3, Phi-3.5 and Phi-4, dense."""

    always: ClassVar[dict[str, Any]] = {
        "attention.qkv_bias": False,
        "attention.output_bias": False,
        "attention.qk_norm": False,
    }

    max_position_embeddings: Count = 4096
    original_max_position_embeddings: Count = 4096
    intermediate_size: Count
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    partial_rotary_factor: Share = 1.0
    sliding_window: Count | None = None

    def window(self) -> tuple[str | None, int | None]:
        """The one of all layers."""
        return "sliding_window", self.sliding_window
