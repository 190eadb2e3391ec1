"""The model's equations, cut over the ranks; a tensor that is read otherwise than it is made moves in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from helixctl.dag.document import GIVEN
from helixctl.dag.function import Equation
from helixctl.lower.builder import Builder, Run
from helixctl.lower.reshard import moves_of, reshard
from helixctl.plan.sharding import Sharding


def add_equations(b: Builder, equations: Sequence[Equation]) -> None:
    """Rank by rank, a run of equations at a time: one ends with its level, or where a collective follows."""
    # The equations of a layer come again for every microbatch and replica.
    if id(equations) not in b.runs:
        b.runs[id(equations)] = equations, list(_runs(b, equations))
    _, runs = b.runs[id(equations)]
    for run in runs:
        _compute(b, run)
        if run.moved:
            reshard(b, run.moved)


def _runs(b: Builder, equations: Iterable[Equation]) -> Iterator[Run]:
    run: list[Equation] = []
    for equation in equations:
        if run and run[-1].level != equation.level:
            yield _run(b, run)
            run = []
        run.append(equation)
        if moved := [tensor for tensor in equation.outputs if moves_of(b, tensor)]:
            yield _run(b, run, moved)
            run = []
    if run:
        yield _run(b, run)


def _run(b: Builder, equations: Sequence[Equation], moved: Sequence[str] = ()) -> Run:
    return Run(tuple([(equation, _given(b, equation)) for equation in equations]), tuple(moved))


def _compute(b: Builder, run: Run) -> None:
    for rank in b.ranks:
        for equation, tensors in run.equations:
            for tensor, made in tensors:
                if not b.owns(tensor, rank):
                    b.own(tensor, rank, b.cut(made, rank))
            b.evaluate(equation, rank)


def _given(b: Builder, equation: Equation) -> tuple[tuple[str, Sharding], ...]:
    """What all ranks have of an equation's inputs from the start, and how it is cut: weights, states, most inputs."""
    tensors = [(tensor, b.shares.of(tensor).made) for tensor in equation.inputs]
    return tuple([(t, made) for t, made in tensors if b.function.tensors[t].role in GIVEN and made.owner == "all"])
