"""Llama 4's text model: chunks and rotary embeddings in some layers, neither in others; gates on an expert's input."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from helixctl.spec.base import Contradiction, Count
from helixctl.spec.hugging_face.families.alternating import CHUNKED, FULL
from helixctl.spec.hugging_face.families.decoder import Derived, Experts, Flag, Whole, pattern_of
from helixctl.spec.hugging_face.families.mixtures import Mixture


class Llama4Text(Mixture):
    """Llama 4. ``attention_bias`` is of all four projections.

    The layers that are rotated and whose attention is in chunks are the model's ``main`` block. transformers normalises
    queries and keys behind the rotation, which gives the same: it turns vectors, and leaves their length.
    """

    always: ClassVar[dict[str, Any]] = {
        "attention.qk_norm": False,
        "attention.qk_norm_weight": "none",
        "attention.rotary.interleaved": True,
    }
    default_theta: ClassVar[float] = 500000.0
    layer_kinds: ClassVar[frozenset[str]] = frozenset({FULL, CHUNKED})
    keys: ClassVar[dict[str, str]] = {"attention.qk_norm": "use_qk_norm"}
    architectures: ClassVar[tuple[str, ...]] = ("Llama4ForConditionalGeneration", "Llama4ForCausalLM")
    experts_keys: ClassVar[tuple[str, ...]] = ("num_local_experts",)
    dense_width_key: ClassVar[str] = "intermediate_size_mlp"

    head_dim: Count | None = 128
    num_key_value_heads: Count | None = 8
    max_position_embeddings: Count = 131072
    intermediate_size: Count
    intermediate_size_mlp: Count
    rms_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    attention_bias: Flag = False
    use_qk_norm: Flag = True
    num_local_experts: Experts | None = None
    num_experts_per_tok: Count = 1
    moe_layers: list[Whole] | None = None
    interleave_moe_layer_step: Count = 1
    no_rope_layers: list[Annotated[int, Field(strict=True, ge=0, le=1)]] | None = None
    no_rope_layer_interval: Count = 4
    attention_chunk_size: Count | None = 8192
    layer_types: list[Literal["full_attention", "chunked_attention"]] | None = None  # type: ignore[assignment]
    attn_temperature_tuning: Flag = True
    floor_scale: Count = 8192
    attn_scale: Annotated[float, Field(strict=True, ge=0, le=2**60)] = 0.1

    @model_validator(mode="after")
    def _layers_are_said(self) -> Self:
        if self.no_rope_layers and len(self.no_rope_layers) < self.num_hidden_layers:
            message = (
                f"no_rope_layers has {len(self.no_rope_layers)} items for {self.num_hidden_layers} num_hidden_layers"
            )
            raise Contradiction(message, "no_rope_layers")
        if self.attention_chunk_size is None and any(chunked for _, chunked in self._layers()):
            raise Contradiction("attention in chunks, and attention_chunk_size is null", "attention_chunk_size")
        return self

    @model_validator(mode="after")
    def _rotations_leave_lengths(self) -> Self:
        key = next((key for key in ("rope_parameters", "rope_scaling") if getattr(self, key)), None)
        rope: dict[str, Any] = getattr(self, key) if key else {}
        kind = rope.get("rope_type") or rope.get("type")
        if key and self.use_qk_norm and kind in ("yarn", "longrope"):
            raise Contradiction(f"rotary embedding of type {kind} ahead of norms: not modelled", key)
        return self

    def _layers(self) -> list[tuple[bool, bool]]:
        """Of each layer whether it is rotated, and whether its attention is in chunks."""
        layers = range(self.num_hidden_layers)
        turned = self.no_rope_layers or [(layer + 1) % self.no_rope_layer_interval for layer in layers]
        chunked = [kind == CHUNKED for kind in self.layer_types] if self.layer_types is not None else turned
        return [(bool(turned[layer]), bool(chunked[layer])) for layer in layers if layer < len(chunked)]

    def dense_layers(self) -> tuple[Collection[int], tuple[str, ...]]:
        """Those that ``moe_layers`` does not list, or all but every ``interleave_moe_layer_step``-th."""
        layers, step = range(self.num_hidden_layers), self.interleave_moe_layer_step
        if self.moe_layers is not None:
            return [layer for layer in layers if layer not in self.moe_layers], ("moe_layers",)
        return [layer for layer in layers if (layer + 1) % step], ("interleave_moe_layer_step",)

    def derived(self) -> Iterator[Derived]:
        """Chunks, the router and the shared expert."""
        yield Derived("attention.chunk", self.attention_chunk_size, ("attention_chunk_size",))
        experts = "feed_forward.experts"
        yield Derived(f"{experts}.renormalise", False)  # noqa: FBT003  a value
        yield Derived(f"{experts}.router.scores", "sigmoid")
        yield Derived(f"{experts}.gates_on", "input")
        yield Derived(f"{experts}.shared.intermediate_size", self.intermediate_size, ("intermediate_size",))

    def apart(self, attention: Mapping[str, Any]) -> Iterator[Derived]:
        """The layers without chunks, and those without a rotary embedding, whose queries are scaled by position."""
        scaling = {"factor": self.attn_scale, "tokens": self.floor_scale, "first": 1}
        scaled = {"position_scaling": scaling} if self.attn_temperature_tuning and self.attn_scale else {}
        own = {(True, True): attention, (True, False): {**attention, "chunk": None}}
        own |= {
            (False, chunked): {**its, "rotary": None, "qk_norm": False, **scaled} for (_, chunked), its in own.items()
        }
        names = {(True, True): "main", (True, False): "full", (False, True): "no_rotary_chunked"}
        layers = self._layers()
        kinds = [names.get(layer, "no_rotary") for layer in layers]
        its = {kind: own[layer] for kind, layer in zip(kinds, layers, strict=True) if kind != "main"}
        if its:
            keys = tuple(key for key in ("no_rope_layers", "layer_types") if getattr(self, key) is not None)
            keys = keys or ("no_rope_layer_interval",)
            yield Derived("blocks", [{"name": name, "attention": found} for name, found in its.items()], keys)
            yield Derived("pattern", pattern_of(kinds), keys)
