"""Families with experts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from helixctl.spec.attention import Positive
from helixctl.spec.base import Contradiction, Count
from helixctl.spec.hugging_face.families.alternating import FULL, SLIDING, Alternating
from helixctl.spec.hugging_face.families.decoder import Decoder, Derived, Experts, Flag, Whole, pattern_of
from helixctl.spec.hugging_face.families.dense import Mistral

DENSE = "dense"  # the block of layers with one network for all tokens


class Mixture(Decoder):
    """What families with experts have in common: where their layers are dense, and the experts' further features.

    Attributes:
        dense_width_key: the key of the width of the network of dense layers.
    """

    dense_width_key: ClassVar[str] = "intermediate_size"

    def dense_layers(self) -> tuple[Collection[int], tuple[str, ...]]:
        """The layers with one network for all tokens, and the keys that say so."""
        return (), ()

    def networks(self) -> Iterator[Derived]:
        """Layers with one network for all tokens."""
        dense, keys = self.dense_layers()
        if not dense:
            return
        width, activation = getattr(self, self.dense_width_key), self.activations.get(self.hidden_act, self.hidden_act)
        network = {"intermediate_size": width, "activation": activation, "gated": True}
        kinds = [DENSE if layer in dense else "main" for layer in range(self.num_hidden_layers)]
        yield Derived("blocks", [{"name": DENSE, "feed_forward": network}], (*keys, self.dense_width_key))
        yield Derived("pattern", pattern_of(kinds), keys)


class Mixtral(Mistral):
    """Mixtral: Mistral with experts. transformers knows the experts' number by both keys."""

    default_theta: ClassVar[float] = 1000000.0

    sliding_window: Count | None = None
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    num_local_experts: Experts | None = None
    num_experts: Experts | None = None
    num_experts_per_tok: Count


class OfQwen(Mixture):
    """What the mixtures of Qwen have in common."""

    width_key: ClassVar[str] = "moe_intermediate_size"

    max_position_embeddings: Count = 32768
    intermediate_size: Count
    moe_intermediate_size: Count
    decoder_sparse_step: Count = 1
    mlp_only_layers: list[Whole] | None = None
    num_experts: Experts | None = None
    num_experts_per_tok: Count
    norm_topk_prob: Flag = False
    use_sliding_window: Flag = False

    def dense_layers(self) -> tuple[Collection[int], tuple[str, ...]]:
        """Those that are listed, and all but every ``decoder_sparse_step``-th."""
        listed, step = set(self.mlp_only_layers or ()), self.decoder_sparse_step
        found = {n for n in range(self.num_hidden_layers) if n in listed or (n + 1) % step}
        return found, ("mlp_only_layers", "decoder_sparse_step")


class Qwen3Moe(OfQwen):
    """Qwen 3 with experts."""

    always: ClassVar[dict[str, Any]] = {"attention.qk_norm": True}

    num_key_value_heads: Count | None = 4
    attention_bias: Flag = False
    intermediate_size: Count = 6144
    num_local_experts: Experts | None = None
    sliding_window: Count | None = 4096

    def window(self) -> tuple[str | None, int | None]:
        """The one of all layers; ``max_window_layers`` is not looked at."""
        return ("sliding_window", self.sliding_window) if self.use_sliding_window else ("use_sliding_window", None)


class Qwen2Moe(OfQwen, Alternating):
    """Qwen 1.5 and 2 with experts, and a shared one whose result every token scores."""

    always: ClassVar[dict[str, Any]] = {"attention.output_bias": False, "attention.qk_norm": False}
    keys: ClassVar[dict[str, str]] = {"attention.qkv_bias": "qkv_bias"}
    experts_keys: ClassVar[tuple[str, ...]] = ("num_experts",)

    num_key_value_heads: Count | None = 16
    sliding_window: Whole | None = 4096  # transformers writes 0 where use_sliding_window is false
    qkv_bias: Flag = True
    intermediate_size: Count = 5632
    shared_expert_intermediate_size: Count = 5632
    max_window_layers: Whole = 28

    def kinds(self) -> Sequence[str]:
        """A window in every other of the first ``max_window_layers``."""
        if self.layer_types is not None:
            return self.layer_types
        windows = self.max_window_layers if self.use_sliding_window else 0
        return [FULL if layer % 2 or layer >= windows else SLIDING for layer in range(self.num_hidden_layers)]

    def window(self) -> tuple[str | None, int | None]:
        """The one of every other of the first ``max_window_layers``, or of those that ``layer_types`` says."""
        if not self.use_sliding_window:
            return "use_sliding_window", None
        if self.layer_types is not None:
            slides = "sliding_attention" in self.layer_types
            return ("sliding_window", self.sliding_window) if slides else ("layer_types", None)
        return ("sliding_window", self.sliding_window) if self.max_window_layers else ("max_window_layers", None)

    def derived(self) -> Iterator[Derived]:
        """The shared expert."""
        key = "shared_expert_intermediate_size"
        yield Derived("feed_forward.experts.shared.intermediate_size", getattr(self, key), (key,))
        yield Derived("feed_forward.experts.shared.scored", True)  # noqa: FBT003  a value


