"""ERNIE 4.5 with experts."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.decoder import Derived, Experts, Flag, Whole
from helixctl.spec.hugging_face.families.mixtures import Mixture


class Ernie45Moe(Mixture):
    """ERNIE 4.5 with experts: gates of a softmax, a bias of the choice, and shared experts."""

    always: ClassVar[dict[str, Any]] = {
        "attention.qkv_bias": False,
        "attention.output_bias": False,
        "attention.qk_norm": False,
        "attention.rotary.interleaved": True,
    }
    default_theta: ClassVar[float] = 500000.0
    width_key: ClassVar[str] = "moe_intermediate_size"
    experts_keys: ClassVar[tuple[str, ...]] = ("moe_num_experts", "num_experts")
    top_k_key: ClassVar[str] = "moe_k"
    architectures: ClassVar[tuple[str, ...]] = ("Ernie4_5_MoeForCausalLM",)

    num_key_value_heads: Count | None = 4
    max_position_embeddings: Count = 131072
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    tie_word_embeddings: Flag = True
    use_bias: Literal[False] = False
    intermediate_size: Count
    moe_intermediate_size: Count
    moe_num_experts: Experts | None = None
    num_experts: Experts | None = None
    moe_k: Count = 6
    moe_num_shared_experts: Whole = 2
    moe_layer_start_index: Whole = 1
    moe_layer_end_index: Annotated[int, Field(strict=True, ge=-1, le=4096)] = -1
    moe_layer_interval: Count = 1
    moe_norm_min: Annotated[float, Field(strict=True, ge=0, lt=1)] = 1e-12

    def dense_layers(self) -> tuple[Collection[int], tuple[str, ...]]:
        """Those ahead of the first with experts, behind the last, and all but every ``moe_layer_interval``-th."""
        first, last = self.moe_layer_start_index, self.moe_layer_end_index
        if last == -1:
            last = self.num_hidden_layers - 1
        layers, step = range(self.num_hidden_layers), self.moe_layer_interval
        found = [n for n in layers if not first <= n <= last or (n + 1) % step]
        return found, ("moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval")

    def derived(self) -> Iterator[Derived]:
        """The router and the shared experts."""
        router = "feed_forward.experts.router"
        yield Derived(f"{router}.choice_bias", True)  # noqa: FBT003  a value
        if self.moe_norm_min:
            yield Derived(f"{router}.least_sum", self.moe_norm_min, ("moe_norm_min",))
        if self.moe_num_shared_experts:
            width = self.moe_num_shared_experts * self.moe_intermediate_size
            keys = ("moe_num_shared_experts", "moe_intermediate_size")
            yield Derived("feed_forward.experts.shared.intermediate_size", width, keys)
