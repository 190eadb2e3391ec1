"""What the configs of all families have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import ConfigDict, Field

from helixctl.spec.attention import Positive
from helixctl.spec.base import Count, Dtype, Spec

Flag = Annotated[bool, Field(strict=True)]
Layers = Annotated[int, Field(strict=True, ge=1, le=4096)]
Whole = Annotated[int, Field(strict=True, ge=0, le=2**40)]
Experts = Annotated[int, Field(strict=True, ge=2, le=4096)]
Share = Annotated[float, Field(strict=True, gt=0, le=1)]
Activation = Literal["gelu", "relu", "silu", "gelu_pytorch_tanh", "relu2"]
LayerType = Literal["full_attention", "sliding_attention", "indexed_attention", "deepseek_sparse_attention"]


class Derived(NamedTuple):
    """A field of ours that a family works out itself.

    Attributes:
        field: its path, ``attention.sliding_window``.
        value: what it is.
        keys: the keys of the config from which it follows; none where every model of the family has it so.
    """

    field: str
    value: Any
    keys: tuple[str, ...] = ()


class Decoder(Spec):
    """What all families have: a causal, gated decoder of tokens with RMS norms and a rotary embedding.

    Attributes:
        always: fields of ours that no key gives; every model of the family has them so.
        default_theta: of the rotary embedding.
        default_rope: the rotary embedding of a config that says nothing of it, as a config spells it; None: a plain
            one.
        layer_kinds: the values of ``layer_types`` that make layers differ in this family.
        act_key: the key of the activation.
        eps_key: the key of the number that norms add.
        activations: our names of activations.
        width_key: the key of the feed-forward network's width, or of an expert's.
        keys: fields of ours that only some families have, and the key that gives each.
        architectures: names of the class in transformers beside that of the family, as configs have them.
        experts_keys: the keys of the number of experts; a config gives one.
        top_k_key: the key of a token's experts; a family without it has no experts.
    """

    model_config = ConfigDict(defer_build=True)  # one family of all is read, if any: the others need no validator

    always: ClassVar[dict[str, Any]] = {
        "attention.qkv_bias": False,
        "attention.output_bias": False,
        "attention.qk_norm": False,
    }
    default_theta: ClassVar[float] = 10000.0
    default_rope: ClassVar[Mapping[str, Any] | None] = None
    layer_kinds: ClassVar[frozenset[str]] = frozenset()
    act_key: ClassVar[str] = "hidden_act"
    eps_key: ClassVar[str] = "rms_norm_eps"
    activations: ClassVar[Mapping[str, str]] = {"gelu_pytorch_tanh": "gelu_tanh", "relu2": "relu_squared"}
    width_key: ClassVar[str] = "intermediate_size"
    keys: ClassVar[Mapping[str, str]] = {}
    architectures: ClassVar[tuple[str, ...]] = ()
    experts_keys: ClassVar[tuple[str, ...]] = ("num_local_experts", "num_experts")
    top_k_key: ClassVar[str] = "num_experts_per_tok"

    hidden_size: Count
    num_hidden_layers: Layers
    num_attention_heads: Count
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    vocab_size: Count
    hidden_act: Activation = "silu"
    max_position_embeddings: Count
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-6
    tie_word_embeddings: Flag = False
    dtype: Dtype | None = None
    torch_dtype: Dtype | None = None
    rope_theta: Positive | None = None
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    layer_types: list[LayerType] | None = None

    @classmethod
    def flattened(cls, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """A config with what is nested in it, or left out, where this class looks for it."""
        said = any(config.get(key) for key in ("rope_parameters", "rope_scaling"))
        return config if said or cls.default_rope is None else {**config, "rope_parameters": dict(cls.default_rope)}

    @property
    def rotary_width(self) -> int:
        """Dims of a head of the layers that the config's rotary embedding is of."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    def window(self) -> tuple[str | None, int | None]:
        """The key that decides on the sliding window, if the family has one, and the window of any layer."""
        return None, None

    def main_window(self) -> tuple[str | None, int | None]:
        """The same of the layers of the ``main`` block."""
        return self.window()

    def derived(self) -> Iterator[Derived]:
        """Further fields, from several keys or in the family's own way; they replace what the rules for all give."""
        yield from ()

    def networks(self) -> Iterator[Derived]:
        """The blocks and the pattern of a model whose layers differ in their feed-forward networks."""
        yield from ()

    def apart(self, attention: Mapping[str, Any]) -> Iterator[Derived]:  # noqa: ARG002
        """The blocks and the pattern of a model whose layers differ in their attention.

        Args:
            attention: that of the model's document, with which a block's own begins.
        """
        yield from ()

    def left_out(self) -> Iterator[str]:
        """What the model has besides, which is not planned: by default layers that predict further tokens."""
        key = "num_nextn_predict_layers"
        if count := getattr(self, key, 0):
            what = "a layer that predicts" if count == 1 else f"{count} layers that predict"
            yield f"{what} further tokens ({key})"


class Windowed(Decoder):
    """What families have whose ``sliding_window`` is of all layers."""

    sliding_window: Count | None = None

    def window(self) -> tuple[str | None, int | None]:
        """The one of all layers."""
        return "sliding_window", self.sliding_window


def pattern_of(kinds: Sequence[str]) -> list[str]:
    """The shortest start of a list of blocks, one a layer, that gives all of it when it is repeated."""
    whole = list(kinds)
    for length in range(1, len(whole)):
        if all(kind == whole[at % length] for at, kind in enumerate(whole)):
            return whole[:length]
    return whole
