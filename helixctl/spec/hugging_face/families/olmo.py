"""OLMo: norms after the blocks, and of queries and keys over all heads together."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.decoder import Decoder, Flag


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
