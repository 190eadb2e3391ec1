"""Measuring the steps of one program, or of several in turn; all ranks begin every step together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

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
        warmup: steps before the measured ones.
    """

    step_s: list[float]
    communication_s: float
    traced: list[RankTrace]
    warmup: int = 0


def measure(
    programs: Sequence[BoundProgram],
    first: Sequence[int],
    groups: Groups,
    rank: Rank,
    *,
    warmup: int | None,
    iters: int | None,
    trace_steps: int,
    graph: bool = False,
    budget_s: float = 30.0,
) -> list[StepTimes]:
    """Walk the programs in turn, step by step: the warm-up, the measured steps, the traced steps.

    Taking turns spreads the noise of the machine over all programs. Tracing slows a step, so traced steps come after
    the measured ones.

    Args:
        programs: this rank's program of each dag.
        first: the number of each dag's start (``TaskNumbering.first``).
        groups: that of every set of ranks.
        rank: this rank.
        warmup: steps of each program before the measurement; None: as the budget allows. One at least is
            taken where the budget decides on either.
        iters: measured steps of each; None: as the budget allows.
        trace_steps: traced steps of each, no more than iters; they are always walked.
        graph: replay the warm-up and the measured steps from CUDA graphs instead of walking them.
        budget_s: seconds that steps may take whose number is not given.

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
    tried = 0
    if warmup is None or iters is None:
        tried = _TRIED if warmup is None else max(1, min(_TRIED, warmup))
        tries = [clock.seconds(*moments) for found in walk(measured, tried) for moments in found[-1:]]
        allowed = affordable(_slowest(sum(tries)), budget_s, _OF_PAPER)
        warmup = allowed[0] if warmup is None else max(warmup, tried)
        iters = allowed[1] if iters is None else iters
    trace_steps = min(trace_steps, iters)
    rank.progress.expect(warmup + iters + trace_steps)
    walk(measured, warmup - tried)
    for timer in timers:
        timer.lap()
    steps = [[clock.seconds(*step) for step in found] for found in walk(measured, iters)]
    communication = [timer.lap() for timer in timers]
    records = [recorder.read(found) for recorder, found in zip(recorders, walk(traced, trace_steps), strict=True)]
    if graph:
        communication = [iters * exposed_s(traced) for traced in records]
    return [StepTimes(*each, warmup) for each in zip(steps, communication, records, strict=True)]


# The paper's steps for warm-up and for measurement: more are never taken unless they are asked for.
_OF_PAPER: Final = (100, 1000)
_TRIED: Final = 3  # steps for warm-up whose last tells how long a step takes
_FEWEST: Final = 5  # that are measured, however long they take


def affordable(step_s: float, budget_s: float, most: tuple[int, int]) -> tuple[int, int]:
    """How many steps for warm-up, and how many that are measured, take a budget at most: the shares of the paper.

    Args:
        step_s: of one step, of all programs.
        budget_s: for both.
        most: of each.

    Returns:
        At least the steps that have been tried, and five that are measured.
    """
    steps = budget_s / step_s if step_s else float(sum(most))
    share = min(1.0, steps / sum(most))
    return max(_TRIED, int(share * most[0])), max(_FEWEST, int(share * most[1]))


def _slowest(seconds: float) -> float:
    """The most that a rank has, which all of them get."""
    found = [0.0] * dist.get_world_size()
    dist.all_gather_object(found, seconds)
    return max(found)


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
