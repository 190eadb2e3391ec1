"""Ministral 3 and Mistral Small 4: queries scaled by their positions, as the rotary embedding's keys say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import Field, model_validator

from helixctl.spec.base import Contradiction, Count
from helixctl.spec.hugging_face.families.decoder import Decoder, Derived, Share, Whole, Windowed
from helixctl.spec.hugging_face.families.deepseek import Interleaving
from helixctl.spec.hugging_face.families.mixtures import OfDeepSeek

_BETA: Final = "llama_4_scaling_beta"
_ROPES: Final = ("rope_parameters", "rope_scaling")
_OF_BOTH: Final = {
    "rope_type": "yarn",
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    _BETA: 0.1,
}


class ScaledByPosition(Decoder):
    """What both have: ``llama_4_scaling_beta`` among the keys of the rotary embedding, without which neither runs."""

    llama_4_scaling_beta: None = None  # it stands in rope_parameters

    @model_validator(mode="after")
    def _beta_is_given(self) -> Self:
        key, rope = self._rope()
        if rope.get(_BETA) is None:
            raise Contradiction(f"{key} without {_BETA}, which transformers multiplies queries by", key)
        return self

    def _rope(self) -> tuple[str, Mapping[str, Any]]:
        """The key of the rotary embedding, and what is under it."""
        key = next((key for key in _ROPES if getattr(self, key)), _ROPES[0])
        return key, getattr(self, key) or self.default_rope or {}

    def scaled_queries(self) -> Iterator[Derived]:
        """What queries are multiplied by."""
        key, rope = self._rope()
        if rope[_BETA]:
            original = rope.get("original_max_position_embeddings") or self.max_position_embeddings
            yield Derived("attention.position_scaling", {"factor": rope[_BETA], "tokens": original}, (key,))


class Ministral3(ScaledByPosition, Windowed):
    """Ministral 3: Mistral with scaled queries."""

    default_rope: ClassVar[Mapping[str, Any]] = {
        **_OF_BOTH,
        "rope_theta": 1000000.0,
        "factor": 16.0,
        "original_max_position_embeddings": 16384,
    }
    architectures: ClassVar[tuple[str, ...]] = ("Mistral3ForConditionalGeneration",)

    head_dim: Count | None = 128
    num_key_value_heads: Count | None = 8
    max_position_embeddings: Count = 262144
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    intermediate_size: Count

    def derived(self) -> Iterator[Derived]:
        """What queries are multiplied by."""
        yield from self.scaled_queries()


class Mistral4(ScaledByPosition, Interleaving, OfDeepSeek):
    """Mistral Small 4: DeepSeek V3's attention, and its mixture with a softmax and no bias of the choice.

    ``head_dim`` is not looked at: it follows from the dims of the two parts of a head.
    """

    scores: ClassVar[str] = "softmax"
    default_rope: ClassVar[Mapping[str, Any]] = {
        **_OF_BOTH,
        "rope_theta": 10000.0,
        "factor": 128.0,
        "original_max_position_embeddings": 8192,
    }
    architectures: ClassVar[tuple[str, ...]] = ("Mistral3ForConditionalGeneration",)

    num_key_value_heads: Count | None = 32
    max_position_embeddings: Count = 1048576
    n_shared_experts: Count = 1
    n_group: Count = 1
    topk_group: Count = 1
    num_experts_per_tok: Count = 4
    moe_intermediate_size: Count = 2048
    first_k_dense_replace: Whole = 0
    partial_rotary_factor: Share | None = None

    @model_validator(mode="after")
    def _rotates_its_part(self) -> Self:
        key, rope = self._rope()
        if (rope.get("rope_type") or rope.get("type") or "default") == "default":
            message = "rotary embedding of type default: transformers then turns as many dims as a whole head has"
            raise Contradiction(message, key)
        share = rope.get("partial_rotary_factor") or self.partial_rotary_factor
        width = self.qk_nope_head_dim + self.qk_rope_head_dim
        if share is not None and int(width * share) != self.qk_rope_head_dim:
            message = f"partial_rotary_factor {share} of {width} dims, and qk_rope_head_dim {self.qk_rope_head_dim}"
            raise Contradiction(message, key)
        return self

    def derived(self) -> Iterator[Derived]:
        """Heads, what queries are multiplied by, then experts."""
        yield from self.heads()
        yield from self.scaled_queries()
        yield from OfDeepSeek.derived(self)
