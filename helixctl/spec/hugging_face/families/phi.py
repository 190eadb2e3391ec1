"""Phi-3 and Phi-4: merged projections, a part of the head rotated, frequencies by the length (LongRoPE)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.decoder import Derived, Experts, Flag, Share, Windowed
from helixctl.spec.hugging_face.families.mixtures import Mixture


class Phi3(Windowed):
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


class Phimoe(Windowed, Mixture):
    """Phi-3.5-MoE: layer norms, and the two gates of a sparse mixer. ``attention_bias`` is of all four projections.

    ``short_mscale`` and ``long_mscale`` of its longrope are not modelled.
    """

    always: ClassVar[dict[str, Any]] = {
        "attention.qk_norm": False,
        "norm.function": "layer_norm",
        "norm.bias": True,
    }
    default_theta: ClassVar[float] = 1000000.0
    architectures: ClassVar[tuple[str, ...]] = ("PhiMoEForCausalLM",)

    num_key_value_heads: Count | None = 8
    max_position_embeddings: Count = 131072
    intermediate_size: Count
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    attention_bias: Flag = False
    lm_head_bias: Literal[False] = False
    num_local_experts: Experts | None = None
    num_experts: None = None
    num_experts_per_tok: Literal[2] = 2
    router_jitter_noise: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.01
    input_jitter_noise: Annotated[float, Field(strict=True, ge=0)] = 0.0  # of training

    def derived(self) -> Iterator[Derived]:
        """The router."""
        router = "feed_forward.experts.router"
        yield Derived("feed_forward.experts.renormalise", False)  # noqa: FBT003  a value
        yield Derived(f"{router}.scores", "sparse_mixer")
        if self.router_jitter_noise:
            yield Derived(f"{router}.jitter", self.router_jitter_noise, ("router_jitter_noise",))
