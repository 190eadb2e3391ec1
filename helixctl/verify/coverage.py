"""Coverage: the regions that the ranks make of a tensor tile it once, and every weight is owned."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from math import prod

from helixctl.dag import Dag, Value
from helixctl.errors import Diagnostic
from helixctl.plan import Interval

Box = tuple[Interval, ...]


def check_tiling(dag: Dag) -> Iterator[Diagnostic]:
    """What the computing tasks make of every tensor tiles it once; replicas hold equal shares (HX407).

    A partial sum counts as a region with one more dim, the contracted one: partial sums tile it as well.
    """
    made: dict[str, list[Value]] = defaultdict(list)
    for task in dag.tasks:
        if not task.is_collective:
            for value_id in task.outputs:
                made[dag.value[value_id].tensor].append(dag.value[value_id])
    for tensor in dag.tensors:
        if tensor.role in ("input", "weight"):
            continue
        values = made.get(tensor.name, [])
        boxes = [v.region + tuple(iv for _, iv in v.partial) for v in values]
        full = tensor.full + tuple((0, max(v.partial[i][1][1] for v in values)) for i in range(_partials(values)))
        if problem := _untiled(boxes, full):
            yield Diagnostic("HX407", f"tensor {tensor.name}: {problem}")


def check_ownership(dag: Dag) -> Iterator[Diagnostic]:
    """Every weight, and the input, is there from the start: cut without gap or overlap, or whole on equals (HX408)."""
    given: dict[str, list[Value]] = defaultdict(list)
    for value in dag.values:
        if value.id not in dag.producer:
            given[value.tensor].append(value)
    for tensor in dag.tensors:
        if tensor.role not in ("input", "weight"):
            continue
        values = given.get(tensor.name, [])
        if problem := _untiled([v.region for v in values], tensor.full):
            yield Diagnostic("HX408", f"{tensor.role} {tensor.name}: {problem}")
        for rank, count in Counter(v.rank for v in values).items():
            if count > 1:
                yield Diagnostic("HX408", f"{tensor.role} {tensor.name}: rank {rank} owns {count} regions of it")


def _partials(values: Sequence[Value]) -> int:
    return max((len(v.partial) for v in values), default=0)


def _untiled(boxes: Sequence[Box], full: Box) -> str | None:
    """Why these boxes do not tile ``full`` once (equal boxes are replicas), or None."""
    if not boxes:
        return "no rank holds any of it"
    replicas = Counter(boxes)
    if len(set(replicas.values())) > 1:
        box, count = replicas.most_common()[0]
        other, fewer = replicas.most_common()[-1]
        return f"{_text(box)} is held {count} times, {_text(other)} {fewer} times"
    if any(len(box) != len(full) for box in replicas):
        return "some of it is a partial sum, and some is not"
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
