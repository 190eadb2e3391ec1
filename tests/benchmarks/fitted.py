"""A table of rates that meets measured points which do not lie on its grid. Needs numpy (the extra `tables`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import exp, log, prod
from typing import Any, Final

ROUNDS: Final = 12
LEAST_ERROR: Final = 0.1  # of a logarithm; below it the squares count
BENT: Final = 0.3  # what a bend between neighbours costs, in points that are as far off
TILTED: Final = 0.01  # and a difference, which decides where nothing was measured
TOO_STEEP: Final = 1e4  # what a difference costs beyond the most that it may be


def fitted(
    grid: Sequence[Sequence[int]],
    measured: Mapping[tuple[float, ...], Sequence[float]],
    most: Sequence[Sequence[float]] | None = None,
) -> list[float]:
    """The rates of a grid, between which those measured lie (``helixctl.cost.interpolate.multilinear``).

    The sum of the absolute errors of the logarithms is the least, as a median's is: of kernels that were tuned for some
    shapes alone the others are far off. Where nothing was measured a rate goes on as its neighbours do.

    Args:
        grid: ascending sizes of every axis.
        measured: rates at a point.
        most: how many times as great, at most, a rate may be at the next size of an axis, for every size but the last.
            None: any times.

    Returns:
        A rate for every point of the grid, the last axis fastest; none is greater than all that were measured.
    """
    import numpy as np

    points = [(point, rate) for point, rates in measured.items() for rate in rates]
    corners = [_corners(grid, point) for point, _ in points]
    at = np.array([[index for index, _ in its] for its in corners])
    shares = np.array([[share for _, share in its] for its in corners])
    wanted = np.array([log(rate) for _, rate in points])
    middle = float(np.median(wanted))
    stiff, weight, found = _stiffness(grid), np.ones(len(points)), np.zeros(prod(map(len, grid)))
    lower, upper, bound = _bounds(grid, most)
    for _ in range(ROUNDS):
        matrix, right = stiff.copy(), np.zeros(len(found))
        steep = found[upper] - found[lower] > bound
        for one, sign in ((upper[steep], 1.0), (lower[steep], -1.0)):
            np.add.at(matrix, (one, upper[steep]), sign * TOO_STEEP)
            np.add.at(matrix, (one, lower[steep]), -sign * TOO_STEEP)
            np.add.at(right, one, sign * TOO_STEEP * bound[steep])
        np.add.at(
            matrix, (at[:, :, None], at[:, None, :]), weight[:, None, None] * shares[:, :, None] * shares[:, None, :]
        )
        np.add.at(right, at, (weight * (wanted - middle))[:, None] * shares)
        found = np.linalg.solve(matrix, right)
        weight = 1 / np.maximum(LEAST_ERROR, abs((found[at] * shares).sum(axis=1) + middle - wanted))
        weight /= weight.mean()
    rates = [exp(min(value, max(wanted) - middle) + middle) for value in found]
    return bounded(grid, rates, most) if most else rates


def bounded(grid: Sequence[Sequence[int]], rates: Sequence[float], most: Sequence[Sequence[float]]) -> list[float]:
    """The greatest rates below those given that grow by no more than ``most``; see ``fitted``."""
    import numpy as np

    found = np.array(rates).reshape([len(axis) for axis in grid])
    for which, factors in enumerate(most):
        line = np.moveaxis(found, which, 0)
        for i, factor in enumerate(factors):
            line[i + 1] = np.minimum(line[i + 1], line[i] * factor)
    return [float(rate) for rate in found.ravel()]


def _bounds(grid: Sequence[Sequence[int]], most: Sequence[Sequence[float]] | None) -> tuple[Any, Any, Any]:
    """Neighbours on every axis, the lower and the upper, and the most by which the logarithm may grow between them."""
    import numpy as np

    numbers = np.arange(prod(map(len, grid))).reshape([len(axis) for axis in grid])
    lower, upper, bound = [np.zeros(0, int)], [np.zeros(0, int)], [np.zeros(0)]
    for which, factors in enumerate(most or ()):
        line = np.moveaxis(numbers, which, -1)
        lower.append(line[..., :-1].ravel())
        upper.append(line[..., 1:].ravel())
        bound.append(np.broadcast_to(np.log(factors), line[..., 1:].shape).ravel())
    return np.concatenate(lower), np.concatenate(upper), np.concatenate(bound)


def _corners(grid: Sequence[Sequence[int]], point: Sequence[float]) -> list[tuple[int, float]]:
    """The points of the grid around a point, and the share that each has in its rate."""
    places = [_place(axis, size) for axis, size in zip(grid, point, strict=True)]
    found = []
    for uppers in product((0, 1), repeat=len(grid)):
        index, share = 0, 1.0
        for axis, (place, part), upper in zip(grid, places, uppers, strict=True):
            index = index * len(axis) + place + upper
            share *= part if upper else 1 - part
        found.append((index, share))
    return found


def _place(axis: Sequence[int], size: float) -> tuple[int, float]:
    """As ``multilinear`` has it, with a point above in every case."""
    size = min(max(size, axis[0]), axis[-1])
    i = max(j for j in range(len(axis) - 1) if axis[j] <= size)
    return i, log(size / axis[i]) / log(axis[i + 1] / axis[i])


def _stiffness(grid: Sequence[Sequence[int]]) -> Any:
    """The squares of bends and of differences along every axis, as a matrix."""
    import numpy as np

    count = prod(map(len, grid))
    matrix, numbers = np.zeros((count, count)), np.arange(count).reshape([len(axis) for axis in grid])
    for which, axis in enumerate(grid):
        sizes = [log(size) for size in axis]
        for line in np.moveaxis(numbers, which, -1).reshape(-1, len(axis)):
            for i in range(1, len(axis) - 1):
                part = (sizes[i + 1] - sizes[i]) / (sizes[i + 1] - sizes[i - 1])
                ends = line[i - 1 : i + 2]
                bend = np.array([part, -1.0, 1 - part])
                matrix[np.ix_(ends, ends)] += BENT * np.outer(bend, bend)
            for i in range(len(axis) - 1):
                ends = line[i : i + 2]
                matrix[np.ix_(ends, ends)] += TILTED * np.array([[1.0, -1.0], [-1.0, 1.0]])
    return matrix


def growing(values: Sequence[float], axes: Sequence[Sequence[int]]) -> list[float]:
    """Values that fall along no axis of their grid, each between the least and the greatest that it could be then.

    Args:
        values: one for every point, the last axis fastest; greater than 0.
        axes: the sizes of each.

    Returns:
        The geometric mean of two: no value before a point is greater than the one, none behind it less than the other.
    """
    import numpy as np

    grid = np.array(values).reshape([len(axis) for axis in axes])
    most, least = grid, grid
    for axis in range(grid.ndim):
        most = np.maximum.accumulate(most, axis)
        least = np.flip(np.minimum.accumulate(np.flip(least, axis), axis), axis)
    return [float(value) for value in np.sqrt(most * least).ravel()]
