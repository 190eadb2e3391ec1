"""Generation of all ranks of a plan in this process, and beside it transformers' greedy ``generate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from helixctl.dag import Dag, Value
from helixctl.lower import lower
from helixctl.plan import Plan
from helixctl_runtime.compile import compile_rank
from helixctl_runtime.compile.bound import BoundProgram
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.generate import Feed
from helixctl_runtime.generate.loop import Stage
from helixctl_runtime.measure.walk import fused, walk_together

CPU = torch.device("cpu")
Weights = Callable[[Dag, Value], torch.Tensor]


@dataclass(frozen=True)
class Session:
    """The compiled steps of a plan: all ranks, with one cache and one set of weights each."""

    dags: dict[str, Dag]
    programs: dict[str, list[BoundProgram]]
    steps: dict[str, Stage]


def session_of(
    plan: Plan, weights: Weights, names: Sequence[str] = ("prefill", "decode"), dags: Mapping[str, Dag] | None = None
) -> Session:
    """Compile the steps of a plan, of ``dags`` where it has been lowered; caches are zero."""
    dags = {name: lower(plan, step=name) for name in names} if dags is None else dict(dags)  # type: ignore[arg-type]
    programs: dict[str, list[BoundProgram]] = {name: [] for name in names}
    for rank in range(plan.layout.devices):
        states: dict[str, torch.Tensor] | None = None
        shared = None
        for name, dag in dags.items():

            def load(value: Value, dag: Dag = dag) -> torch.Tensor:
                tensor = dag.tensor[value.tensor]
                if tensor.role == "weight":
                    return weights(dag, value)
                return torch.zeros(value.shape, dtype=TORCH[value.dtype])

            made = compile_rank(dag, rank, CPU, load, states, shared)
            states, shared = dict(made.states), made.weights
            programs[name].append(made)
    steps = {}
    for name, dag in dags.items():
        walk = walk_together(dag, programs[name])

        def fused_walk(walk: Callable[[], None] = walk, name: str = name) -> None:
            with fused(programs[name]):
                walk()

        steps[name] = Stage([Feed(dag, program) for program in programs[name]], fused_walk)
    return Session(dags, programs, steps)
