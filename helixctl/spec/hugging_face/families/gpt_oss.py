"""gpt-oss: attention sinks, a window in every second layer, and experts with biases and a clamped activation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from helixctl.spec.attention import Positive
from helixctl.spec.base import Contradiction, Count
from helixctl.spec.hugging_face.families.alternating import Alternating
from helixctl.spec.hugging_face.families.decoder import Derived, Experts, Flag


class GptOss(Alternating):
    """gpt-oss. ``attention_bias`` is of all four projections; ``hidden_act`` is not looked at."""

    always: ClassVar[dict[str, Any]] = {
        "attention.qk_norm": False,
        "attention.sinks": True,
        "feed_forward.bias": True,
    }
    default_theta: ClassVar[float] = 150000.0
    default_rope: ClassVar[Mapping[str, Any]] = {
        "rope_type": "yarn",
        "rope_theta": 150000.0,
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 4096,
    }
    full_every: ClassVar[int] = 2

    head_dim: Count | None = 64
    num_key_value_heads: Count | None = 8
    max_position_embeddings: Count = 131072
    intermediate_size: Count
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    sliding_window: Count | None = 128
    attention_bias: Flag = True
    num_local_experts: Experts | None = None
    num_experts: Experts | None = None
    num_experts_per_tok: Count = 4
    swiglu_alpha: Positive = 1.702
    swiglu_limit: Positive = 7.0
    initial_context_length: Count | None = None

    @model_validator(mode="after")
    def _one_original_context(self) -> Self:
        """``initial_context_length`` is not read by transformers: it says again what the rotary embedding has."""
        said = (self.rope_parameters or self.rope_scaling or {}).get("original_max_position_embeddings")
        if None is not self.initial_context_length != said is not None:
            message = f"initial_context_length {self.initial_context_length} and {said} of the rotary embedding differ"
            raise Contradiction(message, "initial_context_length")
        return self

    def derived(self) -> Iterator[Derived]:
        """The router's bias and the clamped activation."""
        yield Derived("feed_forward.activation", "silu")
        yield Derived("feed_forward.experts.router.bias", True)  # noqa: FBT003  a value
        yield Derived("feed_forward.clamp.limit", self.swiglu_limit, ("swiglu_limit",))
        yield Derived("feed_forward.clamp.alpha", self.swiglu_alpha, ("swiglu_alpha",))
