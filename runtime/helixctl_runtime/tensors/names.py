"""The names of a model's weights in files: helixctl's own names, or those of Hugging Face's transformers."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from math import prod

from helixctl.dag import Tensor
from helixctl_runtime.tensors.expert_names import Axes, ExpertNames
from helixctl_runtime.tensors.stored_tensor import StoredTensor, stored_as_is

_WEIGHT = re.compile(r"(l[0-9]+\.([wb]_[a-z_]+|[a-z_]+_norm(_bias)?|sinks)|embedding|final_norm(_bias)?|w_head)")
_BUFFER = re.compile(r"(.*\.)?rotary_emb\.inv_freq")
# Every layer has one of these norms; where norms come after blocks alone it is the second.
_FIRST_NORM = re.compile(r"((?:.+\.)?)layers\.0\.(?:input|post_attention)_layernorm\.weight")
# Layers that predict further tokens: no plan has them.
_FURTHER = re.compile(r"(mtp_layers|mtp)\.")
_EMBEDDING = "embed_tokens.weight"
_HEAD = "lm_head.weight"
# Names of modules that make logits; a tensor below one of them belongs to a language model.
_HEADS = ("lm_head.", "head.", "output.", "output_layer.", "embed_out.", "unembed.")

_HIDDEN: Axes = (("hidden",),)
_QUERY, _KEY, _DIM = ("head", "head_dim"), ("kv_head", "head_dim"), ("head_dim",)
_INDEX_KEY = ("kv_head", "index_dim")  # of an indexer
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
    "sinks": ("self_attn.sinks", (("head",),)),
    "w_index_k": ("self_attn.indexer.wk.weight", (_INDEX_KEY, ("hidden",))),
    "w_index_factor": ("self_attn.indexer.weights_proj.weight", (("index_head",), ("hidden",))),
    "index_k_norm": ("self_attn.indexer.k_norm.weight", (("index_dim",),)),
    "index_k_norm_bias": ("self_attn.indexer.k_norm.bias", (("index_dim",),)),
    "w_output_gate": ("self_attn.gate_proj.weight", (_QUERY, ("hidden",))),
    "w_o": ("self_attn.o_proj.weight", (("hidden",), _QUERY)),
    "b_o": ("self_attn.o_proj.bias", _HIDDEN),
    "feed_forward_norm": ("post_attention_layernorm.weight", _HIDDEN),
    "attention_post_norm": ("post_attention_layernorm.weight", _HIDDEN),
    "feed_forward_post_norm": ("post_feedforward_layernorm.weight", _HIDDEN),
    "attention_norm_bias": ("input_layernorm.bias", _HIDDEN),
    "feed_forward_norm_bias": ("post_attention_layernorm.bias", _HIDDEN),
    "experts_norm": ("pre_feedforward_layernorm_2.weight", _HIDDEN),
    "experts_post_norm": ("post_feedforward_layernorm_2.weight", _HIDDEN),
    "shared_post_norm": ("post_feedforward_layernorm_1.weight", _HIDDEN),
    "router_norm": ("router.scale", _HIDDEN),
    "w_layer_scale": ("layer_scalar", (("one",),)),
    "b_gate": ("mlp.gate_proj.bias", (("ffn",),)),
    "b_up": ("mlp.up_proj.bias", (("ffn",),)),
    "b_down": ("mlp.down_proj.bias", _HIDDEN),
    "w_gate": ("mlp.gate_proj.weight", _IN),
    "w_up": ("mlp.up_proj.weight", _IN),
    "w_down": ("mlp.down_proj.weight", _OUT),
}
# Other names that some families have; one that is there comes before that of _LAYER.
_OTHERWISE: dict[str, tuple[str, ...]] = {
    "feed_forward_norm": ("pre_feedforward_layernorm.weight", "pre_mlp_layernorm.weight"),
    "attention_post_norm": ("post_self_attn_layernorm.weight",),
    "feed_forward_post_norm": ("post_mlp_layernorm.weight",),
    "sinks": ("self_attn.attention_sink_bias",),
    "w_gate": ("feed_forward.gate_proj.weight",),
    "w_up": ("mlp.c_fc.weight", "feed_forward.up_proj.weight"),
    "b_up": ("mlp.c_fc.bias",),
    "w_down": ("mlp.c_proj.weight", "feed_forward.down_proj.weight"),
    "b_down": ("mlp.c_proj.bias",),
}
# One stored matrix with the rows of several weights, in this order.
_MERGED: dict[str, tuple[str, ...]] = {
    "self_attn.qkv_proj.weight": ("w_q", "w_k", "w_v"),
    "mlp.gate_up_proj.weight": ("w_gate", "w_up"),
}


# Of a latent (DeepSeek): queries of a rank, and the two pairs of weights that share a stored tensor.
_LATENT: dict[str, tuple[str, Axes]] = {
    "w_q_down": ("self_attn.q_a_proj.weight", (("q_rank",), ("hidden",))),
    "q_down_norm": ("self_attn.q_a_layernorm.weight", (("q_rank",),)),
    "w_q": ("self_attn.q_b_proj.weight", (_QUERY, ("q_rank",))),
    "w_index_q": ("self_attn.indexer.wq_b.weight", (("index_head", "index_dim"), ("q_rank",))),
    "kv_down_norm": ("self_attn.kv_a_layernorm.weight", (("kv_rank",),)),
}
_DOWN, _UP = "self_attn.kv_a_proj_with_mqa.weight", "self_attn.kv_b_proj.weight"


class NativeNames:
    """helixctl's own names (docs/formats.md). Files may also hold tensors that are no weights."""

    prefix: str | None = None
    head: str | None = None
    hint: str | None = "the names are those of docs/formats.md, 'Tensors'"

    def stored(self, tensor: Tensor) -> StoredTensor:
        """How a weight is stored."""
        return stored_as_is(tensor)

    def own_name(self, tensor: Tensor) -> str:  # noqa: ARG002
        """The tensor's own name, to follow its stored name in messages: empty, because both are the same."""
        return ""

    def unused(self, names: Collection[str], used: Collection[str]) -> list[str]:
        """The names of weights that the model does not use."""
        return sorted(name for name in names if name not in used and _WEIGHT.fullmatch(name))

    def beside(self, names: Collection[str], used: Collection[str]) -> list[str]:
        """The names of tensors that are not weights of the model."""
        return sorted(name for name in names if name not in used and not _WEIGHT.fullmatch(name))


