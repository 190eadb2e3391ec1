"""What files call the weights of a model: helixctl's own names, or those of Hugging Face's transformers."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from math import prod

from helixctl.dag import Tensor
from helixctl_runtime.stored import Stored, as_it_is

Axes = tuple[tuple[str, ...], ...]

_WEIGHT = re.compile(r"(l[0-9]+\.([wb]_[a-z]+|[a-z_]+_norm)|embedding|final_norm|w_head)")
_BUFFER = re.compile(r"(.*\.)?rotary_emb\.inv_freq")
_FIRST_NORM = re.compile(r"((?:.+\.)?)layers\.0\.input_layernorm\.weight")
_EMBEDDING = "embed_tokens.weight"
_HEAD = "lm_head.weight"

_HIDDEN: Axes = (("hidden",),)
_QUERY, _KEY, _DIM = ("head", "head_dim"), ("kv_head", "head_dim"), ("head_dim",)
_IN, _OUT = (("ffn",), ("hidden",)), (("hidden",), ("ffn",))

# The stored name in a layer and the dims that each stored axis merges. Linear layers are stored (out, in).
_LAYER: dict[str, tuple[str, Axes]] = {
    "attention_norm": ("input_layernorm.weight", _HIDDEN),
    "w_q": ("self_attn.q_proj.weight", (_QUERY, ("hidden",))),
    "w_k": ("self_attn.k_proj.weight", (_KEY, ("hidden",))),
    "w_v": ("self_attn.v_proj.weight", (_KEY, ("hidden",))),
    "b_q": ("self_attn.q_proj.bias", (_QUERY,)),
    "b_k": ("self_attn.k_proj.bias", (_KEY,)),
    "b_v": ("self_attn.v_proj.bias", (_KEY,)),
    "q_norm": ("self_attn.q_norm.weight", (_DIM,)),
    "k_norm": ("self_attn.k_norm.weight", (_DIM,)),
    "w_o": ("self_attn.o_proj.weight", (("hidden",), _QUERY)),
    "b_o": ("self_attn.o_proj.bias", _HIDDEN),
    "feed_forward_norm": ("post_attention_layernorm.weight", _HIDDEN),
    "w_gate": ("mlp.gate_proj.weight", _IN),
    "w_up": ("mlp.up_proj.weight", _IN),
    "w_down": ("mlp.down_proj.weight", _OUT),
}


@dataclass(frozen=True, slots=True)
class _Experts:
    """How a layer's experts are spelled; ``{}`` stands for the expert where each has matrices of its own."""

    router: str
    w_gate: str
    w_up: str
    w_down: str


_SPELLINGS = (
    _Experts(
        "mlp.gate.weight",
        "mlp.experts.{}.gate_proj.weight",
        "mlp.experts.{}.up_proj.weight",
        "mlp.experts.{}.down_proj.weight",
    ),
    _Experts(
        "block_sparse_moe.gate.weight",
        "block_sparse_moe.experts.{}.w1.weight",
        "block_sparse_moe.experts.{}.w3.weight",
        "block_sparse_moe.experts.{}.w2.weight",
    ),
    # As transformers 5 holds them in memory: gate and up of all experts in one tensor, one after the other.
    _Experts("mlp.gate.weight", "mlp.experts.gate_up_proj", "mlp.experts.gate_up_proj", "mlp.experts.down_proj"),
)


class OwnNames:
    """Whole tensors as docs/formats.md calls them. Names that are no weight's may stand beside them."""

    head: str | None = None
    hint: str | None = "the names are those of docs/formats.md, 'Tensors'"

    def stored(self, tensor: Tensor) -> Stored:
        """Where a weight stands."""
        return as_it_is(tensor)

    def shown(self, tensor: Tensor) -> str:  # noqa: ARG002
        """What a reader of the model calls what is stored: the same."""
        return ""

    def unused(self, names: Collection[str], used: Collection[str]) -> list[str]:
        """The names that would be weights of another model."""
        return sorted(name for name in names if name not in used and _WEIGHT.fullmatch(name))


