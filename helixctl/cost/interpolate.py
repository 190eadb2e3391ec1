"""Between the points of a measured table: by the logarithm of the sizes, as they span many powers of two."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import product
from math import exp, log, log2, prod


def multilinear(grid: Sequence[Sequence[int]], rates: Sequence[float], point: Sequence[float]) -> float:
    """A rate between the points of a grid, its logarithm linear in that of every size; beyond the grid its nearest end.

    By logarithms, for a rate that grows as a power of a size is then exact: where memory decides, twice the rows have
    twice the rate.

    Args:
        grid: ascending sizes of every axis, outermost first.
        rates: one for every point of the grid, each above 0, the last axis fastest.
        point: a size on every axis.
    """
    places = [_place(axis, size) for axis, size in zip(grid, point, strict=True)]
    strides = [prod(len(axis) for axis in grid[i + 1 :]) for i in range(len(grid))]
    total = 0.0
    for corner in product((0, 1), repeat=len(grid)):
        weight = prod(share if upper else 1 - share for (_, share), upper in zip(places, corner, strict=True))
        if weight:
            at = sum((place + up) * s for (place, _), up, s in zip(places, corner, strides, strict=True))
            total += weight * log(rates[at])
    return exp(total)


def covers(grid: Sequence[Sequence[int]], point: Sequence[float]) -> bool:
    """Whether a point lies inside a grid."""
    return all(axis[0] <= size <= axis[-1] for axis, size in zip(grid, point, strict=True))


def seconds_of_size(sizes: Sequence[int], seconds: Sequence[float], nbytes: float) -> float:
    """The time that a number of bytes takes, from times of ascending sizes.

    Between two sizes log-log; below the smallest its time, which is latency; beyond the largest at the bandwidth that
    the largest reached.
    """
    if nbytes <= sizes[0]:
        return seconds[0]
    if nbytes >= sizes[-1]:
        return seconds[-1] * nbytes / sizes[-1]
    i = bisect_right(sizes, nbytes) - 1
    share = log(nbytes / sizes[i]) / log(sizes[i + 1] / sizes[i])
    return exp((1 - share) * log(seconds[i]) + share * log(seconds[i + 1]))


def _place(axis: Sequence[int], size: float) -> tuple[int, float]:
    """The point of an axis at or below a size, and how far it is on the way to the next, 0 to 1."""
    if size <= axis[0]:
        return 0, 0.0
    if size >= axis[-1]:
        return len(axis) - 1, 0.0
    i = bisect_right(axis, size) - 1
    return i, log2(size / axis[i]) / log2(axis[i + 1] / axis[i])