class HuggingFaceNames:
    """The names of transformers, whichever of its families has them."""

    hint: str | None = None

    def __init__(
        self,
        names: Collection[str],
        prefix: str,
        others: Collection[str] = (),
        *,
        alone: bool = False,
        shape: Callable[[str], tuple[int, ...]] | None = None,
    ) -> None:
        """Find the names of the experts and of the head of the model with a prefix.

        Args:
            names: the names of all stored tensors.
            prefix: the text ahead of ``layers.0``, mostly ``model.``.
            others: the prefixes of other models in the same files.
            alone: the model is what has the prefix, and its head; tensors without the prefix do not belong to it.
            shape: gives the shape of a stored tensor; where none of them holds several weights it is not needed.
        """
        self._stored_names, self._shape_of = names, shape
        self.prefix = prefix
        above = prefix.split(".")[:-1]
        self._root = model_root(prefix)
        self._scope = prefix if alone else self._root
        self._others = [model_root(other) for other in others if reads_tokens(other, names)]
        self._nested = [other for other in others if alone and other.startswith(prefix)]
        self._ancestors = [".".join([*above[:depth], ""]).lstrip(".") for depth in range(len(above), -1, -1)]
        heads = (ancestor + _HEAD for ancestor in self._ancestors)
        self.head = next((n for n in heads if n in names and not self._belongs_to_another(n)), self._root + _HEAD)
        embedding = prefix + _EMBEDDING
        # If only the head is stored, transformers takes it for the embedding.
        self._embedding = self.head if embedding not in names and self.head in names else embedding
        self._experts = ExpertNames(names, prefix)

    def stored(self, tensor: Tensor) -> StoredTensor:
        """How a weight is stored."""
        size = dict(zip(tensor.dims, tensor.shape, strict=True))
        layer, _, part = tensor.name.rpartition(".")
        if not layer:
            name, axes = {
                "embedding": (self._embedding, (("vocab",), ("hidden",))),
                "final_norm": (self.prefix + "norm.weight", _HIDDEN),
                "final_norm_bias": (self.prefix + "norm.bias", _HIDDEN),
                "w_head": (self.head, (("vocab",), ("hidden",))),
            }[tensor.name]
            return StoredTensor((name,), axes, _shape(axes, size), (0,) * len(axes))
        folder = f"{self.prefix}layers.{layer[1:]}."
        if {"q_rank", "kv_rank"} & size.keys() or part == "w_k_rope":
            return self._of_a_latent(folder, tensor, part, size)
        if of_mixture := self._experts.stored(folder, part, size):
            return of_mixture
        name, axes = _LAYER[part]
        if "v_dim" in size:  # values have a width of their own
            axes = tuple(tuple("v_dim" if dim == "head_dim" else dim for dim in axis) for axis in axes)
        if part in {"q_norm", "k_norm"} and len(tensor.dims) > 1:
            # Of all heads: one axis for all dims (OLMo 2), or one a dim (Command R+).
            merged = (
                self._shape_of is not None
                and folder + name in self._stored_names
                and len(self._shape_of(folder + name)) == 1
            )
            axes = (tensor.dims,) if merged else tuple((dim,) for dim in tensor.dims)
        if found := self._merged(folder, part, axes, size):
            return found
        name = next((other for other in _OTHERWISE.get(part, ()) if folder + other in self._stored_names), name)
        return StoredTensor((folder + name,), axes, _shape(axes, size), (0,) * len(axes))

    def _merged(self, folder: str, part: str, axes: Axes, size: dict[str, int]) -> StoredTensor | None:
        """A weight whose rows are a part of a stored matrix; None where none is stored so."""
        for name, parts in _MERGED.items():
            if part in parts and folder + name in self._stored_names and self._shape_of is not None:
                shape, rows = self._shape_of(folder + name), _shape(axes, size)[0]
                # All but the first have as many rows.
                behind = len(parts) - parts.index(part)
                first = 0 if behind == len(parts) else shape[0] - behind * rows
                return StoredTensor((folder + name,), axes, (shape[0], size["hidden"]), (first, 0))
        return None

    def own_name(self, tensor: Tensor) -> str:
        """The tensor's own name, to follow its stored name in messages."""
        return f" ({tensor.name} {list(tensor.shape)})"

    def unused(self, names: Collection[str], used: Collection[str]) -> list[str]:
        """The names of weights that the model does not use.

        Tensors outside the model's root belong to other parts of a larger model, such as a vision tower. Only a head
        may be nearer to the root of the whole.
        """
        return sorted(n for n in self._unused(names, used) if self._belongs_to_model(n))

    def beside(self, names: Collection[str], used: Collection[str]) -> list[str]:
        """The names of tensors that belong to other parts of a larger model, or to another model."""
        return sorted(n for n in self._unused(names, used) if not self._belongs_to_model(n))

    def without_model(self, names: Collection[str]) -> list[str]:
        """The names that do not belong to another language model."""
        return [name for name in names if not self._belongs_to_another(name)]

    def more_layers(self, names: Collection[str], used: Collection[str]) -> bool:
        """Whether the layers have weights that the model does not use."""
        return any(n.startswith(f"{self.prefix}layers.") for n in self._unused(names, used))

    def _unused(self, names: Collection[str], used: Collection[str]) -> list[str]:
        return [name for name in names if name not in used and not self._never_used(name)]

    def _never_used(self, name: str) -> bool:
        """Whether a stored tensor is a buffer, or of layers that predict further tokens, which no plan has."""
        return bool(_BUFFER.fullmatch(name)) or bool(_FURTHER.match(name.removeprefix(self.prefix)))

    def _belongs_to_model(self, name: str) -> bool:
        if self._belongs_to_another(name):
            return False
        inside = name.startswith(self._scope) and not name.startswith(tuple(self._nested))
        return inside or name.startswith(tuple(ancestor + head for ancestor in self._ancestors for head in _HEADS))

    def _belongs_to_another(self, name: str) -> bool:
        """Whether a name is below the root of another model, and that root is nearer than this model's."""
        near = len(self._root) if name.startswith(self._root) else -1
        return any(name.startswith(other) and len(other) > near for other in self._others)

    def _of_a_latent(self, folder: str, tensor: Tensor, part: str, size: dict[str, int]) -> StoredTensor:
        """The weights that make a latent, and what is made of it.

        The latent and the rotated key are rows of one stored tensor; so are, in every head, keys and values.
        """
        if part in _LATENT:
            name, axes = _LATENT[part]
            return StoredTensor((folder + name,), axes, _shape(axes, size), (0,) * len(axes))
        name = folder + (_UP if part in {"w_k", "w_v"} else _DOWN)
        stored = self._shape_of(name)[0] if self._shape_of and name in self._stored_names else 0
        if part in {"w_k", "w_v"}:
            own, heads = size[tensor.dims[-1]], size["head"]
            width = max(own, stored // heads)
            begin = 0 if part == "w_k" else width - own
            axes = (tensor.dims[1:], ("kv_rank",))
            return StoredTensor((name,), axes, (heads * width, size["kv_rank"]), (0, 0), None, {0: (begin, width)})
        axes = (tensor.dims[1:], ("hidden",))
        rows, columns = _shape(axes, size)
        width = max(rows, stored)
        return StoredTensor((name,), axes, (width, columns), (0 if part == "w_kv_down" else width - rows, 0))


Names = NativeNames | HuggingFaceNames


def has_native_names(names: Collection[str]) -> bool:
    """Whether the names are helixctl's own (docs/formats.md)."""
    return "l0.w_q" in names


def prefixes(names: Collection[str]) -> list[str]:
    """The texts ahead of each first layer, mostly ``model.``; the likeliest language model comes first."""
    found = {match[1] for name in names if (match := _FIRST_NORM.fullmatch(name))}
    return sorted(found, key=lambda each: (not reads_tokens(each, names), len(each), each))


def reads_tokens(prefix: str, names: Collection[str]) -> bool:
    """Whether the model with a prefix has its own embedding."""
    return prefix + _EMBEDDING in names


def is_head(name: str) -> bool:
    """Whether the name of a stored tensor is that of a matrix that makes logits."""
    return f".{name}".endswith(tuple(f".{head}weight" for head in _HEADS))


def model_root(prefix: str) -> str:
    """The prefix of a model together with its head: ``x.model.`` is the model without its head, ``x.`` has both."""
    parts = prefix.split(".")[:-1]
    return ".".join([*parts[:-1], ""]).lstrip(".") if parts[-1:] == ["model"] else prefix


def _shape(axes: Axes, size: dict[str, int]) -> tuple[int, ...]:
    return tuple(prod(size[dim] for dim in axis) for axis in axes)
