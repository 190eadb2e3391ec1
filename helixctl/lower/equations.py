"""The model's equations, cut over the ranks; a tensor that is read otherwise than it is made moves in between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from helixctl.dag.document import GIVEN
from helixctl.dag.function import Equation
from helixctl.lower.builder import Builder
from helixctl.lower.reshard import moves_of, reshard
from helixctl.plan.sharding import Sharding


def add_equations(b: Builder, equations: Iterable[Equation]) -> None:
    """Rank by rank, a run of equations at a time: one ends with its level, or where a collective follows."""
    run: list[Equation] = []
    for equation in equations:
        if run and run[-1].level != equation.level:
            _compute(b, run)
            run = []
        run.append(equation)
        if moved := [tensor for tensor in equation.outputs if moves_of(b, tensor)]:
            _compute(b, run)
            run = []
            reshard(b, moved)
    _compute(b, run)


def _compute(b: Builder, equations: Sequence[Equation]) -> None:
    given = [_given(b, equation) for equation in equations]
    for rank in b.ranks:
        for equation, tensors in zip(equations, given, strict=True):
            for tensor, made in tensors:
                b.own(tensor, rank, b.cut(made, rank))
            b.evaluate(equation, rank)


def _given(b: Builder, equation: Equation) -> list[tuple[str, Sharding]]:
    """What all ranks have of an equation's inputs from the start, and how it is cut: weights, states, most inputs."""
    tensors = [(tensor, b.shares.of(tensor).made) for tensor in equation.inputs]
    return [(t, made) for t, made in tensors if b.function.tensors[t].role in GIVEN and made.owner == "all"]