class OfDeepSeek(Mixture):
    """What DeepSeek V3's mixture has, in whatever model: sigmoids, a bias of the choice, groups and a shared expert.

    Attributes:
        scores: of the router's logits; a bias of the choice goes with sigmoids.
    """

    scores: ClassVar[str] = "sigmoid"

    width_key: ClassVar[str] = "moe_intermediate_size"
    experts_keys: ClassVar[tuple[str, ...]] = ("n_routed_experts", "num_local_experts")

    intermediate_size: Count
    moe_intermediate_size: Count
    n_routed_experts: Experts | None = None
    num_local_experts: Experts | None = None
    n_shared_experts: Count = 1
    num_experts_per_tok: Count
    n_group: Count = 1
    topk_group: Count = 1
    norm_topk_prob: Flag = True
    routed_scaling_factor: Positive = 1.0
    first_k_dense_replace: Whole = 1

    @model_validator(mode="after")
    def _groups_are_there(self) -> Self:
        if self.topk_group > self.n_group:
            raise Contradiction(f"topk_group {self.topk_group} of {self.n_group} n_group", "topk_group")
        return self

    def dense_layers(self) -> tuple[Collection[int], tuple[str, ...]]:
        """The first ``first_k_dense_replace``."""
        return range(min(self.first_k_dense_replace, self.num_hidden_layers)), ("first_k_dense_replace",)

    def derived(self) -> Iterator[Derived]:
        """The router and the shared expert."""
        router = "feed_forward.experts.router"
        yield Derived(f"{router}.scores", self.scores)
        yield Derived(f"{router}.choice_bias", self.scores == "sigmoid")
        yield Derived(f"{router}.sum_eps", 1e-20)
        if self.routed_scaling_factor not in {None, 1}:
            yield Derived(f"{router}.scale", self.routed_scaling_factor, ("routed_scaling_factor",))
        if self.n_group > 1:
            groups = {"count": self.n_group, "top_k": self.topk_group, "score": "sum_of_two"}
            yield Derived(f"{router}.groups", groups, ("n_group", "topk_group"))
        if self.n_shared_experts:
            width = self.n_shared_experts * self.moe_intermediate_size
            keys = ("n_shared_experts", "moe_intermediate_size")
            yield Derived("feed_forward.experts.shared.intermediate_size", width, keys)


class Dots1(OfDeepSeek, Alternating):
    """dots.llm1: the mixture of DeepSeek V3 on attention with norms of queries and keys."""

    always: ClassVar[dict[str, Any]] = {"attention.qk_norm": True}

    num_key_value_heads: Count | None = 32
    max_position_embeddings: Count = 2048
    attention_bias: Flag = False
    n_shared_experts: Count
    norm_topk_prob: Flag = False
    first_k_dense_replace: Whole = 0
    sliding_window: Count | None = 4096
    max_window_layers: Whole = 62

    def kinds(self) -> Sequence[str]:
        """A window in the layers after the first ``max_window_layers``."""
        if self.layer_types is not None:
            return self.layer_types
        first = self.max_window_layers if self.sliding_window is not None else self.num_hidden_layers
        return [FULL if layer < first else SLIDING for layer in range(self.num_hidden_layers)]

    def window(self) -> tuple[str | None, int | None]:
        """The one of the layers after the first ``max_window_layers``, or of those that ``layer_types`` says."""
        if self.sliding_window is None:
            return "sliding_window", None
        if self.layer_types is not None:
            slides = "sliding_attention" in self.layer_types
            return ("sliding_window", self.sliding_window) if slides else ("layer_types", None)
        if self.num_hidden_layers <= self.max_window_layers:
            return "max_window_layers", None
        return "sliding_window", self.sliding_window
