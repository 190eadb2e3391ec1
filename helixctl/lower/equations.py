"""The model's equations, cut over the ranks; a tensor that is read otherwise than it is made moves in between."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from helixctl.dag import Level
from helixctl.dag.function import Equation
from helixctl.lower.builder import Builder
from helixctl.lower.reshard import needs_moving, reshard


def add_layer(b: Builder, layer: int) -> None:
    """The tasks of a layer's equations on the ranks of a tensor-parallel group."""
    add_equations(b, b.function.layers[layer])


def add_levels(b: Builder, layer: int, levels: Collection[Level]) -> None:
    """Of a layer the equations of some levels, and the collectives behind them."""
    add_equations(b, [equation for equation in b.function.layers[layer] if equation.level in levels])


def add_equations(b: Builder, equations: Iterable[Equation]) -> None:
    """Rank by rank, a run of equations at a time: one ends with its level, or where a collective follows."""
    run: list[Equation] = []
    for equation in equations:
        if run and run[-1].level != equation.level:
            _compute(b, run)
            run = []
        run.append(equation)
        if moved := [tensor for tensor in equation.outputs if needs_moving(b, tensor)]:
            _compute(b, run)
            run = []
            for tensor in moved:
                reshard(b, tensor)
    _compute(b, run)


def _compute(b: Builder, equations: Sequence[Equation]) -> None:
    for rank in b.ranks:
        for equation in equations:
            _own(b, equation, rank)
            each = {tensor: b.cut(b.shares.of(tensor).made, rank) for tensor in equation.outputs}
            first = equation.outputs[0]
            b.compute(equation.level, equation.name, rank, first, each[first], each)


def _own(b: Builder, equation: Equation, rank: int) -> None:
    """Give a rank its share of what an equation is given: weights, and inputs that all ranks have from the start."""
    for tensor in equation.inputs:
        made = b.shares.of(tensor).made
        if b.function.tensors[tensor].role == "weight" or (
            b.function.tensors[tensor].role == "input" and made.owner == "all"
        ):
            b.own(tensor, rank, b.cut(made, rank))
