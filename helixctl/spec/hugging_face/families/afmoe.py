"""AFMoE (Arcee's Trinity): gated attention, windows, norms around the blocks, and a mixture behind dense layers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from helixctl.spec.attention import Positive
from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.alternating import FULL, SLIDING, Alternating
from helixctl.spec.hugging_face.families.decoder import Derived, Experts, Flag, Whole
from helixctl.spec.hugging_face.families.mixtures import Mixture


class Afmoe(Mixture, Alternating):
    """AFMoE: what attention makes passes a gate; layers without a window are not rotated; sigmoids choose experts."""

    always: ClassVar[dict[str, Any]] = {
        "attention.qk_norm": True,
        "attention.output_gate": True,
        "norm.place": "around",
        "feed_forward.experts.router.scores": "sigmoid",
        "feed_forward.experts.router.choice_bias": True,
        "feed_forward.experts.router.sum_eps": 1e-20,
    }
    width_key: ClassVar[str] = "moe_intermediate_size"
    experts_keys: ClassVar[tuple[str, ...]] = ("num_experts",)

    head_dim: Count = 128
    max_position_embeddings: Count = 16384
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    attention_bias: Flag = False
    sliding_window: Count = 1024
    global_attn_every_n_layers: Count = 4
    intermediate_size: Count
    moe_intermediate_size: Count
    num_dense_layers: Whole = 1
    num_experts: Experts
    num_experts_per_tok: Count
    num_shared_experts: Count = 2
    route_scale: Positive = 1.0
    mup_enabled: Flag = False

    def dense_layers(self) -> tuple[Collection[int], tuple[str, ...]]:
        """The first ``num_dense_layers``."""
        return range(min(self.num_dense_layers, self.num_hidden_layers)), ("num_dense_layers",)

    def kinds(self) -> Sequence[str]:
        """No window in every ``global_attn_every_n_layers``-th."""
        if self.layer_types is not None:
            return self.layer_types
        every = self.global_attn_every_n_layers
        return [SLIDING if (layer + 1) % every else FULL for layer in range(self.num_hidden_layers)]

    def full(self, attention: Mapping[str, Any]) -> dict[str, Any]:
        """Without a window, and not rotated."""
        return {**attention, "sliding_window": None, "rotary": None}

    def derived(self) -> Iterator[Derived]:
        """The multiplier of embeddings, the router's scale and the shared expert."""
        if self.mup_enabled:
            yield Derived("multipliers.embedding", self.hidden_size**0.5, ("mup_enabled", "hidden_size"))
        if self.route_scale != 1:
            yield Derived("feed_forward.experts.router.scale", self.route_scale, ("route_scale",))
        width = self.num_shared_experts * self.moe_intermediate_size
        keys = ("num_shared_experts", "moe_intermediate_size")
        yield Derived("feed_forward.experts.shared.intermediate_size", width, keys)
