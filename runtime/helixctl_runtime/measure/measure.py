"""Measuring: the steps of one program or of several in turn, begun together by all ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from helixctl_runtime.compile.bound import BoundProgram
from helixctl_runtime.measure.captured import captured
from helixctl_runtime.measure.clock import Clock
from helixctl_runtime.measure.timeline import TracedStep
from helixctl_runtime.measure.walk import Replay, Walker
from helixctl_runtime.measure.watches import Recorder, Stopwatch, Unwatched
from helixctl_runtime.ranks import Phase, Rank


@dataclass(frozen=True, slots=True)
class Measured:
    """What one rank measured of one program.

    Attributes:
        step_s: every measured step.
        communication_s: over all of them, time in communication and waiting for it that no computation hides. Of
            replayed steps it is that of the traced ones, which were walked.
        traced: some more steps, in which every action was timed.
    """

    step_s: list[float]
    communication_s: float
    traced: list[TracedStep]


def measure(
    programs: Sequence[BoundProgram],
    first: Sequence[int],
    groups: dict[tuple[int, ...], dist.ProcessGroup],
    rank: Rank,
    *,
    warmup: int,
    iters: int,
    trace_steps: int,
    graph: bool = False,
) -> list[Measured]:
    """Walk the programs in turn, step by step: the warm-up, the measured steps, the traced steps.

    So the noise of the machine meets all programs alike. Tracing costs time, of which the measured steps know nothing.

    Args:
        programs: this rank's part of each dag.
        first: where the count of each one's tasks begins (``Places``).
        groups: the process group of every set of ranks.
        rank: this rank.
        warmup: steps of each program before the measurement.
        iters: measured steps of each.
        trace_steps: traced steps of each; they are walked.
        graph: replay the warm-up and the measured steps from CUDA graphs instead of walking them.

    Raises:
        HelixError: HX514, a step cannot be captured, or its replay writes other bits than the walk.
    """
    clock = Clock(rank.device, rank.rank)
    stopwatches, recorders = [Stopwatch(clock) for _ in programs], [Recorder(p, clock) for p in programs]
    cell = rank.progress.cell
    timed = [Walker(p, groups, cell, w, at) for p, w, at in zip(programs, stopwatches, first, strict=True)]
    traced = [Walker(p, groups, cell, w, at) for p, w, at in zip(programs, recorders, first, strict=True)]
    together, step = _together(rank.device), 0

    def walk(walkers: Sequence[Walker | Replay], steps: int) -> list[list[tuple[Any, Any]]]:
        """The moments at which each step of each program began and ended."""
        nonlocal step
        moments: list[list[tuple[Any, Any]]] = [[] for _ in walkers]
        for _ in range(steps):
            for walker, found in zip(walkers, moments, strict=True):
                cell[0], cell[1] = walker.first, step
                together()
                begin = clock.now()
                walker()
                found.append((begin, clock.now()))
            step += 1
        clock.settle()
        return moments

    rank.progress.enter(Phase.RUNNING)
    measured: Sequence[Walker | Replay] = timed
    if graph:
        bare = [Walker(p, groups, cell, Unwatched(), at) for p, at in zip(programs, first, strict=True)]
        outputs = [[*program.outputs.values()] for program in programs]
        measured = [Replay(captured(w, its, str(rank)), at) for w, its, at in zip(bare, outputs, first, strict=True)]
    walk(measured, warmup)
    for stopwatch in stopwatches:
        stopwatch.lap()
    steps = [[clock.seconds(*step) for step in found] for found in walk(measured, iters)]
    communication = [stopwatch.lap() for stopwatch in stopwatches]
    records = [recorder.read(found) for recorder, found in zip(recorders, walk(traced, trace_steps), strict=True)]
    if graph:
        communication = [iters * _exposed(traced) for traced in records]
    return [Measured(*each) for each in zip(steps, communication, records, strict=True)]


def _exposed(steps: Sequence[TracedStep]) -> float:
    """Seconds of a step, on average, in communication and waiting for it that no computation hides."""
    return sum(end - begin for step in steps for _, begin, end in step.exposed) / max(1, len(steps))


def _together(device: torch.device) -> Callable[[], object]:
    """A call after which all ranks go on at one time: the process on CPU, the compute stream on CUDA.

    On CUDA the host does not wait and goes on to issue the step, as it did without it.
    """
    if device.type == "cpu":
        return dist.barrier
    token = torch.zeros(1, device=device)
    return lambda: dist.all_reduce(token)
