"""Whether boxes tile a box: the arithmetic behind coverage and partial sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations, islice, pairwise, product
from math import prod
from typing import Final

from helixctl.plan import Interval
from helixctl.records import record

Box = tuple[Interval, ...]

_MOST_LOOKS: Final = 1_000_000  # at a box, in search of a gap


@record
class Untiled:
    """Why boxes do not tile another, and the box at fault, if one of them is."""

    reason: str
    box: Box | None = None


def bounding(boxes: Sequence[Box]) -> Box:
    """The smallest box around boxes."""
    return tuple((min(iv[0] for iv in dim), max(iv[1] for iv in dim)) for dim in zip(*boxes, strict=True))


@lru_cache(maxsize=64)  # the layers of a model follow one another, and most are cut alike
def untiled(boxes: tuple[Box, ...], full: Box, dims: tuple[str, ...]) -> Untiled | None:
    """Why these boxes do not tile ``full`` once (equal boxes are replicas), or None; ``dims`` are the names to say."""
    if not boxes:
        return Untiled("no rank holds any of it")
    replicas = Counter(boxes)
    if len(set(replicas.values())) > 1:
        (box, count), (other, fewer) = replicas.most_common()[0], replicas.most_common()[-1]
        return Untiled(f"{_text(box, dims)} is held {count} times, {_text(other, dims)} {_times(fewer)}", box)
    distinct = sorted(replicas)
    if not _is_grid(distinct):
        for a, b in combinations(distinct, 2):
            if all(x[0] < y[1] and y[0] < x[1] for x, y in zip(a, b, strict=True)):
                return Untiled(f"{_text(a, dims)} and {_text(b, dims)} overlap", b)
    if sum(map(_volume, distinct)) != _volume(full):
        gap = next(_gaps(distinct, full), None)
        return Untiled(f"no rank holds {_text(gap, dims)}" if gap else "its pieces leave a gap")
    return None


def _gaps(boxes: Sequence[Box], full: Box) -> Iterator[Box]:
    """Parts of ``full`` that no box covers: across a whole dim first, then cells of the grid of the boxes' ends."""
    for d, whole in enumerate(full):
        if gap := _uncovered([box[d] for box in boxes], whole):
            yield (*full[:d], gap, *full[d + 1 :])
    axes = [list(pairwise(sorted({*whole, *(end for box in boxes for end in box[d])}))) for d, whole in enumerate(full)]
    for cell in islice(product(*axes), _MOST_LOOKS // len(boxes)):
        if not any(all(b[0] <= c[0] and c[1] <= b[1] for b, c in zip(box, cell, strict=True)) for box in boxes):
            yield cell


def _uncovered(intervals: Sequence[Interval], whole: Interval) -> Interval | None:
    """The first part of an interval that none of these cover."""
    at = whole[0]
    for start, stop in sorted(intervals):
        if start > at:
            return (at, start)
        at = max(at, stop)
    return (at, whole[1]) if at < whole[1] else None


def _is_grid(boxes: Sequence[Box]) -> bool:
    """Whether distinct boxes are a product of disjoint intervals, dim by dim: then none overlap (and it is quick)."""
    cuts = [sorted({box[d] for box in boxes}) for d in range(len(boxes[0]))]
    disjoint = all(a[1] <= b[0] for cut in cuts for a, b in pairwise(cut))
    return disjoint and prod(len(cut) for cut in cuts) == len(boxes)


def _volume(box: Box) -> int:
    return prod(stop - start for start, stop in box)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _text(box: Box, dims: Sequence[str]) -> str:
    return "[" + ", ".join(f"{dim} {a}:{b}" for dim, (a, b) in zip(dims, box, strict=True)) + "]"
