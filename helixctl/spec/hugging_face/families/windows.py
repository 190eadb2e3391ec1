"""Families with a sliding window in some layers, which may differ from the others in their rotary embedding as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from helixctl.spec.attention import Positive
from helixctl.spec.base import Contradiction, Count
from helixctl.spec.hugging_face.families.alternating import Alternating, TwoRotaries
from helixctl.spec.hugging_face.families.cohere import Cohere
from helixctl.spec.hugging_face.families.decoder import Activation, Decoder, Derived
from helixctl.spec.hugging_face.families.gemma import Gemma
from helixctl.spec.hugging_face.families.olmo import Olmo2


class Gemma2(Gemma, Alternating):
    """Gemma 2: norms around the blocks, soft caps of scores and logits, a window in every second layer."""

    always: ClassVar[dict[str, Any]] = {**Gemma.always, "norm.place": "around"}
    keys: ClassVar[dict[str, str]] = {
        "attention.soft_cap": "attn_logit_softcapping",
        "multipliers.logits_cap": "final_logit_softcapping",
    }
    full_every: ClassVar[int] = 2
    act_key: ClassVar[str] = "hidden_activation"
    activations: ClassVar[dict[str, str]] = {**Decoder.activations}  # its gelu is the one with erf

    hidden_activation: Activation | None = "gelu_pytorch_tanh"
    num_key_value_heads: Count | None = 4
    query_pre_attn_scalar: Count = 256
    final_logit_softcapping: Positive | None = 30.0
    attn_logit_softcapping: Positive | None = 50.0

    def derived(self) -> Iterator[Derived]:
        """The multiplier of embeddings, and the scale of scores."""
        yield from super().derived()
        yield Derived("attention.scale", self.query_pre_attn_scalar**-0.5, ("query_pre_attn_scalar",))


class Gemma3Text(Gemma2, TwoRotaries):
    """Gemma 3's text model: norms of queries and keys; ``rope_theta`` is that of layers without a window."""

    always: ClassVar[dict[str, Any]] = {**Gemma2.always, "attention.qk_norm": True}
    keys: ClassVar[dict[str, str]] = {"multipliers.logits_cap": "final_logit_softcapping"}
    architectures: ClassVar[tuple[str, ...]] = ("Gemma3ForCausalLM", "Gemma3TextForCausalLM")
    full_every: ClassVar[int] = 6
    default_theta: ClassVar[float] = 1000000.0

    max_position_embeddings: Count = 131072
    sliding_window_pattern: Count | None = None
    final_logit_softcapping: Positive | None = None
    attn_logit_softcapping: None = None  # transformers 5.23 does not pass it on

    def theta_of_windows(self, attention: Mapping[str, Any]) -> float:  # noqa: ARG002
        """The default of transformers."""
        return 10000.0


class Cohere2(Cohere, Alternating):
    """Command R7B and Command A: layers without a window have no rotary embedding."""

    default_theta: ClassVar[float] = 10000.0
    keys: ClassVar[dict[str, str]] = {"multipliers.logits": "logit_scale"}

    use_qk_norm: Literal[False] = False
    sliding_window_pattern: Count | None = None

    def full(self, attention: Mapping[str, Any]) -> dict[str, Any]:
        """Without a window, and not rotated; a window of null is none in any layer."""
        return {**attention, "sliding_window": None, "rotary": None}


class Exaone4(Alternating):
    """EXAONE 4: norms after the blocks and of queries and keys; layers without a window are not rotated.

    Without a window in any layer all are rotated.
    """

    always: ClassVar[dict[str, Any]] = {
        "attention.qkv_bias": False,
        "attention.output_bias": False,
        "attention.qk_norm": True,
        "norm.place": "after",
    }

    num_key_value_heads: Count | None = 32
    max_position_embeddings: Count = 2048
    intermediate_size: Count
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    sliding_window_pattern: Count | Annotated[str, Field(pattern="^[LG]+$")] | None = 4

    @model_validator(mode="after")
    def _layers_are_said(self) -> Self:
        """By letters of a pattern transformers 5.23 cannot build the model."""
        if self.layer_types is None and not isinstance(self.sliding_window_pattern, int):
            message = f"sliding_window_pattern {self.sliding_window_pattern!r} without layer_types"
            raise Contradiction(message, "sliding_window_pattern")
        return self

    def full(self, attention: Mapping[str, Any]) -> dict[str, Any]:
        """Not rotated where other layers have a window."""
        return {**attention, "sliding_window": None, **({"rotary": None} if self.sliding_window else {})}


class Olmo3(Olmo2, TwoRotaries):
    """OLMo 3: OLMo 2 with a window in three of four layers; only the layers without it scale their rotary embedding."""

    default_theta: ClassVar[float] = 500000.0
