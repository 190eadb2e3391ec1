"""MiMo V2 Flash: most layers have a window, sinks and twice as many heads of keys; values are scaled."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from helixctl.spec.attention import Positive
from helixctl.spec.base import Contradiction, Count
from helixctl.spec.hugging_face.families.alternating import FULL, SLIDING, TwoRotaries
from helixctl.spec.hugging_face.families.decoder import Derived, Flag, Share, Whole, pattern_of
from helixctl.spec.hugging_face.families.mixtures import OfDeepSeek

_SHARE = 0.334  # of a head that is rotated
_Bits = list[Annotated[int, Field(strict=True, ge=0, le=1)]]


class MiMoV2Flash(OfDeepSeek, TwoRotaries):
    """MiMo V2 Flash. ``attention_bias`` is of queries, keys and values.

    What only the model's first code reads (``hybrid_layer_pattern``, ``swa_head_dim`` and the like) must say what
    transformers computes. The window is of ``sliding_window_size`` tokens beside the token itself, where that is given.
    """

    always: ClassVar[dict[str, Any]] = {"attention.output_bias": False, "attention.qk_norm": False}
    keys_of_windows: ClassVar[frozenset[str]] = TwoRotaries.keys_of_windows | {"partial_rotary_factor"}
    default_theta: ClassVar[float] = 5000000.0
    architectures: ClassVar[tuple[str, ...]] = ("MiMoV2FlashForCausalLM",)

    num_key_value_heads: Count = 4
    head_dim: Count = 192
    v_head_dim: Count = 128
    max_position_embeddings: Count = 131072
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    attention_bias: Flag = False
    num_experts_per_tok: Count = 8
    n_shared_experts: None = None  # type: ignore[assignment]
    first_k_dense_replace: None = None  # type: ignore[assignment]
    routed_scaling_factor: Positive | None = 1.0  # type: ignore[assignment]
    sliding_window: Count = 129
    sliding_window_size: Whole | None = None
    mlp_layer_types: list[Literal["dense", "sparse"]] | None = None
    attention_value_scale: Positive | None = 0.707
    partial_rotary_factor: Share | None = None
    scoring_func: Literal["sigmoid"] = "sigmoid"
    topk_method: Literal["noaux_tc"] = "noaux_tc"
    auto_map: dict[str, Any] | None = None  # the code is in transformers by now
    hybrid_layer_pattern: _Bits | None = None
    moe_layer_freq: _Bits | None = None
    swa_rope_theta: Positive | None = None
    swa_num_attention_heads: Count | None = None
    swa_num_key_value_heads: Count | None = None
    swa_head_dim: Count | None = None
    swa_v_head_dim: Count | None = None
    attention_chunk_size: Count | None = None  # nobody's
    add_swa_attention_sink_bias: Literal[True] = True
    add_full_attention_sink_bias: Literal[False] = False

    @classmethod
    def flattened(cls, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """With both rotary embeddings apart; transformers looks at no other key for their bases."""
        rope = config.get("rope_parameters")
        if rope is None and not config.get("rope_scaling"):
            bases = {FULL: cls.default_theta, SLIDING: 10000.0}
            rope = {kind: {"rope_theta": base, "partial_rotary_factor": _SHARE} for kind, base in bases.items()}
        return super().flattened({**config, "rope_parameters": rope})

    @model_validator(mode="after")
    def _said_twice(self) -> Self:
        windows = self.rope_of_windows or {}
        dense, _ = self.dense_layers()
        layers = range(self.num_hidden_layers)
        computed = {
            "hybrid_layer_pattern": [int(kind == SLIDING) for kind in self.kinds()],
            "moe_layer_freq": [int(layer not in dense) for layer in layers],
            "swa_rope_theta": windows.get("rope_theta"),
            "swa_num_attention_heads": self.num_attention_heads,
            "swa_num_key_value_heads": 2 * self.num_key_value_heads,
            "swa_head_dim": self.head_dim,
            "swa_v_head_dim": self.v_head_dim,
        }
        for key, value in computed.items():
            said = getattr(self, key)
            if said is not None and said != value:
                raise Contradiction(f"{key} {said}: transformers computes {value}", key)
        if self.mlp_layer_types is not None and len(self.mlp_layer_types) != len(layers):
            message = f"mlp_layer_types has {len(self.mlp_layer_types)} items for {len(layers)} num_hidden_layers"
            raise Contradiction(message, "mlp_layer_types")
        return self

    @model_validator(mode="after")
    def _rotations_say_their_share(self) -> Self:
        for rope in (self.rope_parameters or {}, self.rope_of_windows or {}):
            if rope.get("rope_type", "default") != "default" and "partial_rotary_factor" not in rope:
                raise Contradiction("a scaled rotary embedding without partial_rotary_factor", "rope_parameters")
        return self

    def kinds(self) -> Sequence[str]:
        """No window in the first layer, and in every sixth."""
        if self.layer_types is not None:
            return self.layer_types
        return [FULL if layer == 0 or (layer + 1) % 6 == 0 else SLIDING for layer in range(self.num_hidden_layers)]

    def dense_layers(self) -> tuple[Collection[int], tuple[str, ...]]:
        """The first, or what ``mlp_layer_types`` says."""
        if self.mlp_layer_types is None:
            return (0,), ()
        return [n for n, kind in enumerate(self.mlp_layer_types) if kind == "dense"], ("mlp_layer_types",)

    def derived(self) -> Iterator[Derived]:
        """Values, the part of a head that is rotated, and the router."""
        yield Derived("attention.v_head_dim", self.v_head_dim, ("v_head_dim",))
        if self.attention_value_scale is not None:
            yield Derived("attention.value_scale", self.attention_value_scale, ("attention_value_scale",))
        yield Derived("attention.rotary.dims", self._turned(self.rope_parameters or {}), ("head_dim",))
        yield from OfDeepSeek.derived(self)

    def _turned(self, rope: Mapping[str, Any]) -> int:
        """Dims of a head that a rotary embedding turns."""
        return int(self.head_dim * (rope.get("partial_rotary_factor") or self.partial_rotary_factor or _SHARE))

    def apart(self, attention: Mapping[str, Any]) -> Iterator[Derived]:
        """The block of the layers with a window."""
        size = self.sliding_window_size
        window = self.sliding_window if size is None else size + 1
        kinds = ["main" if kind == FULL else "sliding" for kind in self.kinds()]
        rope = self.rope_of_windows or {}
        rotary = {"theta": rope.get("rope_theta", 10000.0), "scaling": None, "dims": self._turned(rope)}
        heads = {"kv_heads": 2 * self.num_key_value_heads, "sinks": True}
        if "sliding" in kinds:
            own = {**attention, **heads, "sliding_window": window, "rotary": rotary}
            yield Derived("blocks", [{"name": "sliding", "attention": own}], ("sliding_window",))
            yield Derived("pattern", pattern_of(kinds), ("layer_types",) if self.layer_types is not None else ())
