"""Coverage: the regions that the ranks make of a tensor tile it once, and every weight is owned."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from helixctl.dag import Dag, Tensor, Value
from helixctl.dag.document import GIVEN
from helixctl.errors import Diagnostic
from helixctl.verify.rule import extents_of, summed
from helixctl.verify.tiling import Box, Untiled, untiled


def check_tiling(dag: Dag) -> Iterator[Diagnostic]:
    """What the computing tasks make of every tensor tiles it once; replicas hold equal shares (HX407).

    A partial sum counts as a region with one more dim, the contracted one: partial sums tile it as well. So does each
    term of a sum of partial sums by itself.
    """
    made: dict[str, list[Value]] = defaultdict(list)
    for task in dag.tasks:
        if not task.moves:
            for value_id in task.outputs:
                made[dag.value[value_id].tensor].append(dag.value[value_id])
    for tensor in dag.tensors:
        if tensor.role in GIVEN:
            continue
        values = made.get(tensor.name, [])
        boxes = [v.region + tuple(iv for _, iv in v.partial) for v in values]
        dims = {tuple(dim for dim, _ in v.partial) for v in values}
        if len(dims) > 1:
            message = f"tensor {tensor.name}: some of it is partial over other dims than the rest"
            yield Diagnostic("HX407", message, path=tensor.name)
            continue
        contracted = dims.pop() if dims else ()
        extents = extents_of(dag, tensor.name) if contracted else {}
        for term in summed(dag, contracted) or [list[str]()]:
            full = tensor.full + tuple((0, extents[dim]) for dim in term)
            places = [*range(len(tensor.dims)), *(len(tensor.dims) + contracted.index(dim) for dim in term)]
            of_term = [tuple(box[place] for place in places) for box in boxes] if len(term) < len(contracted) else boxes
            if problem := untiled(tuple(of_term), full, (*tensor.dims, *term)):
                path = _row(tensor, values, of_term, problem)
                yield Diagnostic("HX407", f"tensor {tensor.name}: {problem.reason}", path=path)
                break


def check_ownership(dag: Dag) -> Iterator[Diagnostic]:
    """Every weight, input and state is there from the start: cut without gap or overlap, or whole on equals (HX408)."""
    given: dict[str, list[Value]] = defaultdict(list)
    for value in dag.values:
        if value.id not in dag.producer:
            given[value.tensor].append(value)
    for tensor in dag.tensors:
        if tensor.role not in GIVEN:
            continue
        values = given.get(tensor.name, [])
        boxes = [v.region for v in values]
        if problem := untiled(tuple(boxes), tensor.full, tensor.dims):
            path = _row(tensor, values, boxes, problem)
            yield Diagnostic("HX408", f"{tensor.role} {tensor.name}: {problem.reason}", path=path)
        for rank, count in Counter(v.rank for v in values).items():
            # A rank may hold an input or a state in parts, one for each microbatch.
            if count > 1 and tensor.role == "weight":
                path = [v.id for v in values if v.rank == rank][-1]
                message = f"{tensor.role} {tensor.name}: rank {rank} owns {count} regions of it"
                yield Diagnostic("HX408", message, path=path)


def _row(tensor: Tensor, values: Sequence[Value], boxes: Sequence[Box], problem: Untiled) -> str:
    """What declares the box at fault: the last value that has it; the tensor where none is at fault."""
    found = [v.id for v, box in zip(values, boxes, strict=True) if box == problem.box]
    return found[-1] if found else tensor.name
