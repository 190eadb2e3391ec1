"""Families with one feed-forward network in every layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.alternating import FULL, Alternating
from helixctl.spec.hugging_face.families.decoder import Decoder, Flag, Windowed


class Llama(Decoder):
    """Llama 2 and 3, and what shares their architecture. ``attention_bias`` is of all four projections."""

    always: ClassVar[dict[str, Any]] = {"attention.qk_norm": False}

    max_position_embeddings: Count = 2048
    intermediate_size: Count
    attention_bias: Flag = False


class Mistral(Windowed):
    """Mistral: Llama with a sliding window in every layer."""

    architectures: ClassVar[tuple[str, ...]] = ("Mistral3ForConditionalGeneration",)

    num_key_value_heads: Count | None = 8
    max_position_embeddings: Count = 131072
    intermediate_size: Count
    sliding_window: Count | None = 4096


class Qwen2(Alternating):
    """Qwen 2 and 2.5: biases of queries, keys and values."""

    always: ClassVar[dict[str, Any]] = {
        "attention.qkv_bias": True,
        "attention.output_bias": False,
        "attention.qk_norm": False,
    }

    num_key_value_heads: Count | None = 32
    max_position_embeddings: Count = 32768
    intermediate_size: Count
    use_sliding_window: Flag = False
    sliding_window: Count | None = 4096
    max_window_layers: Annotated[int, Field(strict=True, ge=0, le=2**40)] = 28

    def kinds(self) -> Sequence[str]:
        """A window in the layers after the first ``max_window_layers``, or in those that ``layer_types`` says."""
        if self.layer_types is not None:
            return self.layer_types
        layers = self.num_hidden_layers
        first = min(self.max_window_layers, layers) if self.use_sliding_window else layers
        return [FULL] * first + ["sliding_attention"] * (layers - first)

    def window(self) -> tuple[str | None, int | None]:
        """The one of the layers after the first ``max_window_layers``, or of those that ``layer_types`` says."""
        if not self.use_sliding_window:
            return "use_sliding_window", None
        if self.layer_types is not None and "sliding_attention" not in self.layer_types:
            return "layer_types", None
        if self.layer_types is None and self.num_hidden_layers <= self.max_window_layers:
            return "max_window_layers", None
        return "sliding_window", self.sliding_window


class Qwen3(Qwen2):
    """Qwen 3: norms of queries and keys; heads of a width of their own."""

    always: ClassVar[dict[str, Any]] = {"attention.qk_norm": True}

    head_dim: Count = 128
    attention_bias: Flag = False