class HuggingFaceNames:
    """The names of transformers for llama, mistral, qwen2, qwen3, mixtral and qwen3_moe."""

    hint: str | None = None

    def __init__(self, names: Collection[str], prefix: str) -> None:
        """Find how the names after this prefix spell the model's experts and its head."""
        self._prefix = prefix
        above = prefix.split(".")[:-1]
        # "model." is the class without its head; its parent may be one part of a larger model.
        self._root = ".".join([*above[:-1], ""]) if above[-1:] == ["model"] else prefix
        heads = [".".join([*above[:depth], _HEAD]) for depth in range(len(above), -1, -1)]
        self.head = next((name for name in heads if name in names), self._root + _HEAD)
        self._experts = next((s for s in _SPELLINGS if self._first(s.w_down) in names), _SPELLINGS[0])

    def stored(self, tensor: Tensor) -> Stored:
        """Where a weight stands."""
        size = dict(zip(tensor.dims, tensor.shape, strict=True))
        layer, _, part = tensor.name.rpartition(".")
        if not layer:
            name, axes = {
                "embedding": (self._prefix + _EMBEDDING, (("vocab",), ("hidden",))),
                "final_norm": (self._prefix + "norm.weight", _HIDDEN),
                "w_head": (self.head, (("vocab",), ("hidden",))),
            }[tensor.name]
            return Stored((name,), axes, _shape(axes, size), (0,) * len(axes))
        folder = f"{self._prefix}layers.{layer[1:]}."
        if part == "w_router":
            axes = (("expert",), ("hidden",))
            return Stored((folder + self._experts.router,), axes, _shape(axes, size), (0, 0))
        name, axes = _LAYER[part]
        if "expert" not in size:
            return Stored((folder + name,), axes, _shape(axes, size), (0,) * len(axes))
        return self._of_experts(folder, part, axes, size)

    def shown(self, tensor: Tensor) -> str:
        """What a reader of the model calls what is stored."""
        return f" ({tensor.name} {list(tensor.shape)})"

    def unused(self, names: Collection[str], used: Collection[str]) -> list[str]:
        """The names that would be weights of another model.

        What stands beside the root belongs to other parts of a larger one, such as those that see.
        """
        return sorted(n for n in names if n not in used and n.startswith(self._root) and not _BUFFER.fullmatch(n))

    def _of_experts(self, folder: str, part: str, axes: Axes, size: dict[str, int]) -> Stored:
        name = folder + str(getattr(self._experts, part))
        if "{}" in name:
            names = tuple(name.format(expert) for expert in range(size["expert"]))
            return Stored(names, axes, _shape(axes, size), (0, 0), "expert")
        axes = (("expert",), *axes)
        shape, start = _shape(axes, size), (0, 0, 0)
        if part != "w_down":
            shape, start = (shape[0], 2 * shape[1], shape[2]), (0, shape[1] if part == "w_up" else 0, 0)
        return Stored((name,), axes, shape, start)

    def _first(self, name: str) -> str:
        return f"{self._prefix}layers.0." + name.format(0)


def naming(names: Collection[str]) -> OwnNames | HuggingFaceNames:
    """Which way the tensors of some files are called."""
    if "l0.attention_norm" in names or not (prefixes := _prefixes(names)):
        return OwnNames()
    # Of several models in one checkpoint the one that reads tokens.
    return HuggingFaceNames(names, min(prefixes, key=lambda each: (each + _EMBEDDING not in names, len(each), each)))


def _prefixes(names: Collection[str]) -> list[str]:
    """All that stands ahead of a first layer: mostly ``model.``."""
    return [match[1] for name in names if (match := _FIRST_NORM.fullmatch(name))]


def _shape(axes: Axes, size: dict[str, int]) -> tuple[int, ...]:
    return tuple(prod(size[dim] for dim in axis) for axis in axes)
