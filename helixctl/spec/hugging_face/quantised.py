"""How the weights of a Hugging Face checkpoint are quantised, by the config of its quantisation.

Two keys say so: ``quantization_config`` of config.json, and ``quantization`` of hf_quant_config.json beside it. Every
method has its own words for what a scale is of, and for the modules that are left as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import translate
from functools import cached_property
from typing import Any, Final, Protocol

from helixctl.spec.explain import Finding
from helixctl.spec.fields import dotted, shown
from helixctl.spec.yaml_reader import DocumentPath

IN_A_FILE_OF_ITS_OWN: Final = "quantization"  # the key of hf_quant_config.json
# Keys that say how a KV cache is quantised; none of them changes a weight.
_OF_A_CACHE: Final = ("kv_cache_quant_algo", "kv_cache_scheme")
# What stands in the place of ``model.`` ahead of the modules of a text model, in configs of several modalities.
_AHEAD: Final = ("model.", "language_model.model.", "model.language_model.", "model.language_model.model.", "")


@dataclass(frozen=True, eq=False)
class Scheme:
    """How one kind of modules is stored.

    Attributes:
        layout: how it lies in the files: fp8, gptq, awq, packed (compressed-tensors), plain (one integer or fp8 number
            an element), mxfp4 (gpt-oss), mxfp8, nvfp4, and of compressed-tensors mxfp4-packed and nvfp4-packed.
        stored: the fields of ``StoredSpec`` but ``weights``.
        one_less: zero points are stored less one (GPTQ's first format).
    """

    layout: str
    stored: Mapping[str, Any]
    one_less: bool = False

    @property
    def block(self) -> tuple[int | None, int | None]:
        """(outputs, inputs) that share a scale."""
        outputs, inputs = self.stored.get("block", (None, None))
        return outputs, inputs


class Quantised(Protocol):
    """What says of each module how it is stored: a config's quantisation, or the types of a file's tensors."""

    @property
    def method(self) -> str:
        """Its name."""

    @property
    def named(self) -> bool:
        """Whether modules are quantised by their names alone, so that of several possible names one counts."""

    def scheme(self, module: str) -> Scheme | None:
        """How a module is stored, ``model.layers.0.self_attn.q_proj``; None: in the dtype of the model."""


class Names:
    """A set of modules: names, parts of names, patterns with ``*``, and ``re:`` expressions."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Sort the patterns by how they are matched."""
        self._plain = {p.strip(".") for p in patterns if "*" not in p and not p.startswith("re:")}
        self._lengths = {p.count(".") + 1 for p in self._plain}
        found = [p.removeprefix("re:") for p in patterns if p.startswith("re:")]
        # A star stands for anything; a pattern of a module is one of all that is in it.
        stars = [p for p in patterns if "*" in p and not p.startswith("re:")]
        found += [f"(?:{translate(p)}|{translate(f'{p}.*')})" for p in stars]
        self._expressions = [re.compile(expression) for expression in found]

    def __contains__(self, module: object) -> bool:
        """Whether a module is one of them, or is in one of them."""
        name = str(module)
        own = name.removeprefix("model.")
        ahead = _AHEAD if own != name else ("", "language_model.", "model.language_model.")
        return any(self._holds(f"{text}{own}") for text in ahead)

    def _holds(self, module: str) -> bool:
        parts = module.split(".")
        pieces = (".".join(parts[i : i + n]) for n in self._lengths for i in range(len(parts) + 1 - n))
        return any(piece in self._plain for piece in pieces) or any(e.match(module) for e in self._expressions)


@dataclass(frozen=True)
class Quantisation:
    """Which modules of a model are quantised, and how.

    Attributes:
        method: its name, as the config has it.
        schemes: the modules of each; None: all that are left.
        kept: the modules that are not quantised.
        heads: whether the language-model head is quantised as well, unless it is kept.
        experts_only: no module is but the experts.
        cache_key: the key by which it is made for a KV cache in fp8; empty without one.
    """

    method: str
    schemes: tuple[tuple[tuple[str, ...] | None, Scheme], ...]
    kept: tuple[str, ...] = ()
    heads: bool = False
    experts_only: bool = False
    cache_key: str = ""

    @cached_property
    def _kept(self) -> Names:
        return Names(self.kept)

    @cached_property
    def _targets(self) -> list[tuple[Names | None, Scheme]]:
        return [(None if names is None else Names(names), scheme) for names, scheme in self.schemes]

    @property
    def named(self) -> bool:
        """Whether modules are quantised by their names alone, so that of several possible names one counts."""
        return all(names is not None for names, _ in self.schemes)

    def scheme(self, module: str) -> Scheme | None:
        """How a module is stored, ``model.layers.0.self_attn.q_proj``; None: in the dtype of the model."""
        name = module.rpartition(".")[2]
        if name == "embed_tokens" or (name == "lm_head" and not self.heads):
            return None
        if module in self._kept or (self.experts_only and ".experts" not in module):
            return None
        return next((scheme for names, scheme in self._targets if names is None or module in names), None)


class _Unknown(Exception):  # noqa: N818  it is turned into a finding
    """What of a quantisation is not modelled: a part of it, and the key that says so."""

    def __init__(self, what: str, path: DocumentPath) -> None:
        """Keep both."""
        super().__init__(what)
        self.what, self.path = what, path


def quantisation_of(config: Mapping[str, Any], key: str) -> tuple[Quantisation | None, list[Finding]]:
    """The quantisation that a config has under a key.

    Args:
        config: config.json, or hf_quant_config.json.
        key: quantization_config, or quantization.

    Returns:
        The quantisation, None where there is none; or what of it is not modelled (HX111).
    """
    how = config.get(key)
    if not how:
        return None, []
    if not isinstance(how, Mapping):
        return None, [Finding("HX105", f"{key} must be a mapping, not {shown(how)}", None, (key,), of_key=True)]
    try:
        cache_key = next((name for name in _OF_A_CACHE if how.get(name)), "")
        return replace(_read(how), cache_key=cache_key), []
    except _Unknown as unknown:
        path = (key, *unknown.path)
        message = f"weights quantised {unknown.what}: not modelled ({dotted(path)})"
        hint = "plan the checkpoint that it was made of, or take the key out to plan in the model's dtype"
        return None, [Finding("HX111", message, hint, path, of_key=len(path) == 1)]


def _read(how: Mapping[str, Any]) -> Quantisation:
    method = how.get("quant_method")
    if method in (None, "modelopt") and "quant_algo" in how:
        return _modelopt(how)
    readers = {
        "fp8": _fp8,
        "gptq": _gptq,
        "awq": _awq,
        "mxfp4": _mxfp4,
        "compressed-tensors": _compressed,
    }
    if not isinstance(method, str) or method not in readers:
        said = f"by {shown(method)}" if "quant_method" in how else "without a quant_method"
        raise _Unknown(said, ("quant_method",) if "quant_method" in how else ())
    if how.get("modules_to_convert"):
        raise _Unknown("in a list of modules", ("modules_to_convert",))
    return readers[method](how)


def _names(how: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = how.get(key) or []
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise _Unknown(f"with {key} {shown(found)}", (key,))
    return tuple(found)


def _whole(how: Mapping[str, Any], key: str, *, among: Sequence[int] = ()) -> int:
    value = how.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or (value not in among if among else value < 1):
        raise _Unknown(f"with {key} {shown(value)}", (key,) if key in how else ())
    return value


def _group(how: Mapping[str, Any], key: str = "group_size") -> int | None:
    """The inputs of a group; None: all of an output's (-1)."""
    return None if how.get(key) == -1 else _whole(how, key)


def _fp8(how: Mapping[str, Any]) -> Quantisation:
    if (fmt := how.get("fmt", "e4m3")) not in ("e4m3", "float8_e4m3fn"):
        raise _Unknown(f"with fmt {shown(fmt)}", ("fmt",))
    block = how.get("weight_block_size")
    if how.get("activation_scheme", "dynamic") not in ("dynamic", "static"):
        raise _Unknown(f"with activation_scheme {shown(how['activation_scheme'])}", ("activation_scheme",))
    stored: dict[str, Any] = {"number": "float8", "scale": "float32", "activations": "float8"}
    if block is not None:
        if not isinstance(block, list) or len(block) != 2 or not all(type(n) is int and n > 0 for n in block):  # noqa: PLR2004
            raise _Unknown(f"with weight_block_size {shown(block)}", ("weight_block_size",))
        stored["block"] = block
    return Quantisation("fp8", ((None, Scheme("fp8", stored)),), _names(how, "modules_to_not_convert"))


def _gptq(how: Mapping[str, Any]) -> Quantisation:
    bits, group = _whole(how, "bits", among=(4, 8)), _group(how)
    if how.get("dynamic"):
        raise _Unknown("with bits that differ by module", ("dynamic",))
    if (form := how.get("checkpoint_format", "gptq")) not in ("gptq", "gptq_v2"):
        raise _Unknown(f"with checkpoint_format {shown(form)}", ("checkpoint_format",))
    # Zero points are always there, also where numbers are symmetric.
    stored = {"number": f"int{bits}", "block": [1, group], "scale": "float16", "zero_points": True}
    scheme = Scheme("gptq", stored, one_less=form == "gptq")
    return Quantisation(
        "gptq", ((None, scheme),), _names(how, "modules_to_not_convert"), heads=how.get("lm_head") is True
    )


def _awq(how: Mapping[str, Any]) -> Quantisation:
    if (version := str(how.get("version", "gemm")).lower()) != "gemm":
        raise _Unknown(f"with version {shown(version)}", ("version",))
    _whole(how, "w_bit" if "w_bit" in how else "bits", among=(4,))
    group = _group(how, "q_group_size" if "q_group_size" in how else "group_size")
    stored = {"number": "int4", "block": [1, group], "scale": "float16", "zero_points": True}
    return Quantisation("awq", ((None, Scheme("awq", stored)),), _names(how, "modules_to_not_convert"))


_MXFP4: Final = Scheme("mxfp4", {"number": "float4", "block": [1, 32], "scale": "exponent8"})
_NVFP4: Final = Scheme("nvfp4", {"number": "float4", "block": [1, 16], "scale": "float8", "tensor_scale": "float32"})
_FP8_OF_A_MATRIX: Final = {"number": "float8", "scale": "float32", "activations": "float8"}


def _mxfp4(how: Mapping[str, Any]) -> Quantisation:
    kept = _names(how, "modules_to_not_convert")
    return Quantisation("mxfp4", ((None, _MXFP4),), kept, experts_only=True)


def _compressed(how: Mapping[str, Any]) -> Quantisation:
    groups = how.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise _Unknown("without config_groups", ())
    schemes = tuple(
        (_targets(group, at), _of_weights(group, group.get("format") or how.get("format"), at))
        for at, group in _mappings(groups, ("config_groups",))
    )
    sparse = how.get("sparsity_config") or {}
    if not isinstance(sparse, Mapping) or sparse.get("format", "dense") != "dense":
        raise _Unknown("and sparse", ("sparsity_config",))
    return Quantisation("compressed-tensors", schemes, _names(how, "ignore"), heads=True)


def _mappings(groups: Mapping[str, Any], at: DocumentPath) -> Iterator[tuple[DocumentPath, Mapping[str, Any]]]:
    for name, group in groups.items():
        if not isinstance(group, Mapping) or not isinstance(group.get("weights"), Mapping):
            raise _Unknown("without saying how weights are", (*at, name))
        yield (*at, name), group


def _targets(group: Mapping[str, Any], at: DocumentPath) -> tuple[str, ...] | None:
    """The modules that a group is of; None: all linear ones."""
    targets = group.get("targets", ["Linear"])
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise _Unknown(f"with targets {shown(targets)}", (*at, "targets"))
    return None if "Linear" in targets else tuple(targets)


def _of_weights(group: Mapping[str, Any], form: object, at: DocumentPath) -> Scheme:
    weights = group["weights"]
    rounded = _of_activations(group, at)
    at = (*at, "weights")
    kind, bits = weights.get("type", "int"), weights.get("num_bits")
    strategy, size = weights.get("strategy"), weights.get("group_size")
    said = f"in {shown(kind)} of {shown(bits)} bits"
    if strategy is None:  # modelopt leaves it out
        strategy = "group" if size else "tensor"
    if kind == "float" and bits == 4:  # noqa: PLR2004
        scheme = {16: _NVFP4, 32: _MXFP4}.get(size if isinstance(size, int) else 0)
        if scheme is None or (scheme is _MXFP4 and weights.get("scale_dtype") not in ("torch.uint8", None)):
            raise _Unknown(f"{said} in groups of {shown(size)}", at)
        return Scheme("nvfp4-packed" if scheme is _NVFP4 else "mxfp4-packed", {**scheme.stored, **rounded})
    if (kind, bits) not in (("float", 8), ("int", 8), ("int", 4)):
        raise _Unknown(said, at)
    blocks: dict[str, Any] = {"tensor": [None, None], "channel": [1, None], "block": weights.get("block_structure")}
    blocks["group"] = [1, None if size == -1 else size]
    block = blocks.get(strategy) if isinstance(strategy, str) else None
    if not isinstance(block, list) or not all(n is None or (type(n) is int and n > 0) for n in block):
        raise _Unknown(f"{said} with strategy {shown(strategy)}", (*at, "strategy") if "strategy" in weights else at)
    number = "float8" if kind == "float" else f"int{bits}"
    packed = form == "pack-quantized"
    if number == "int4" and not packed:
        raise _Unknown(f"{said} with format {shown(form)}", at)
    zero_points = weights.get("symmetric") is False
    stored = {"number": number, "block": block, "scale": "bfloat16", "zero_points": zero_points, **rounded}
    return Scheme("packed" if packed else "plain", stored)


def _of_activations(group: Mapping[str, Any], at: DocumentPath) -> dict[str, str]:
    """The field ``activations``; empty where they stay in the model's dtype."""
    its = group.get("input_activations")
    if its is None:
        return {}
    kind = (its.get("type", "int"), its.get("num_bits")) if isinstance(its, Mapping) else None
    numbers = {("float", 8): "float8", ("int", 8): "int8", ("float", 4): "float4"}
    # One by one, as what stands in a config may have no hash.
    found = next((number for known, number in numbers.items() if known == kind), None)
    if found is None:
        raise _Unknown(f"with input_activations {shown(its)}", (*at, "input_activations"))
    return {"activations": found}


_BY_ALGORITHM: Final = {
    "FP8": Scheme("plain", _FP8_OF_A_MATRIX),
    "NVFP4": Scheme("nvfp4", {**_NVFP4.stored, "activations": "float4"}),
    "W4A16_NVFP4": _NVFP4,
    "MXFP8": Scheme("mxfp8", {"number": "float8", "block": [1, 32], "scale": "exponent8", "activations": "float8"}),
}


def _modelopt(how: Mapping[str, Any]) -> Quantisation:
    """NVIDIA's Model Optimizer: one algorithm for all modules, or one for each."""
    name = how["quant_algo"]
    kept = (*_names(how, "exclude_modules"), *_names(how, "ignore"))
    if name == "MIXED_PRECISION":
        return Quantisation(f"modelopt {name}", tuple(_of_layers(how)), kept, heads=True)
    return Quantisation(f"modelopt {name}", ((None, _algorithm(how, ())),), kept, heads=True)


def _of_layers(how: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Scheme]]:
    layers = how.get("quantized_layers")
    if not isinstance(layers, Mapping) or not layers:
        raise _Unknown("in mixed precision without quantized_layers", ())
    modules: dict[str, list[str]] = {}
    for module, its in layers.items():
        if not isinstance(its, Mapping):
            raise _Unknown(f"with {shown(its)}", ("quantized_layers", module))
        _algorithm(its, ("quantized_layers", module))
        modules.setdefault(its["quant_algo"], []).append(module)
    yield from ((tuple(names), _BY_ALGORITHM[name]) for name, names in modules.items())


def _algorithm(how: Mapping[str, Any], at: DocumentPath) -> Scheme:
    name, size = how.get("quant_algo"), how.get("group_size")
    if not isinstance(name, str) or name not in _BY_ALGORITHM:
        raise _Unknown(f"by {shown(name)}", (*at, "quant_algo"))
    scheme = _BY_ALGORITHM[name]
    if size not in (None, scheme.block[1]):
        raise _Unknown(f"by {name} in groups of {shown(size)}", (*at, "group_size"))
    return scheme
