"""One rank's program bound to kernels and tensors: a flat list of actions over memory that is there already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch.nn.attention import SDPBackend

from helixctl import program
from helixctl.dag import Task, Value
from helixctl_runtime import kernels

Load = Callable[[Value], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Compute:
    """Run a kernel. ``place`` is the task's place in the rank's order; the order's length means after all tasks."""

    place: int
    run: kernels.Step


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """Issue a collective: ``send`` and ``receive`` are contiguous (the same memory for an all-reduce).

    ``leave`` and ``arrive``: how many elements an all-to-all sends to, and receives from, each rank; equally many if
    they are empty.
    """

    place: int
    task: Task
    send: torch.Tensor
    receive: torch.Tensor
    leave: tuple[int, ...] = ()
    arrive: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for a collective before its output is used. ``place`` is the collective's."""

    place: int
    exchange: Exchange


Action = Compute | Exchange | Wait


@dataclass(frozen=True, slots=True)
class BoundProgram:
    """What one rank does in a step.

    A ``helixctl.program.Program`` says it of blocks, views and offsets, without torch. This is that program, action by
    action, over kernels and tensors that lie at those offsets; ``compile_rank`` makes it.

    Attributes:
        tasks: how many tasks this rank takes part in.
        actions: in the order in which they are issued.
        inputs, outputs: the model's input and output on this rank, by value; their dims in the tensor's order.
        attention: the fused kernels that are used.
        weight_nbytes, buffer_nbytes: memory that was allocated for weights and for all else.
        proved_nbytes: what the program says of both together, and of what lives between steps.
        on_device: whether a CUDA device needs nothing of the host during a step, so that a CUDA graph can hold it.
        states: what lives between steps, by value.
        weights: as the kernels take them; another step of the plan may share them.
        gates: of each task that routes, by its place: the value that it makes, and where; other values may be there
            once the task's own are read.
    """

    rank: int
    tasks: int
    actions: tuple[Action, ...]
    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]
    attention: frozenset[SDPBackend]
    weight_nbytes: int
    buffer_nbytes: int
    proved_nbytes: int = 0
    on_device: bool = False
    states: Mapping[str, torch.Tensor] = field(default_factory=dict)
    weights: Mapping[program.Weights, torch.Tensor] = field(default_factory=dict)
    gates: Mapping[int, tuple[str, torch.Tensor]] = field(default_factory=dict)

    @property
    def state_nbytes(self) -> int:
        """Memory of what lives between steps."""
        return sum(state.nbytes for state in self.states.values())
