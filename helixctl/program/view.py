"""Views: which elements of a block of memory are meant, and in which order. Strides are counted in elements."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

from helixctl.program.axes import Axes, Axis


class View(NamedTuple):
    """Elements of a block: where they begin, and size and stride of every axis from major to minor.

    Attributes:
        block: the number of the block in the program.
        dtype: of the elements.
        start: the place of the first element.
        sizes, strides: of the axes.
    """

    block: int
    dtype: str
    start: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def numel(self) -> int:
        """How many elements."""
        return prod(self.sizes)

    @property
    def contiguous(self) -> bool:
        """Whether the elements follow each other in memory in the order of the axes."""
        expected = 1
        for size, stride in zip(reversed(self.sizes), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True

    def flat(self) -> View:
        """A contiguous view as one axis."""
        return self.shaped((self.numel,))

    def shaped(self, sizes: tuple[int, ...]) -> View:
        """A contiguous view with other axes of as many elements, or of fewer: those at the front."""
        return View(self.block, self.dtype, self.start, sizes, row_major(sizes))

    def permuted(self, order: Sequence[int]) -> View:
        """The same elements with their axes in this order."""
        sizes, strides = tuple([self.sizes[i] for i in order]), tuple([self.strides[i] for i in order])
        return View(self.block, self.dtype, self.start, sizes, strides)

    def unflattened(self, axis: int, sizes: Sequence[int]) -> View:
        """One axis cut in several, the most significant first."""
        stride = self.strides[axis]
        finer = tuple([stride * n for n in row_major(tuple(sizes))])
        cut = (*self.sizes[:axis], *sizes, *self.sizes[axis + 1 :])
        return View(self.block, self.dtype, self.start, cut, (*self.strides[:axis], *finer, *self.strides[axis + 1 :]))

    def parts(self, axis: int, sizes: Sequence[int]) -> list[View]:
        """Parts along an axis, of these sizes."""
        found, start = [], self.start
        for size in sizes:
            sizes_of_part = (*self.sizes[:axis], size, *self.sizes[axis + 1 :])
            found.append(View(self.block, self.dtype, start, sizes_of_part, self.strides))
            start += size * self.strides[axis]
        return found

    def merged(self, first: int) -> View | None:
        """A matrix whose rows run over the first axes and its columns over the others; None where these have holes."""
        rows, columns = (
            _merged(self.sizes[part], self.strides[part]) for part in (slice(None, first), slice(first, None))
        )
        if rows is None or columns is None:
            return None
        return self._replace(sizes=(rows[0], columns[0]), strides=(rows[1], columns[1]))


@lru_cache(maxsize=1024)
def row_major(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of axes that lie one inside the other without holes."""
    strides, step = [], 1
    for size in reversed(sizes):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def _merged(sizes: Sequence[int], strides: Sequence[int]) -> tuple[int, int] | None:
    """Size and stride of several axes as one."""
    total, outer = 1, 0
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if size == 1:
            continue
        if total == 1:
            outer = stride
        elif stride != total * outer:
            return None
        total *= size
    return total, outer or 1


class Buffer(NamedTuple):
    """A view, and which part of which dim each of its axes is."""

    view: View
    axes: Axes

    def parts(self, dim: str) -> tuple[Axis, ...]:
        """The factors of a dim, most significant first."""
        return tuple(sorted([a for a in self.axes if a.dim == dim], key=lambda a: a.part))

    def in_order(self, axes: Sequence[Axis]) -> View:
        """The elements with their axes in this order."""
        return self.view.permuted([self.axes.index(a) for a in axes])

    def split(self, factors: dict[str, tuple[int, ...]]) -> Buffer:
        """The same elements, with each dim's single axis cut in these factors (dims already cut so stay)."""
        if not any(len(sizes) > 1 for sizes in factors.values()):
            return self
        view, axes = self.view, list[Axis]()
        for axis in self.axes:
            sizes = factors.get(axis.dim, (axis.size,))
            if len(sizes) == 1 or len(self.parts(axis.dim)) > 1:
                axes.append(axis)
                continue
            view = view.unflattened(len(axes), sizes)
            axes += [Axis(axis.dim, part, size) for part, size in enumerate(sizes)]
        return Buffer(view, tuple(axes))

    def factors(self) -> dict[str, tuple[int, ...]]:
        """The sizes of the parts of every dim."""
        return {a.dim: tuple([p.size for p in self.parts(a.dim)]) for a in self.axes}

    def matrix(self, columns: Sequence[str], dims: Sequence[str]) -> tuple[View, Axes] | None:
        """A (rows, columns) matrix of a tensor with these dims: the columns in the order in which they lie in memory.

        The rows run over the other dims in the tensor's order.

        Returns:
            The matrix and the axes that its columns run over; None where that takes a copy.
        """
        inner = tuple([a for a in self.axes if a.dim in columns])
        outer = [a for d in dims if d not in columns for a in self.parts(d)]
        view = self.in_order((*outer, *inner)).merged(len(outer))
        return None if view is None else (view, inner)


def refined(a: Buffer, b: Buffer) -> dict[str, tuple[int, ...]] | None:
    """The factors of every dim that fit both buffers; None where both have cut a dim, each in its own way."""
    left, right = a.factors(), b.factors()
    if any(min(len(left[d]), len(right[d])) > 1 and left[d] != right[d] for d in left):
        return None
    return {dim: max(left[dim], right[dim], key=len) for dim in left}


def in_turn(view: View, axis: int, sizes: Sequence[int], flat: View) -> list[tuple[View, View]]:
    """Parts of a view along an axis, each beside the place in ``flat`` memory where the parts lie in turn.

    As few pairs as can be: one where the parts are alike, or where they lie in turn in the view as well.
    """
    if lies_in_turn(view, axis):
        return [(view, flat.shaped(view.sizes))]
    if len(set(sizes)) == 1:
        cut = view.unflattened(axis, (len(sizes), sizes[0]))
        order = [axis, *[i for i in range(len(cut.sizes)) if i != axis]]
        parts = cut.permuted(order)
        return [(parts, flat.shaped(parts.sizes))]
    cuts = view.parts(axis, sizes)
    places = flat.parts(0, [part.numel for part in cuts])
    return [(part, place.shaped(part.sizes)) for part, place in zip(cuts, places, strict=True)]


def lies_in_turn(view: View, axis: int) -> bool:
    """Whether parts along an axis follow each other in the order of the numbers: no other axis is further out."""
    return prod(view.sizes[:axis]) == 1
