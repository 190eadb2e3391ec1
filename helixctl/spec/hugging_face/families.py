"""The families of models that are read: the keys of each one's config and the defaults of its class in transformers.

Sizes have no default here, though transformers gives them those of one checkpoint: a config that lacks them is broken.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from helixctl.spec.attention import Positive
from helixctl.spec.base import Count, Dtype, Spec

Flag = Annotated[bool, Field(strict=True)]
Layers = Annotated[int, Field(strict=True, ge=1, le=4096)]
Experts = Annotated[int, Field(strict=True, ge=2, le=4096)]
LayerType = Literal["full_attention", "sliding_attention"]


class Decoder(Spec):
    """What all families have: a causal, gated decoder of tokens with RMS norms and a rotary embedding.

    Attributes:
        always: fields of ours that no key gives; every model of the family has them so.
        default_theta: of the rotary embedding.
        width_key: the key of the feed-forward network's width, or of an expert's.
    """

    model_config = ConfigDict(defer_build=True)  # one family of all is read, if any: the others need no validator

    always: ClassVar[dict[str, Any]] = {
        "attention.qkv_bias": False,
        "attention.output_bias": False,
        "attention.qk_norm": False,
    }
    default_theta: ClassVar[float] = 10000.0
    width_key: ClassVar[str] = "intermediate_size"

    hidden_size: Count
    num_hidden_layers: Layers
    num_attention_heads: Count
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    vocab_size: Count
    hidden_act: Literal["gelu", "relu", "silu"] = "silu"
    max_position_embeddings: Count
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-6
    tie_word_embeddings: Flag = False
    dtype: Dtype | None = None
    torch_dtype: Dtype | None = None
    rope_theta: Positive | None = None
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    layer_types: list[LayerType] | None = None

    def window(self) -> tuple[str | None, int | None]:
        """The key that decides on the sliding window, if the family has one, and the window of any layer."""
        return None, None


class Llama(Decoder):
    """Llama 2 and 3, and what shares their architecture. ``attention_bias`` is of all four projections."""

    always: ClassVar[dict[str, Any]] = {"attention.qk_norm": False}

    max_position_embeddings: Count = 2048
    intermediate_size: Count
    attention_bias: Flag = False


class Mistral(Decoder):
    """Mistral: Llama with a sliding window in every layer."""

    num_key_value_heads: Count | None = 8
    max_position_embeddings: Count = 131072
    intermediate_size: Count
    sliding_window: Count | None = 4096

    def window(self) -> tuple[str | None, int | None]:
        """The one of all layers."""
        return "sliding_window", self.sliding_window


class Qwen2(Decoder):
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


class Mixtral(Mistral):
    """Mixtral: Mistral with experts. transformers knows the experts' number by both keys."""

    default_theta: ClassVar[float] = 1000000.0

    sliding_window: Count | None = None
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    num_local_experts: Experts | None = None
    num_experts: Experts | None = None
    num_experts_per_tok: Count


class Qwen3Moe(Decoder):
    """Qwen 3 with experts in every layer."""

    always: ClassVar[dict[str, Any]] = {"attention.qk_norm": True}
    width_key: ClassVar[str] = "moe_intermediate_size"

    num_key_value_heads: Count | None = 4
    max_position_embeddings: Count = 32768
    attention_bias: Flag = False
    moe_intermediate_size: Count
    num_local_experts: Experts | None = None
    num_experts: Experts | None = None
    num_experts_per_tok: Count
    norm_topk_prob: Flag = False
    use_sliding_window: Flag = False
    sliding_window: Count | None = 4096

    def window(self) -> tuple[str | None, int | None]:
        """The one of all layers; ``max_window_layers`` is not looked at."""
        return ("sliding_window", self.sliding_window) if self.use_sliding_window else ("use_sliding_window", None)


FAMILIES: Final[dict[str, type[Decoder]]] = {
    "llama": Llama,
    "mistral": Mistral,
    "mixtral": Mixtral,
    "qwen2": Qwen2,
    "qwen3": Qwen3,
    "qwen3_moe": Qwen3Moe,
}
