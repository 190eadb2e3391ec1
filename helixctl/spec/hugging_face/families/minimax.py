"""MiniMax M2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.decoder import Derived, Experts, Flag, Share, Whole
from helixctl.spec.hugging_face.families.mixtures import Mixture


class MiniMaxM2(Mixture):
    """MiniMax M2 to M2.7: sigmoids and a bias of the choice; norms of queries and keys over all heads together.

    What only the model's first code reads (``scoring_func`` and the like) must say what transformers computes.
    """

    always: ClassVar[dict[str, Any]] = {
        "attention.qkv_bias": False,
        "attention.output_bias": False,
        "attention.qk_norm": True,
        "attention.qk_norm_over": "projection",
    }
    default_theta: ClassVar[float] = 5000000.0

    num_key_value_heads: Count | None = 8
    head_dim: Count | None = 128
    max_position_embeddings: Count = 196608
    intermediate_size: Count
    num_local_experts: Experts | None = None
    num_experts: Experts | None = None
    num_experts_per_tok: Count = 8
    partial_rotary_factor: Share = 1.0
    rotary_dim: Count | None = None
    sliding_window: None = None
    auto_map: dict[str, Any] | None = None  # the code is in transformers by now
    attn_type_list: list[Literal[1]] | None = None
    scoring_func: Literal["sigmoid"] = "sigmoid"
    use_routing_bias: Literal[True] = True
    use_qk_norm: Literal[True] = True
    qk_norm_type: Literal["per_layer"] = "per_layer"
    shared_intermediate_size: Literal[0] = 0
    use_mtp: Flag = False
    num_mtp_modules: Whole = 0
    mtp_transformer_layers: Whole = 0

    def derived(self) -> Iterator[Derived]:
        """The router; and the dims that are turned, in the spelling of published configs."""
        yield Derived("feed_forward.experts.router.scores", "sigmoid")
        yield Derived("feed_forward.experts.router.choice_bias", True)  # noqa: FBT003  a value
        rope = self.rope_parameters or self.rope_scaling or {}
        said = "partial_rotary_factor" in self.model_fields_set or "partial_rotary_factor" in rope
        if self.rotary_dim is not None and not said:
            yield Derived("attention.rotary.dims", self.rotary_dim, ("rotary_dim",))

    def left_out(self) -> Iterator[str]:
        """Its layers that predict further tokens."""
        if self.use_mtp and self.num_mtp_modules:
            yield "layers that predict further tokens (num_mtp_modules)"
