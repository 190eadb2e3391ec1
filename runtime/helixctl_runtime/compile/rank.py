"""Binding one rank's program: memory is allocated, weights are loaded, and every action gets its tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from helixctl import program
from helixctl.dag import Dag
from helixctl_runtime import kernels
from helixctl_runtime.compile.bound import Action, BoundProgram, Compute, Exchange, Load, Wait
from helixctl_runtime.compile.computations import Kernels
from helixctl_runtime.compile.constants import fill
from helixctl_runtime.compile.memory import Memory
from helixctl_runtime.compile.weights import LoadedWeights


def compile_rank(
    dag: Dag,
    rank: int,
    device: torch.device,
    load: Load,
    states: Mapping[str, torch.Tensor] | None = None,
    shared: Mapping[program.Weights, torch.Tensor] | None = None,
) -> BoundProgram:
    """Bind a rank's program (``helixctl.program.program_of``, which decides everything) to kernels and tensors.

    Args:
        dag: a proved document.
        rank: whose part.
        device: where it runs.
        load: gives the numbers of a weight's, an input's or a state's value, in the tensor's order of dims, on
            ``device``.
        states: memory of another step of the plan for what lives between steps, by value; without it memory is
            allocated, and filled by ``load``.
        shared: weights that another step of the plan holds, in the forms in which it does.

    Raises:
        HelixError: HX508, no fused attention for this device and dtype; whatever ``load`` raises.
    """
    made = program.program_of(dag, rank)
    if states is None:
        states = {value: load(dag.value[value]).contiguous() for value in made.states}
    memory, weights = Memory(made, device, states), LoadedWeights(dag, made, load, shared)
    bound = Kernels(dag, made, memory, weights)
    inputs = {v: memory.tensor(buffer.view) for v, buffer in made.inputs.items()}
    for value_id, target in inputs.items():
        target.copy_(load(dag.value[value_id]))
    for constant, view in made.constants.items():
        fill(constant, memory.tensor(view))
    actions = _bound(made, memory, bound)
    return BoundProgram(
        rank=rank,
        tasks=made.tasks,
        actions=actions,
        inputs=inputs,
        outputs={v: memory.tensor(buffer.view) for v, buffer in made.outputs.items()},
        states={value: states[value] for value in made.states},
        weights=weights.loaded,
        attention=frozenset(bound.attention),
        gates=bound.gates,
        on_device=bound.on_device,
        weight_nbytes=weights.nbytes,
        buffer_nbytes=memory.nbytes,
        proved_nbytes=made.nbytes,
    )


def _bound(made: program.Program, memory: Memory, bound: Kernels) -> tuple[Action, ...]:
    found: list[Action] = []
    issued: dict[int, Exchange] = {}
    for action in made.actions:
        match action:
            case program.Compute():
                found.append(Compute(action.place, bound.bind(action)))
            case program.Copy(place, pairs):
                found.append(Compute(place, kernels.copy([(memory.tensor(t), memory.tensor(s)) for t, s in pairs])))
            case program.Exchange(place, task, send, receive, leave, arrive):
                issued[place] = Exchange(place, task, memory.tensor(send), memory.tensor(receive), leave, arrive)
                found.append(issued[place])
            case program.Wait(place):
                found.append(Wait(place, issued[place]))
    return tuple(found)
