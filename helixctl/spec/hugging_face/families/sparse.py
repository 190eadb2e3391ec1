"""Families with a latent and a sparse choice of keys: DeepSeek V3.2, and GLM-5, whose layers may share a choice."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from helixctl.spec.attention import Positive
from helixctl.spec.base import Contradiction, Count
from helixctl.spec.hugging_face.families.decoder import Derived, Experts, Flag, Whole, pattern_of
from helixctl.spec.hugging_face.families.deepseek import OfLatent
from helixctl.spec.hugging_face.families.mixtures import OfDeepSeek

_SHARED: Final = "shared"
_PATTERN: Final = {"F": "full", "S": _SHARED}


class DeepseekV32(OfLatent, OfDeepSeek):
    """DeepSeek V3.2: V3, whose tokens attend to the keys that an indexer chooses.

    ``head_dim`` is not looked at: the dims that are rotated are ``qk_rope_head_dim``.
    """

    layer_kinds: ClassVar[frozenset[str]] = frozenset({"indexed_attention", "deepseek_sparse_attention"})
    experts_keys: ClassVar[tuple[str, ...]] = ("n_routed_experts", "num_local_experts", "num_experts")
    index_interleaved: ClassVar[bool] = False

    q_lora_rank: Count
    max_position_embeddings: Count = 163840
    n_group: Count = 8
    topk_group: Count = 4
    num_experts_per_tok: Count = 8
    moe_intermediate_size: Count = 2048
    routed_scaling_factor: Positive = 2.5
    first_k_dense_replace: Whole = 3
    mlp_layer_types: list[Literal["dense", "sparse"]] | None = None
    mlp_bias: Literal[False] = False
    rope_interleave: Literal[True] | None = True
    scoring_func: Literal["sigmoid"] = "sigmoid"
    topk_method: Literal["noaux_tc"] = "noaux_tc"
    num_nextn_predict_layers: Whole = 0
    num_experts: Experts | None = None
    index_n_heads: Count = 64
    index_head_dim: Count = 128
    index_topk: Count = 2048

    @model_validator(mode="after")
    def _a_network_a_layer(self) -> Self:
        kinds, layers = self.mlp_layer_types, self.num_hidden_layers
        if kinds is not None and len(kinds) != layers:
            raise Contradiction(f"{len(kinds)} mlp_layer_types for {layers} num_hidden_layers", "mlp_layer_types")
        return self

    def dense_layers(self) -> tuple[Collection[int], tuple[str, ...]]:
        """Those that ``mlp_layer_types`` says, or else the first ``first_k_dense_replace``."""
        if self.mlp_layer_types is None:
            return super().dense_layers()
        return [n for n, kind in enumerate(self.mlp_layer_types) if kind == "dense"], ("mlp_layer_types",)

    def derived(self) -> Iterator[Derived]:
        """Heads, the indexer, then experts."""
        yield from self.heads()
        yield Derived("attention.sparse.heads", self.index_n_heads, ("index_n_heads",))
        yield Derived("attention.sparse.head_dim", self.index_head_dim, ("index_head_dim",))
        yield Derived("attention.sparse.top_k", self.index_topk, ("index_topk",))
        yield Derived("attention.sparse.interleaved", self.index_interleaved)
        yield from super().derived()


class GlmMoeDsa(DeepseekV32):
    """GLM-5: DeepSeek V3.2, whose indexer turns neighbouring dims; a layer may share the choice of the one before.

    ``indexer_types`` says which layers do; else ``index_topk_pattern``, or a period in which one layer has none.
    """

    index_interleaved: ClassVar[bool] = True

    max_position_embeddings: Count = 202752
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    n_group: Count = 1
    topk_group: Count = 1
    moe_router_dtype: Literal["float32"] | None = "float32"  # transformers computes the router's logits in it
    index_n_heads: Count = 32
    indexer_rope_interleave: Literal[True] | None = True
    indexer_types: list[Literal["full", "shared"]] | None = None
    index_topk_pattern: str | list[Literal["full", "shared"]] | None = None
    index_topk_freq: Whole = 1
    index_skip_topk_offset: Whole = 2
    index_share_for_mtp_iteration: Flag = False  # of the layers that predict further tokens

    @model_validator(mode="after")
    def _a_choice_a_layer(self) -> Self:
        key = "indexer_types" if self.indexer_types is not None else "index_topk_pattern"
        if isinstance(self.index_topk_pattern, str) and set(self.index_topk_pattern) - set(_PATTERN):
            message = f"index_topk_pattern {self.index_topk_pattern!r} has other letters than F and S"
            raise Contradiction(message, "index_topk_pattern")
        kinds, layers = self.choices(), self.num_hidden_layers
        if len(kinds) != layers:
            raise Contradiction(f"{key} has {len(kinds)} items for {layers} num_hidden_layers", key)
        if kinds[0] == _SHARED:
            raise Contradiction("the first layer shares a choice of keys, and there is no layer before it", key)
        return self

    def choices(self) -> Sequence[str]:
        """Of every layer ``full`` or ``shared``."""
        if self.indexer_types is not None:
            return self.indexer_types
        if self.index_topk_pattern is not None:
            return [_PATTERN.get(kind, kind) for kind in self.index_topk_pattern]
        every, offset = max(self.index_topk_freq, 1), self.index_skip_topk_offset
        return [_SHARED if max(layer - offset + 1, 0) % every else "full" for layer in range(self.num_hidden_layers)]

    def apart(self, attention: Mapping[str, Any]) -> Iterator[Derived]:
        """The block of the layers that share a choice."""
        kinds = [_SHARED if kind == _SHARED else "main" for kind in self.choices()]
        if _SHARED in kinds:
            keys: tuple[str, ...] = ("indexer_types",)
            if self.indexer_types is None:
                by_pattern = self.index_topk_pattern is not None
                keys = ("index_topk_pattern",) if by_pattern else ("index_topk_freq", "index_skip_topk_offset")
            shared = {**attention, "sparse": {**attention["sparse"], "shared": True}}
            yield Derived("blocks", [{"name": _SHARED, "attention": shared}], keys)
            yield Derived("pattern", pattern_of(kinds), keys)
