"""Buffers: numbers with their axes, and the views that kernels need of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch

from helixctl_runtime.axes import Axes, Axis

Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Buffer:
    """Numbers with their axes; ``data.shape`` is the sizes of ``axes``."""

    data: torch.Tensor
    axes: Axes

    @classmethod
    def plain(cls, data: torch.Tensor, dims: Sequence[str]) -> Buffer:
        """A buffer with one axis per dim."""
        return cls(data, tuple(Axis(d, 0, n) for d, n in zip(dims, data.shape, strict=True)))

    def parts(self, dim: str) -> tuple[Axis, ...]:
        """The factors of a dim, most significant first."""
        return tuple(sorted((a for a in self.axes if a.dim == dim), key=lambda a: a.part))

    def in_order(self, axes: Sequence[Axis]) -> torch.Tensor:
        """The numbers with their axes in this order; always a view."""
        return self.data.permute([self.axes.index(a) for a in axes])

    def split(self, factors: dict[str, tuple[int, ...]]) -> Buffer:
        """The same memory, with each dim's single axis cut in these factors (dims already cut so stay)."""
        data, axes = self.data, []
        for axis in self.axes:
            sizes = factors.get(axis.dim, (axis.size,))
            if len(self.parts(axis.dim)) > 1 or len(sizes) == 1:
                axes.append(axis)
                continue
            data = data.unflatten(len(axes), sizes)
            axes += [Axis(axis.dim, part, size) for part, size in enumerate(sizes)]
        return Buffer(data, tuple(axes))

    def factors(self) -> dict[str, tuple[int, ...]]:
        """The sizes of the parts of every dim."""
        return {a.dim: tuple(p.size for p in self.parts(a.dim)) for a in self.axes}

    def matrix(self, columns: Sequence[str], dims: Sequence[str]) -> tuple[torch.Tensor, Axes]:
        """A (rows, columns) matrix of a tensor with these dims: the columns in the order in which they lie in memory.

        The rows run over the other dims in the tensor's order.

        Returns:
            The matrix, a view, and the axes that its columns run over.

        Raises:
            ValueError: the axes do not merge into a matrix without a copy.
        """
        inner = tuple(a for a in self.axes if a.dim in columns)
        outer = tuple(a for d in dims if d not in columns for a in self.parts(d))
        data = self.in_order((*outer, *inner))
        shape = (prod(a.size for a in outer), prod(a.size for a in inner))
        view = data.reshape(shape)
        if view.data_ptr() != data.data_ptr():
            msg = f"axes {self.axes} do not merge into a matrix with columns {columns}"
            raise ValueError(msg)
        return view, inner


def refined(a: Buffer, b: Buffer) -> dict[str, tuple[int, ...]] | None:
    """The factors of every dim that fit both buffers; None where both have cut a dim, each in its own way."""
    left, right = a.factors(), b.factors()
    if any(min(len(left[d]), len(right[d])) > 1 and left[d] != right[d] for d in left):
        return None
    return {dim: max(left[dim], right[dim], key=len) for dim in left}


def in_turn(data: torch.Tensor, axis: int, sizes: Sequence[int], flat: torch.Tensor) -> list[Pair]:
    """Parts of ``data`` along an axis, each beside the place in ``flat`` memory where the parts lie in turn.

    As few pairs as can be: one where the parts are alike, or where they lie in turn in ``data`` as well.
    """
    if lies_in_turn(data, axis):
        return [(data, flat.view(data.shape))]
    if len(set(sizes)) == 1:
        parts = data.unflatten(axis, (len(sizes), -1)).movedim(axis, 0)
        return [(parts, flat.view(parts.shape))]
    cut = data.split(list(sizes), axis)
    places = flat.split([part.numel() for part in cut])
    return [(part, place.view(part.shape)) for part, place in zip(cut, places, strict=True)]


def lies_in_turn(data: torch.Tensor, axis: int) -> bool:
    """Whether parts along an axis follow each other in the order of the numbers: no other axis is further out."""
    return prod(data.shape[:axis]) == 1
