"""What files call the weights of a model: helixctl's own names, or those of Hugging Face's transformers."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from math import prod

from helixctl.dag import Tensor
from helixctl_runtime.tensors.stored import Stored, as_it_is

Axes = tuple[tuple[str, ...], ...]

_WEIGHT = re.compile(r"(l[0-9]+\.([wb]_[a-z]+|[a-z_]+_norm)|embedding|final_norm|w_head)")
_BUFFER = re.compile(r"(.*\.)?rotary_emb\.inv_freq")
_FIRST_NORM = re.compile(r"((?:.+\.)?)layers\.0\.input_layernorm\.weight")
_EMBEDDING = "embed_tokens.weight"
_HEAD = "lm_head.weight"
# Modules that make logits, as models call them; what stands under one of them belongs to a language model.
_HEADS = ("lm_head.", "head.", "output.", "output_layer.", "embed_out.", "unembed.")

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

    prefix: str | None = None
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

    def beside(self, names: Collection[str], used: Collection[str]) -> list[str]:
        """What is not read, and does not belong to the model."""
        return sorted(name for name in names if name not in used and not _WEIGHT.fullmatch(name))


class HuggingFaceNames:
    """The names of transformers for llama, mistral, qwen2, qwen3, mixtral and qwen3_moe."""

    hint: str | None = None

    def __init__(
        self, names: Collection[str], prefix: str, others: Collection[str] = (), *, alone: bool = False
    ) -> None:
        """Find how the names after a prefix spell the model's experts and its head.

        Args:
            names: of all stored tensors.
            prefix: what stands ahead of ``layers.0``, mostly ``model.``.
            others: the prefixes of other models in the same files.
            alone: read what the prefix has and its head; what else stands beside it is no concern of the model.
        """
        self.prefix = prefix
        above = prefix.split(".")[:-1]
        self._root = root_of(prefix)
        self._scope = prefix if alone else self._root
        self._others = [root_of(other) for other in others if reads_tokens(other, names)]
        self._nested = [other for other in others if alone and other.startswith(prefix)]
        self._ancestors = [".".join([*above[:depth], ""]).lstrip(".") for depth in range(len(above), -1, -1)]
        heads = (ancestor + _HEAD for ancestor in self._ancestors)
        self.head = next((n for n in heads if n in names and not self._of_another(n)), self._root + _HEAD)
        embedding = prefix + _EMBEDDING
        # transformers ties the other way round where only the head is stored.
        self._embedding = self.head if embedding not in names and self.head in names else embedding
        self._experts = next((s for s in _SPELLINGS if self._first(s.w_down) in names), _SPELLINGS[0])

    def stored(self, tensor: Tensor) -> Stored:
        """Where a weight stands."""
        size = dict(zip(tensor.dims, tensor.shape, strict=True))
        layer, _, part = tensor.name.rpartition(".")
        if not layer:
            name, axes = {
                "embedding": (self._embedding, (("vocab",), ("hidden",))),
                "final_norm": (self.prefix + "norm.weight", _HIDDEN),
                "w_head": (self.head, (("vocab",), ("hidden",))),
            }[tensor.name]
            return Stored((name,), axes, _shape(axes, size), (0,) * len(axes))
        folder = f"{self.prefix}layers.{layer[1:]}."
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

        What stands beside the root belongs to other parts of a larger one, such as those that see. A head may stand
        nearer to the root of all.
        """
        return sorted(n for n in self._not_used(names, used) if self._ours(n))

    def beside(self, names: Collection[str], used: Collection[str]) -> list[str]:
        """What is not read, and belongs to other parts of a larger model, or to another model."""
        return sorted(n for n in self._not_used(names, used) if not self._ours(n))

    def without_owner(self, names: Collection[str]) -> list[str]:
        """Those of some names beside the model that are not another language model's."""
        return [name for name in names if not self._of_another(name)]

    def more_layers(self, names: Collection[str], used: Collection[str]) -> bool:
        """Whether the layers have weights that are not used."""
        return any(n.startswith(f"{self.prefix}layers.") for n in self._not_used(names, used))

    def _not_used(self, names: Collection[str], used: Collection[str]) -> list[str]:
        return [name for name in names if name not in used and not _BUFFER.fullmatch(name)]

    def _ours(self, name: str) -> bool:
        if self._of_another(name):
            return False
        inside = name.startswith(self._scope) and not name.startswith(tuple(self._nested))
        return inside or name.startswith(tuple(ancestor + head for ancestor in self._ancestors for head in _HEADS))

    def _of_another(self, name: str) -> bool:
        """Whether a name stands below the root of another model, and that root is nearer than ours."""
        near = len(self._root) if name.startswith(self._root) else -1
        return any(name.startswith(other) and len(other) > near for other in self._others)

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
        return f"{self.prefix}layers.0." + name.format(0)


Names = OwnNames | HuggingFaceNames


def has_own_names(names: Collection[str]) -> bool:
    """Whether a file holds weights as docs/formats.md calls them."""
    return "l0.attention_norm" in names


def prefixes(names: Collection[str]) -> list[str]:
    """All that stands ahead of a first layer, mostly ``model.``; the likeliest language model first."""
    found = [match[1] for name in names if (match := _FIRST_NORM.fullmatch(name))]
    return sorted(found, key=lambda each: (not reads_tokens(each, names), len(each), each))


def reads_tokens(prefix: str, names: Collection[str]) -> bool:
    """Whether the model after a prefix has an embedding of its own."""
    return prefix + _EMBEDDING in names


def is_head(name: str) -> bool:
    """Whether a stored tensor is called as the matrix that makes logits."""
    return f".{name}".endswith(tuple(f".{head}weight" for head in _HEADS))


def root_of(prefix: str) -> str:
    """What stands ahead of a model with its head: ``model.`` is the class without, and its parent may be one part."""
    parts = prefix.split(".")[:-1]
    return ".".join([*parts[:-1], ""]).lstrip(".") if parts[-1:] == ["model"] else prefix


def _shape(axes: Axes, size: dict[str, int]) -> tuple[int, ...]:
    return tuple(prod(size[dim] for dim in axis) for axis in axes)
