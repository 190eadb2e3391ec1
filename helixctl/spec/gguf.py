"""GGUF files: their metadata as a config of Hugging Face, and their tensors by the names of transformers.

The package ``gguf`` of llama.cpp reads them. It is imported when a file is read, and no other file needs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Final

from helixctl.errors import Diagnostic, HelixError
from helixctl.spec.hugging_face.quantised import Scheme
from helixctl.spec.stored import GGUF_BLOCKS

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor

SUFFIX: Final = ".gguf"
# Types of plain numbers; all others must be block types that are known (GGUF_BLOCKS).
_FLOATS: Final = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
# general.architecture -> the model_type of transformers; llama with experts is mixtral.
_MODEL_TYPES: Final = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3moe": "qwen3_moe"}
# Architectures whose queries and keys are stored with the two halves of a head in turn.
_IN_TURN: Final = frozenset({"llama"})
# Keys behind the architecture -> those of the config. None: what is said again, or of no effect here.
_KEYS: Final[Mapping[str, str | None]] = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_count": None,
    "attention.value_length": None,
    "rope.dimension_count": None,
    "rope.scaling.type": None,
    "rope.scaling.factor": None,
    "rope.scaling.original_context_length": None,
    "rope.scaling.finetuned": None,
    "vocab_size": None,
    "tensor_data_layout": None,
}
_IN_A_LAYER: Final = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    # Of all experts together; each has a name of its own in transformers.
    "ffn_gate_exps": "mlp.experts.{}.gate_proj",
    "ffn_up_exps": "mlp.experts.{}.up_proj",
    "ffn_down_exps": "mlp.experts.{}.down_proj",
}
_ENDS: Final = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_FACTORS: Final = "rope_freqs.weight"
_LAYER: Final = re.compile(r"blk\.([0-9]+)\.(\w+)\.(weight|bias)")


def is_gguf(path: str) -> bool:
    """Whether a path names a GGUF file, by its suffix."""
    return path.lower().endswith(SUFFIX)


@dataclass(frozen=True)
class GgufFile:
    """One GGUF file. It is opened when it is first asked for something."""

    path: str

    @cached_property
    def reader(self) -> GGUFReader:
        """The package's reader, which maps the file.

        Raises:
            HelixError: HX101, the package is not installed, or the file is none that it reads.
        """
        try:
            from gguf import GGUFReader
        except ModuleNotFoundError as error:
            message = f"cannot be read: {error.name} is not installed, which reads GGUF files"
            raise self.refused(message, "HX101", "pip install gguf, or in the clone of helixctl '.[gguf]'") from error
        try:
            return GGUFReader(self.path)
        except OSError as error:
            raise self.refused(f"cannot be read: {(error.strerror or str(error)).lower()}", "HX101") from error
        except Exception as error:  # the package checks little: anything may fail in a file that is cut off
            raise self.refused(f"cannot be read as GGUF: {error or type(error).__name__}", "HX101") from error

    def refused(self, message: str, code: str = "HX111", hint: str | None = None) -> HelixError:
        """An error of this file."""
        return HelixError(Diagnostic(code, message, hint, self.path))

    def value(self, key: str) -> Any:
        """What the metadata has under a key; None where it has none."""
        field = self.reader.get_field(key)
        return None if field is None else field.contents()

    @cached_property
    def architecture(self) -> str:
        """That of the model.

        Raises:
            HelixError: HX111, it is not modelled.
        """
        name = self.value("general.architecture")
        if name not in _MODEL_TYPES:
            known = ", ".join(_MODEL_TYPES)
            raise self.refused(f"general.architecture {name!r}: not modelled of GGUF files; modelled are {known}")
        return str(name)

    @cached_property
    def tensors(self) -> dict[str, ReaderTensor]:
        """The tensors by their names in the file.

        Raises:
            HelixError: HX111, one has a type that is not read, or the file is one of several.
        """
        if (count := self.value("split.count")) and count > 1:
            hint = "merge them: llama-gguf-split --merge"
            raise self.refused(f"is one of {count} files of a model (split.count)", hint=hint)
        found = {tensor.name: tensor for tensor in self.reader.tensors}
        for name, tensor in found.items():
            kind = tensor.tensor_type.name
            if kind not in _FLOATS and kind.lower() not in GGUF_BLOCKS:
                known = ", ".join([*_FLOATS, *(block.upper() for block in GGUF_BLOCKS)])
                raise self.refused(f"tensor {name} is {kind}: not modelled; modelled are {known}")
        return found

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, outputs first."""
        return tuple(int(size) for size in reversed(self.tensors[name].shape))

    def names(self) -> Iterator[tuple[str, str, int | None]]:
        """The name of each tensor in transformers, its own name, and the expert that it belongs to.

        A tensor with no name there gets one among the weights of the model, so that it is seen to be left over.
        """
        for own in self.tensors:
            if own == _FACTORS:  # part of the config
                continue
            layer = _LAYER.fullmatch(own)
            stem, _, end = own.rpartition(".")
            if layer and layer[2] in _IN_A_LAYER:
                name = f"model.layers.{layer[1]}.{_IN_A_LAYER[layer[2]]}.{layer[3]}"
                experts = range(self.shape(own)[0]) if "{}" in name else (None,)
                yield from ((name.format(expert), own, expert) for expert in experts)
            elif stem in _ENDS:
                yield f"{_ENDS[stem]}.{end}", own, None
            else:
                yield f"model.{own.replace('blk.', 'layers.')}", own, None

    def halves_in_turn(self, own: str) -> int:
        """Of a tensor whose heads are stored so that the two halves of each stand in turn, the heads; else 0."""
        layer = _LAYER.fullmatch(own)
        if self.architecture not in _IN_TURN or layer is None or layer[2] not in {"attn_q", "attn_k"}:
            return 0
        key = "head_count" if layer[2] == "attn_q" else "head_count_kv"
        heads: int = self.value(f"{self.architecture}.attention.{key}") or self.value(
            f"{self.architecture}.attention.head_count"
        )
        return heads

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config that transformers would have.

        Raises:
            HelixError: HX111, the metadata says something that is not modelled; HX104, it lacks something.
        """
        its, tensors = self.architecture, self.tensors
        said = {k.removeprefix(f"{its}."): self.value(k) for k in self.reader.fields if k.startswith(f"{its}.")}
        for key, value in said.items():
            if key not in _KEYS:
                raise self.refused(f"{its}.{key} {value}: not modelled")
            if isinstance(value, list):
                raise self.refused(f"{its}.{key}, which differs by layer: not modelled")
        found = {ours: said[key] for key, ours in _KEYS.items() if ours and key in said}
        if (missing := {"token_embd.weight", "output_norm.weight"} - tensors.keys()) or "block_count" not in said:
            lacks = ", ".join(sorted(missing)) or f"{its}.block_count"
            raise self.refused(f"lacks {lacks}: it holds no model", "HX104")
        found["model_type"] = _MODEL_TYPES[its]
        found["vocab_size"] = self.shape("token_embd.weight")[0]
        found["tie_word_embeddings"] = "output.weight" not in tensors
        found["rope_theta"] = said.get("rope.freq_base", 10000.0)
        found["torch_dtype"] = self._dtype
        if experts := said.get("expert_count"):
            if its not in {"llama", "qwen3moe"}:
                raise self.refused(f"{its}.expert_count {experts}: not modelled")
            found["model_type"] = "mixtral" if its == "llama" else found["model_type"]
            found["num_local_experts" if its == "llama" else "num_experts"] = experts
        if its == "qwen3moe":
            found["norm_topk_prob"] = True  # llama.cpp renormalises the gates of all such models
        found |= self._rotary(said)
        return found

    @property
    def _dtype(self) -> str:
        """That of the plain matrices if there are no others; of quantised ones bfloat16, as of configs without one."""
        kinds = {t.tensor_type.name for t in self.tensors.values() if len(t.shape) > 1}
        return _FLOATS[next(iter(kinds))] if len(kinds) == 1 and kinds <= _FLOATS.keys() else "bfloat16"

    def _rotary(self, said: Mapping[str, Any]) -> dict[str, Any]:
        its = self.architecture
        head_dim = said.get("attention.key_length") or said["embedding_length"] // said["attention.head_count"]
        if said.get("attention.value_length", head_dim) != head_dim:
            raise self.refused(f"{its}.attention.value_length {said['attention.value_length']}: not modelled")
        if said.get("rope.dimension_count", head_dim) != head_dim:
            raise self.refused(f"{its}.rope.dimension_count {said['rope.dimension_count']}: not modelled")
        kind = said.get("rope.scaling.type", "none")
        if kind not in ("none", "linear"):
            raise self.refused(f"{its}.rope.scaling.type {kind!r}: not modelled of GGUF files")
        if _FACTORS in self.tensors:
            if kind != "none":
                raise self.refused(f"{its}.rope.scaling.type {kind!r} with {_FACTORS}: not modelled")
            factors = [float(x) for x in self.tensors[_FACTORS].data]
            longrope = {"rope_type": "longrope", "short_factor": factors, "long_factor": factors}
            more = {"attention_factor": 1.0, "original_max_position_embeddings": said["context_length"]}
            return {"rope_scaling": longrope | more}
        if kind == "linear":
            return {"rope_scaling": {"rope_type": "linear", "factor": said.get("rope.scaling.factor", 1.0)}}
        return {}

    def key_of(self, key: str) -> str:
        """The metadata that a key of the config comes from."""
        own = next((name for name, ours in _KEYS.items() if ours == key), None)
        return f"{self.architecture}.{own}" if own else key


class GgufTypes:
    """The types of a file's tensors, as what a quantisation says of modules."""

    named = True

    def __init__(self, file: GgufFile) -> None:
        """Read the types."""
        self._types = {name.rpartition(".")[0]: own for name, own, _ in file.names() if name.endswith(".weight")}
        self._file = file

    @property
    def method(self) -> str:
        """Its types of blocks."""
        kinds = {self._file.tensors[own].tensor_type.name for own in self._types.values()} - _FLOATS.keys()
        return f"GGUF ({', '.join(sorted(kinds))})"

    def scheme(self, module: str) -> Scheme | None:
        """How a module is stored; None: in plain numbers."""
        own = self._types.get(module)
        kind = self._file.tensors[own].tensor_type.name.lower() if own else ""
        return _scheme(kind) if kind in GGUF_BLOCKS else None


@cache
def _scheme(kind: str) -> Scheme:
    """One for all modules of a type, so that layers that are stored alike are told to be."""
    return Scheme("gguf", {"number": kind})
