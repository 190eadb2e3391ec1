"""Families of pre-norm decoders with biases that a config's keys give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from helixctl.spec.base import Count
from helixctl.spec.hugging_face.families.decoder import (
    Activation,
    Decoder,
    Derived,
    Flag,
    Windowed,
    pattern_of,
)


class SeedOss(Decoder):
    """Seed-OSS. ``attention_bias`` is of queries, keys and values."""

    always: ClassVar[dict[str, Any]] = {"attention.qk_norm": False}
    keys: ClassVar[dict[str, str]] = {"attention.output_bias": "attention_out_bias", "feed_forward.bias": "mlp_bias"}

    head_dim: Count | None = 128
    num_key_value_heads: Count | None = 8
    max_position_embeddings: Count = 524288
    intermediate_size: Count
    attention_bias: Flag = True
    attention_out_bias: Flag = False
    mlp_bias: Flag = False


class Ernie45(Decoder):
    """ERNIE 4.5. ``use_bias`` is of all projections, those of the feed-forward network among them."""

    always: ClassVar[dict[str, Any]] = {"attention.qk_norm": False, "attention.rotary.interleaved": True}
    default_theta: ClassVar[float] = 500000.0
    keys: ClassVar[dict[str, str]] = {
        "attention.qkv_bias": "use_bias",
        "attention.output_bias": "use_bias",
        "feed_forward.bias": "use_bias",
    }
    architectures: ClassVar[tuple[str, ...]] = ("Ernie4_5ForCausalLM",)

    head_dim: Count | None = 128
    num_key_value_heads: Count | None = 2
    max_position_embeddings: Count = 131072
    intermediate_size: Count
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    tie_word_embeddings: Flag = True
    use_bias: Flag = False


class Starcoder2(Windowed):
    """StarCoder 2: layer norms with biases, and a network of two matrices. ``use_bias`` is of all projections."""

    always: ClassVar[dict[str, Any]] = {
        "attention.qk_norm": False,
        "norm.function": "layer_norm",
        "norm.bias": True,
        "feed_forward.gated": False,
    }
    eps_key: ClassVar[str] = "norm_epsilon"
    keys: ClassVar[dict[str, str]] = {
        "attention.qkv_bias": "use_bias",
        "attention.output_bias": "use_bias",
        "feed_forward.bias": "use_bias",
    }

    num_key_value_heads: Count | None = 2
    hidden_act: Activation = "gelu_pytorch_tanh"
    max_position_embeddings: Count = 4096
    intermediate_size: Count
    norm_epsilon: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    rms_norm_eps: None = None  # type: ignore[assignment]
    tie_word_embeddings: Flag = True
    use_bias: Flag = True


class MiMo(Decoder):
    """MiMo-7B: Qwen 2. The layers that predict further tokens are left out."""

    always: ClassVar[dict[str, Any]] = {
        "attention.qkv_bias": True,
        "attention.output_bias": False,
        "attention.qk_norm": False,
    }
    architectures: ClassVar[tuple[str, ...]] = ("MiMoForCausalLM",)

    num_key_value_heads: Count | None = 32
    max_position_embeddings: Count = 32768
    intermediate_size: Count
    attention_bias: Literal[True] = True
    use_sliding_window: Literal[False] = False
    sliding_window: Count | None = None
    max_window_layers: Annotated[int, Field(strict=True, ge=0, le=2**40)] = 28
    num_nextn_predict_layers: Annotated[int, Field(strict=True, ge=0, le=64)] = 0


class SmolLM3(Decoder):
    """SmolLM 3: some layers have no rotary embedding."""

    always: ClassVar[dict[str, Any]] = {"attention.qk_norm": False}
    default_theta: ClassVar[float] = 2000000.0
    keys: ClassVar[dict[str, str]] = {"feed_forward.bias": "mlp_bias"}

    num_key_value_heads: Count | None = 4
    max_position_embeddings: Count = 32768
    intermediate_size: Count
    attention_bias: Flag = False
    mlp_bias: Flag = False
    tie_word_embeddings: Flag = True
    use_sliding_window: Literal[False] = False
    sliding_window: Count | None = None
    no_rope_layers: list[Annotated[int, Field(strict=True, ge=0, le=1)]] | None = None
    no_rope_layer_interval: Count = 4

    def apart(self, attention: Mapping[str, Any]) -> Iterator[Derived]:
        """Layers without a rotary embedding: where ``no_rope_layers`` has 0, or each ``no_rope_layer_interval``-th."""
        turned = self.no_rope_layers
        keys = ("no_rope_layer_interval",) if turned is None else ("no_rope_layers",)
        if turned is None:
            turned = [(layer + 1) % self.no_rope_layer_interval for layer in range(self.num_hidden_layers)]
        kinds = ["main" if layer else "no_rotary" for layer in turned[: self.num_hidden_layers]]
        if "no_rotary" in kinds:
            yield Derived("blocks", [{"name": "no_rotary", "attention": {**attention, "rotary": None}}], keys)
            yield Derived("pattern", pattern_of(kinds), keys)
