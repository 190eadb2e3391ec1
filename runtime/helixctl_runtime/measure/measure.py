"""Measuring the steps of one program, or of several in turn; all ranks begin every step together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from helixctl_runtime.comm.group import Groups
from helixctl_runtime.compile.bound import BoundProgram
from helixctl_runtime.measure.action_timers import CommunicationTimer, NoTimer, TraceRecorder
from helixctl_runtime.measure.clock import Clock
from helixctl_runtime.measure.cuda_graph import capture_step
from helixctl_runtime.measure.step_trace import RankTrace
from helixctl_runtime.measure.walk import Replay, Walker
from helixctl_runtime.ranks import Phase, Rank


@dataclass(frozen=True, slots=True)
class StepTimes:
    """What one rank measured of one program.

    Attributes:
        step_s: seconds of every measured step.
        communication_s: seconds of exposed communication, the sum over the measured steps. Replayed steps cannot be
            timed inside, so for them it is worked out from the traced steps, which are walked.
        traced: more steps, in which every action was timed.
    """

    step_s: list[float]
    communication_s: float
    traced: list[RankTrace]


def measure(
    programs: Sequence[BoundProgram],
    first: Sequence[int],
    groups: Groups,
    rank: Rank,
    *,
    warmup: int,
    iters: int,
    trace_steps: int,
    graph: bool = False,
) -> list[StepTimes]:
    """Walk the programs in turn, step by step: the warm-up, the measured steps, the traced steps.

    Taking turns spreads the noise of the machine over all programs. Tracing slows a step, so traced steps come after
    the measured ones.

    Args:
        programs: this rank's program of each dag.
        first: the number of each dag's start (``TaskNumbering.first``).
        groups: that of every set of ranks.
        rank: this rank.
        warmup: steps of each program before the measurement.
        iters: measured steps of each.
        trace_steps: traced steps of each; they are always walked.
        graph: replay the warm-up and the measured steps from CUDA graphs instead of walking them.

    Returns:
        The measurements of each program.

    Raises:
        HelixError: HX514, a step cannot be captured, or its replay writes other bits than the walk.
    """
    clock = Clock(rank.device, rank.rank)
    timers, recorders = [CommunicationTimer(clock) for _ in programs], [TraceRecorder(p, clock) for p in programs]
    cell = rank.progress.cell
    timed = [Walker(p, groups, cell, w, at) for p, w, at in zip(programs, timers, first, strict=True)]
    traced = [Walker(p, groups, cell, w, at) for p, w, at in zip(programs, recorders, first, strict=True)]
    together, step = _together(rank.device), 0

    def walk(walkers: Sequence[Walker | Replay], steps: int) -> list[list[tuple[Any, Any]]]:
        """Walk some steps; the begin and the end of each step of each program."""
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
        bare = [Walker(p, groups, cell, NoTimer(), at) for p, at in zip(programs, first, strict=True)]
        outputs = [[*program.outputs.values()] for program in programs]
        measured = [
            Replay(capture_step(w, its, str(rank)), at) for w, its, at in zip(bare, outputs, first, strict=True)
        ]
    walk(measured, warmup)
    for timer in timers:
        timer.lap()
    steps = [[clock.seconds(*step) for step in found] for found in walk(measured, iters)]
    communication = [timer.lap() for timer in timers]
    records = [recorder.read(found) for recorder, found in zip(recorders, walk(traced, trace_steps), strict=True)]
    if graph:
        communication = [iters * exposed_s(traced) for traced in records]
    return [StepTimes(*each) for each in zip(steps, communication, records, strict=True)]


def exposed_s(steps: Sequence[RankTrace]) -> float:
    """Seconds of exposed communication in a step, mean over the steps."""
    return sum(end - begin for step in steps for _, begin, end in step.exposed) / max(1, len(steps))


def _together(device: torch.device) -> Callable[[], object]:
    """A call that synchronises all ranks: their processes on CPU, their compute streams on CUDA.

    On CUDA the host does not wait, so that it issues the step as it does without the call.
    """
    if device.type == "cpu":
        return dist.barrier
    token = torch.zeros(1, device=device)
    return lambda: dist.all_reduce(token)
