"""Buffers: where each value of a rank lies in memory, laid out so that what is gathered needs no copy.

A gather puts the ranks' pieces one after the other, so the gathered dim becomes the outermost axis of memory whatever
its place in the tensor. A buffer therefore says which parts of which dims its axes are, from major to minor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of memory: the ``part``-th factor of a dim (0 is the most significant) and its size."""

    dim: str
    part: int
    size: int


@dataclass(frozen=True, slots=True)
class Buffer:
    """Numbers with their axes; ``data.shape`` is the sizes of ``axes``."""

    data: torch.Tensor
    axes: tuple[Axis, ...]

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

    def matrix(self, columns: Sequence[str]) -> tuple[torch.Tensor, tuple[Axis, ...]]:
        """A (rows, columns) matrix whose columns are these dims, in the order in which their axes lie in memory.

        Returns:
            The matrix, a view, and the axes that its columns run over.

        Raises:
            ValueError: the axes do not merge into a matrix without a copy.
        """
        inner = tuple(a for a in self.axes if a.dim in columns)
        outer = tuple(a for a in self.axes if a.dim not in columns)
        data = self.in_order((*outer, *inner))
        shape = (prod(a.size for a in outer), prod(a.size for a in inner))
        view = data.reshape(shape)
        if view.data_ptr() != data.data_ptr():
            msg = f"axes {self.axes} do not merge into a matrix with columns {columns}"
            raise ValueError(msg)
        return view, inner


def gathered(piece: Buffer, dim: str, ranks: int, memory: torch.Tensor) -> Buffer:
    """The buffer that a gather of ``ranks`` such pieces along ``dim`` fills in ``memory``."""
    deeper = tuple(Axis(a.dim, a.part + 1, a.size) if a.dim == dim else a for a in piece.axes)
    axes = (Axis(dim, 0, ranks), *deeper)
    return Buffer(memory.view([a.size for a in axes]), axes)


def refined(a: Buffer, b: Buffer) -> dict[str, tuple[int, ...]]:
    """The factors of every dim that fit both buffers, where at most one of them has cut it."""
    left, right = a.factors(), b.factors()
    return {dim: max(left[dim], right[dim], key=len) for dim in left}
