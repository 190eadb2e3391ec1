"""What compiling makes of one rank's part of a dag: a flat list of actions over buffers that are there already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend

from helixctl.dag import (
    Task,
    Value,
)
from helixctl_runtime import kernels
from helixctl_runtime.buffers import Buffer

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
class Program:
    """What one rank does in a step.

    Attributes:
        tasks: how many tasks this rank takes part in.
        actions: in the order in which they are issued.
        inputs, outputs: buffers of the model's input and output on this rank, by value.
        attention: the fused kernels that are used.
        weight_nbytes, buffer_nbytes: memory taken for weights and for all other values.
    """

    rank: int
    tasks: int
    actions: tuple[Action, ...]
    inputs: dict[str, Buffer]
    outputs: dict[str, Buffer]
    attention: frozenset[SDPBackend]
    weight_nbytes: int
    buffer_nbytes: int
