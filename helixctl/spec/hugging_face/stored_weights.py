"""From a quantisation, which speaks of modules, to how the matrices of a model document are stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from helixctl.spec.hugging_face.families import pattern_of
from helixctl.spec.hugging_face.quantised import Quantised, Scheme
from helixctl.spec.model import MAIN

# The modules of transformers that have each matrix; of several names the first that the quantisation says anything of.
_ATTENTION: Final = {
    "w_q": ("self_attn.q_proj", "self_attn.qkv_proj"),
    "w_k": ("self_attn.k_proj", "self_attn.qkv_proj"),
    "w_v": ("self_attn.v_proj", "self_attn.qkv_proj"),
    "w_o": ("self_attn.o_proj",),
}
_LATENT: Final = {
    "w_q_down": ("self_attn.q_a_proj",),
    "w_q": ("self_attn.q_b_proj", "self_attn.q_proj"),
    "w_kv_down": ("self_attn.kv_a_proj_with_mqa",),
    "w_k_rope": ("self_attn.kv_a_proj_with_mqa",),
    "w_k": ("self_attn.kv_b_proj",),
    "w_v": ("self_attn.kv_b_proj",),
    "w_o": ("self_attn.o_proj",),
}
# Of an indexer; what it weighs heads with is never quantised.
_INDEXER: Final = {"w_index_q": ("self_attn.indexer.wq_b",), "w_index_k": ("self_attn.indexer.wk",)}
_NETWORK: Final = {
    "w_gate": ("mlp.gate_proj", "mlp.gate_up_proj", "feed_forward.gate_proj"),
    "w_up": ("mlp.up_proj", "mlp.gate_up_proj", "mlp.c_fc", "feed_forward.up_proj"),
    "w_down": ("mlp.down_proj", "mlp.c_proj", "feed_forward.down_proj"),
}
_EXPERTS: Final = {
    name: (
        f"mlp.experts.0.{own}_proj",
        f"block_sparse_moe.experts.0.{w}",
        f"mlp.experts.{merged}_proj",
        f"feed_forward.experts.0.{own}_proj",
        f"feed_forward.experts.{merged}_proj",
    )
    for name, own, w, merged in (
        ("w_gate", "gate", "w1", "gate_up"),
        ("w_up", "up", "w3", "gate_up"),
        ("w_down", "down", "w2", "down"),
    )
}
_SHARED: Final = {
    f"w_shared_{name}": (
        f"mlp.shared_experts.{name}_proj",
        f"mlp.shared_expert.{name}_proj",
        f"feed_forward.shared_expert.{name}_proj",
    )
    for name in ("gate", "up", "down")
}
Stored = tuple[tuple[str, Scheme], ...]  # the matrices of a layer that are quantised


def stored_fields(data: Mapping[str, Any], quantisation: Quantised) -> dict[str, Any]:
    """The fields ``stored``, ``blocks`` and ``pattern`` of a model document, as far as a quantisation changes them.

    Layers that differ in how they are stored, and in nothing else, become blocks of their own.

    Args:
        data: of the document, without them.
        quantisation: of the checkpoint.
    """
    blocks = {MAIN: {"name": MAIN}} | {block["name"]: block for block in data.get("blocks") or ()}
    pattern = data.get("pattern") or [MAIN]
    kinds: dict[tuple[str, Stored], str] = {}
    names: list[str] = []
    for layer in range(data["layers"]):
        block = blocks[pattern[layer % len(pattern)]]
        key = block["name"], tuple(_of_layer(data, block, quantisation, layer))
        if key not in kinds:
            others = sum(kind == block["name"] for kind, _ in kinds)
            kinds[key] = block["name"] if not others else f"{block['name']}_stored_{others + 1}"
        names.append(kinds[key])
    # The model's own is that of its main block; where no layer is of it, that of the first.
    main = next((stored for (_, stored), name in kinds.items() if name == MAIN), next(iter(kinds))[1])
    ends = [("embedding", quantisation.scheme("model.embed_tokens"))]
    ends += [] if data["vocabulary"].get("tied") else [("w_head", quantisation.scheme("lm_head"))]
    found: dict[str, Any] = {}
    if stored := _specs((*main, *[(name, scheme) for name, scheme in ends if scheme])):
        found["stored"] = stored
    if len(kinds) > 1:
        found["pattern"] = pattern_of(names)
        found["blocks"] = [
            {**blocks[kind], "name": name, **({} if stored == main else {"stored": _specs(stored)})}
            for (kind, stored), name in kinds.items()
            if name != MAIN
        ]
    return found


def _of_layer(
    data: Mapping[str, Any], block: Mapping[str, Any], quantisation: Quantised, layer: int
) -> Iterator[tuple[str, Scheme]]:
    attention, network = (block.get(part) or data[part] for part in ("attention", "feed_forward"))
    modules = dict(_ATTENTION)
    if latent := attention.get("latent"):
        modules = {name: its for name, its in _LATENT.items() if name != "w_q_down" or latent.get("q_rank")}
    if attention.get("sparse"):
        modules |= _INDEXER
    experts = network.get("experts")
    modules |= _EXPERTS if experts else _NETWORK
    if experts and experts.get("shared"):
        modules |= _SHARED
    for name, candidates in modules.items():
        if name.endswith("gate") and not network.get("gated"):
            continue
        if scheme := _scheme(quantisation, [f"model.layers.{layer}.{module}" for module in candidates]):
            yield name, scheme


def _scheme(quantisation: Quantised, modules: list[str]) -> Scheme | None:
    """That of the first module, unless what is kept has one of the other names of it."""
    found = [quantisation.scheme(module) for module in modules]
    return None if None in found and not quantisation.named else next(filter(None, found), None)


def _specs(stored: Stored) -> list[dict[str, Any]]:
    """A ``StoredSpec`` for all matrices that are stored alike."""
    alike: dict[str, tuple[Scheme, list[str]]] = {}
    for name, scheme in stored:
        alike.setdefault(repr(scheme.stored), (scheme, []))[1].append(name)
    return [{"weights": names, **scheme.stored} for scheme, names in alike.values()]
