"""How many tokens chose each expert: one more step is walked, and the gates are counted as soon as they are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from helixctl.dag import Dag, Route
from helixctl.plan import Interval
from helixctl.spec.routing import PowerLaw, layer_shares, power_law
from helixctl_runtime.comm.group import Groups
from helixctl_runtime.compile.bound import BoundProgram, Compute
from helixctl_runtime.measure.action_timers import NoTimer
from helixctl_runtime.measure.walk import Walker

Counts = dict[str, list[int]]


def law_of(dag: Dag) -> PowerLaw | None:
    """The law of uneven routing that a dag is planned for; None: it is even, or the model has no experts."""
    return power_law(dag.work.routing) if any(task.kind == "route" for task in dag.tasks) else None


def count_choices(program: BoundProgram, groups: Groups, cell: memoryview[int], first: int) -> Counts:
    """Walk a step, on all ranks together, and count: tokens of this rank's gates by expert, by value.

    Args:
        program: this rank's.
        groups: that of every set of ranks.
        cell: as of a ``Walker``.
        first: likewise.
    """
    found: Counts = {}

    def counted(action: Compute, value: str, gates: torch.Tensor) -> Callable[[], None]:
        def step() -> None:
            action.run()
            found[value] = (gates != 0).reshape(-1, gates.shape[-1]).sum(0).tolist()

        return step

    actions = [
        Compute(its.place, counted(its, *program.gates[its.place]))
        if isinstance(its, Compute) and its.place in program.gates
        else its
        for its in program.actions
    ]
    Walker(replace(program, actions=tuple(actions)), groups, cell, NoTimer(), first)()
    return found


def beside_the_law(dag: Dag, ranks: Sequence[Counts]) -> list[dict[str, Any]]:
    """Of each layer with experts the tokens of each expert, as they were counted and as the law has them in the mean.

    Args:
        dag: what was walked, planned for an uneven routing.
        ranks: what each rank counted.
    """
    law, top_k = law_of(dag), {task.layer: task.op.top_k for task in dag.tasks if isinstance(task.op, Route)}
    if law is None:
        raise ValueError(f"routing {dag.work.routing} follows no law")
    return [
        {
            "layer": layer,
            "tokens": tokens,
            "law": [share * dag.work.tokens for share in layer_shares(law, layer, len(tokens), top_k[layer])],
        }
        for layer, tokens in _by_layer(dag, ranks).items()
    ]


def _by_layer(dag: Dag, ranks: Sequence[Counts]) -> dict[int, list[int]]:
    """Tokens of all sequences by expert, of each layer that has experts.

    Several ranks may work out the gates of the same tokens: those count once.

    Args:
        dag: what was walked.
        ranks: what each rank counted.
    """
    layers = {task.outputs[0]: task.layer for task in dag.tasks if task.kind == "route"}
    seen = set[tuple[int, tuple[Interval, ...]]]()
    found: dict[int, list[int]] = {}
    for counts in ranks:
        for value, its in counts.items():
            layer, region = layers[value], dag.value[value].region
            if (layer, region) not in seen:
                seen.add((layer, region))
                found[layer] = [a + b for a, b in zip(found.get(layer, [0] * len(its)), its, strict=True)]
    return dict(sorted(found.items()))
