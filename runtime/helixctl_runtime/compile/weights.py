"""Weights in the forms that a program's kernels take."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from helixctl import program
from helixctl.dag import Dag
from helixctl.program.axes import Axes, Axis
from helixctl_runtime.compile.bound import Load


class LoadedWeights:
    """The weights of one rank, each loaded when it is first asked for."""

    def __init__(
        self, dag: Dag, made: program.Program, load: Load, shared: Mapping[program.Weights, torch.Tensor] | None = None
    ) -> None:
        """Load nothing yet; ``shared`` are weights that are there already."""
        self._dag, self._load = dag, load
        self._program = made
        self._loaded: dict[program.Weights, torch.Tensor] = dict(shared or {})

    @property
    def nbytes(self) -> int:
        """Bytes that were allocated, of views of one memory once."""
        return sum(storage.nbytes() for storage in {tensor.untyped_storage() for tensor in self._loaded.values()})

    @property
    def loaded(self) -> Mapping[program.Weights, torch.Tensor]:
        """The weights so far, by form."""
        return self._loaded

    def raw(self, weights: program.Weights) -> torch.Tensor:
        """A weight as it is loaded."""
        key = program.Weights(weights.values)
        if key not in self._loaded:
            self._loaded[key] = self._load(self._dag.value[weights.values[0]])
        return self._loaded[key]

    def in_order(self, weights: program.Weights) -> torch.Tensor:
        """A weight as it is loaded, with its axes in the order that the kernel wants."""
        return _in_order(self.raw(weights), self._dims(weights.values[0]), weights.leading)

    def matrix(self, weights: program.Weights) -> torch.Tensor:
        """Weights side by side, (K, N)."""
        if weights not in self._loaded:
            shared = self._program.weights[weights] == 0
            parts = [self._matrix(v, weights.leading, shared=shared) for v in weights.values]
            whole = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
            self._loaded[weights] = whole if shared else whole.contiguous()
        return self._loaded[weights]

    def _matrix(self, value_id: str, rows: Axes, *, shared: bool) -> torch.Tensor:
        loaded = self.raw(program.Weights((value_id,))) if shared else self._load(self._dag.value[value_id])
        return _in_order(loaded, self._dims(value_id), rows).reshape(prod(a.size for a in rows), -1)

    def _dims(self, value_id: str) -> tuple[str, ...]:
        return self._dag.tensor[self._dag.value[value_id].tensor].dims


def _in_order(weight: torch.Tensor, dims: tuple[str, ...], leading: Axes) -> torch.Tensor:
    """A view of a weight with some axes first, each a dim or a factor of one, and the other dims behind them."""
    axes = list[Axis]()
    for dim, size in zip(dims, weight.shape, strict=True):
        axes += sorted((a for a in leading if a.dim == dim), key=lambda a: a.part) or [Axis(dim, 0, size)]
    others = [i for i, axis in enumerate(axes) if axis not in leading]
    data = weight
    for place, axis in enumerate(axes):
        if axis.part == 0:
            sizes = [a.size for a in axes[place:] if a.dim == axis.dim]
            data = data.unflatten(place, sizes)
    return data.permute(*[axes.index(axis) for axis in leading], *others)
