"""The names of a mixture's weights in the checkpoints of transformers, and how each is stored there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import prod
from typing import Final

from helixctl_runtime.tensors.stored_tensor import StoredTensor

Axes = tuple[tuple[str, ...], ...]

_BIASES: Final = {"b_gate": "w_gate", "b_up": "w_up", "b_down": "w_down"}
_SHARED: Final = ("mlp.shared_expert.", "mlp.shared_experts.", "feed_forward.shared_expert.", "mlp.")
_SCORE: Final = "mlp.shared_expert_gate.weight"
_GATE_SCALES: Final = "router.per_expert_scale"
_CHOICE_BIASES: Final = (
    "mlp.gate.e_score_correction_bias",
    "mlp.moe_statics.e_score_correction_bias",
    "block_sparse_moe.e_score_correction_bias",
    "mlp.expert_bias",
)
_WITH_A_ROW: Final = _CHOICE_BIASES[1]  # (1, experts)


@dataclass(frozen=True, slots=True)
class _Spelling:
    """The names of a layer's experts; ``{}`` is the number of the expert if each has its own matrices.

    Attributes:
        mark: the tensor that tells the spelling.
        router: the router's matrix; its bias has ``bias`` for ``weight``.
        gate, up, down: the matrices of experts. Where gate and up have one name one tensor has both, gate first.
        turned: stored (in, out), not (out, in).
        in_turn: columns of gate and up stand in turn.
    """

    mark: str
    router: str
    gate: str
    up: str
    down: str
    turned: bool = False
    in_turn: bool = False


_SPELLINGS: Final = (
    _Spelling(
        "mlp.router.gate.weight",
        "mlp.router.gate.weight",
        "mlp.experts.{}.gate_proj.weight",
        "mlp.experts.{}.up_proj.weight",
        "mlp.experts.{}.down_proj.weight",
    ),
    _Spelling(
        "mlp.experts.0.down_proj.weight",
        "mlp.gate.weight",
        "mlp.experts.{}.gate_proj.weight",
        "mlp.experts.{}.up_proj.weight",
        "mlp.experts.{}.down_proj.weight",
    ),
    _Spelling(
        "block_sparse_moe.experts.0.w2.weight",
        "block_sparse_moe.gate.weight",
        "block_sparse_moe.experts.{}.w1.weight",
        "block_sparse_moe.experts.{}.w3.weight",
        "block_sparse_moe.experts.{}.w2.weight",
    ),
    _Spelling(
        "block_sparse_moe.output_linear.weight",
        "block_sparse_moe.router.layer.weight",
        "block_sparse_moe.input_linear.weight",
        "block_sparse_moe.input_linear.weight",
        "block_sparse_moe.output_linear.weight",
    ),
    _Spelling(
        "mlp.experts.down_proj_bias",
        "mlp.router.weight",
        "mlp.experts.gate_up_proj",
        "mlp.experts.gate_up_proj",
        "mlp.experts.down_proj",
        turned=True,
        in_turn=True,
    ),
    _Spelling(
        "feed_forward.experts.down_proj",
        "feed_forward.router.weight",
        "feed_forward.experts.gate_up_proj",
        "feed_forward.experts.gate_up_proj",
        "feed_forward.experts.down_proj",
        turned=True,
    ),
    _Spelling(
        "experts.down_proj",
        "router.proj.weight",
        "experts.gate_up_proj",
        "experts.gate_up_proj",
        "experts.down_proj",
    ),
    # The names of most mixtures inside transformers 5.
    _Spelling(
        "mlp.experts.down_proj",
        "mlp.gate.weight",
        "mlp.experts.gate_up_proj",
        "mlp.experts.gate_up_proj",
        "mlp.experts.down_proj",
    ),
)


class ExpertNames:
    """The weights of mixtures under one prefix."""

    def __init__(self, names: Collection[str], prefix: str) -> None:
        """Find the spelling; ``prefix`` is ahead of ``layers.0.``, and any layer may be the first with experts."""
        begin = f"{prefix}layers."
        within = {name.removeprefix(begin).partition(".")[2] for name in names if name.startswith(begin)}
        self._spelling = next((s for s in _SPELLINGS if s.mark in within), _SPELLINGS[0])
        present = {name.rpartition(".")[0].rpartition(".")[0] + "." for name in within}
        self._shared = next((folder for folder in _SHARED if folder in present), _SHARED[0])
        self._choice_bias = next((name for name in _CHOICE_BIASES if name in within), _CHOICE_BIASES[0])

    def stored(  # noqa: PLR0911  one a kind
        self, folder: str, part: str, size: dict[str, int]
    ) -> StoredTensor | None:
        """How a weight of a mixture is stored; None: it is of none.

        Args:
            folder: the name of its layer, ``model.layers.0.``.
            part: its name in the layer.
            size: of its dims.
        """
        if part in {"w_router", "b_router"}:
            name = self._spelling.router
            if part == "w_router":
                return _whole(folder + name, (("expert",), ("hidden",)), size)
            return _whole(folder + name.replace("weight", "bias"), (("expert",),), size)
        if part == "b_choice":
            row: Axes = ((),) if self._choice_bias == _WITH_A_ROW else ()
            return _whole(folder + self._choice_bias, (*row, ("expert",)), size)
        if part == "w_gate_scales":
            return _whole(folder + _GATE_SCALES, (("expert",),), size)
        if part == "w_shared_score":
            return _whole(folder + _SCORE, ((), ("hidden",)), size)
        if part.startswith("w_shared_"):
            name, ends = part.removeprefix("w_shared_"), (("hidden",), ("shared_ffn",))
            axes = ends if name == "down" else ends[::-1]
            return _whole(f"{folder}{self._shared}{name}_proj.weight", axes, size)
        if "expert" not in size:
            return None
        return self._of_experts(folder, part, size)

    def _of_experts(self, folder: str, part: str, size: dict[str, int]) -> StoredTensor:
        spelling, weight = self._spelling, _BIASES.get(part, part)
        name = {"w_gate": spelling.gate, "w_up": spelling.up, "w_down": spelling.down}[weight]
        made, read = ("hidden", "ffn") if weight == "w_down" else ("ffn", "hidden")
        if part in _BIASES:
            axes: Axes = ((made,),)
            name = name.replace("weight", "bias") if name.endswith("weight") else name + "_bias"
        else:
            axes = ((read,), (made,)) if spelling.turned else ((made,), (read,))
        if "{}" in name:
            names = tuple(folder + name.format(expert) for expert in range(size["expert"]))
            shape = tuple(prod(size[dim] for dim in axis) for axis in axes)
            return StoredTensor(names, axes, shape, (0,) * len(axes), "expert")
        stored = _whole(folder + name, (("expert",), *axes), size)
        if spelling.gate != spelling.up or weight == "w_down":
            return stored
        place, second = stored.axes.index(("ffn",)), weight == "w_up"
        width = stored.shape[place]
        shape = (*stored.shape[:place], 2 * width, *stored.shape[place + 1 :])
        first = int(second) if spelling.in_turn else width * second
        start = tuple(first if axis == place else 0 for axis in range(len(shape)))
        steps = tuple(2 if axis == place and spelling.in_turn else 1 for axis in range(len(shape)))
        return StoredTensor(stored.names, stored.axes, shape, start, steps=steps)


def _whole(name: str, axes: Axes, size: dict[str, int]) -> StoredTensor:
    """A weight that has a stored tensor of its own."""
    shape = tuple(prod(size[dim] for dim in axis) for axis in axes)
    return StoredTensor((name,), axes, shape, (0,) * len(axes))
