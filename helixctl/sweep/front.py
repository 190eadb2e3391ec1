"""The Pareto front: the points that no other beats in what a user gets and in what a device gives."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from helixctl.sweep.document import Point


def front(points: Iterable[Point]) -> set[Point]:
    """The points of which no other has more of one rate and no less of the other.

    Args:
        points: of one prompt length, with the rates ``tokens_per_s_per_user`` and ``output_tokens_per_s_per_device``;
            points without, and those over a limit, are passed over.

    Returns:
        Of points with both rates equal all.
    """
    rated = [
        (p.tokens_per_s_per_user, p.output_tokens_per_s_per_device, p)
        for p in points
        if p.state == "planned" and p.tokens_per_s_per_user and p.output_tokens_per_s_per_device
    ]
    found: set[Point] = set()
    best, at = -inf, inf  # of a device, and of the user where that was reached
    for user, device, point in sorted(rated, key=lambda its: (-its[0], -its[1])):
        if device > best or (device, user) == (best, at):
            found.add(point)
            best, at = device, user
    return found
