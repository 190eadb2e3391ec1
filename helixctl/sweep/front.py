"""The Pareto front: the points that no other beats in what a user gets and in what a device gives."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from helixctl.sweep.document import Point


def front(points: Iterable[Point]) -> set[Point]:
    """The points of which no other has more of one rate and no less of the other.

    Args:
        points: of one number of tokens a sequence, with ``rates``; points without, and those over a limit, are passed
            over.

    Returns:
        Of points with both rates equal all.
    """
    rated = [(*p.rates, p) for p in points if p.state == "planned" and all(p.rates)]
    found: set[Point] = set()
    best, at = -inf, inf  # of a device, and of the user where that was reached
    for user, device, point in sorted(rated, key=lambda its: (-its[0], -its[1])):
        if device > best or (device, user) == (best, at):
            found.add(point)
            best, at = device, user
    return found
