"""Whether boxes tile a box: the arithmetic behind coverage and partial sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, pairwise
from math import prod

from helixctl.plan import Interval

Box = tuple[Interval, ...]


def bounding(boxes: Sequence[Box]) -> Box:
    """The smallest box around boxes."""
    return tuple((min(iv[0] for iv in dim), max(iv[1] for iv in dim)) for dim in zip(*boxes, strict=True))


def untiled(boxes: Sequence[Box], full: Box) -> str | None:
    """Why these boxes do not tile ``full`` once (equal boxes are replicas), or None."""
    if not boxes:
        return "no rank holds any of it"
    replicas = Counter(boxes)
    if len(set(replicas.values())) > 1:
        box, count = replicas.most_common()[0]
        other, fewer = replicas.most_common()[-1]
        return f"{_text(box)} is held {count} times, {_text(other)} {fewer} times"
    distinct = sorted(replicas)
    if not _is_grid(distinct):
        for a, b in combinations(distinct, 2):
            if all(x[0] < y[1] and y[0] < x[1] for x, y in zip(a, b, strict=True)):
                return f"{_text(a)} and {_text(b)} overlap"
    volume = sum(_volume(box) for box in distinct)
    if volume != _volume(full):
        return f"its pieces cover {volume} of {_volume(full)} elements; there is a gap"
    return None


def _is_grid(boxes: Sequence[Box]) -> bool:
    """Whether distinct boxes are a product of disjoint intervals, dim by dim: then none overlap (and it is quick)."""
    cuts = [sorted({box[d] for box in boxes}) for d in range(len(boxes[0]))]
    disjoint = all(a[1] <= b[0] for cut in cuts for a, b in pairwise(cut))
    return disjoint and prod(len(cut) for cut in cuts) == len(boxes)


def _volume(box: Box) -> int:
    return prod(stop - start for start, stop in box)


def _text(box: Box) -> str:
    return "[" + ", ".join(f"{a}:{b}" for a, b in box) + "]"
