"""Watches: what times the actions of a walk. A stopwatch adds up communication; a recorder takes every moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import torch
import torch.distributed as dist

from helixctl_runtime.comm.collectives import Issue
from helixctl_runtime.compile.bound import BoundProgram, Compute, Exchange
from helixctl_runtime.measure.clock import Clock
from helixctl_runtime.measure.timeline import TracedStep

Call = Callable[[], object]


class Watch(Protocol):
    """Each method returns the call that the walk is to make instead of the given one."""

    def compute(self, run: Call) -> Call:
        """For a computation."""

    def issue(self, exchange: Exchange, start: Issue) -> Issue:
        """For the start of a collective."""

    def wait(self, wait: Call) -> Call:
        """For the wait for a collective's end."""


class Unwatched:
    """Times nothing: every call stays as it is."""

    def compute(self, run: Call) -> Call:
        return run

    def issue(self, exchange: Exchange, start: Issue) -> Issue:  # noqa: ARG002  one signature for all watches
        return start

    def wait(self, wait: Call) -> Call:
        return wait


class Stopwatch:
    """Time that this rank spends in communication and in waiting for it, since the last ``lap``.

    On CPU it is the time inside the calls. On CUDA it is the time for which the compute stream stands still: between
    two moments around each wait.
    """

    def __init__(self, clock: Clock) -> None:
        """Start at zero."""
        self._clock = clock
        self._seconds = 0.0
        self._waits: list[tuple[Any, Any]] = []

    def lap(self) -> float:
        """Seconds since the last lap; on CUDA the device must be idle."""
        spent = self._seconds + sum(self._clock.seconds(*wait) for wait in self._waits)
        self._seconds, self._waits = 0.0, []
        return spent

    def compute(self, run: Call) -> Call:
        return run

    def issue(self, exchange: Exchange, start: Issue) -> Issue:  # noqa: ARG002  one signature for all watches
        if self._clock.cuda:
            return start

        def timed() -> dist.Work:
            begin = time.perf_counter()
            work = start()
            self._seconds += time.perf_counter() - begin
            return work

        return timed

    def wait(self, wait: Call) -> Call:
        def marked() -> None:
            begin = self._clock.now()
            wait()
            self._waits.append((begin, self._clock.now()))

        def timed() -> None:
            begin = time.perf_counter()
            wait()
            self._seconds += time.perf_counter() - begin

        return marked if self._clock.cuda else timed


class Recorder:
    """Takes the moments at which every action of a program begins and ends, and every collective is complete.

    On CPU a collective tells when it is complete; gloo's send and receive do not, and count as complete when they have
    been waited for. On CUDA a stream beside the compute stream waits for it, one for each set of ranks, whose
    collectives are complete in the order of their issue.
    """

    def __init__(self, program: BoundProgram, clock: Clock) -> None:
        """Record nothing yet."""
        self._program = program
        self._clock = clock
        self._streams: dict[tuple[int, ...], torch.cuda.Stream] = {}
        self._records: list[tuple[Any, Any, Sequence[Any]]] = []

    def compute(self, run: Call) -> Call:
        def recorded() -> None:
            begin = self._clock.now()
            run()
            self._records.append((begin, self._clock.now(), ()))

        return recorded

    def issue(self, exchange: Exchange, start: Issue) -> Issue:
        def recorded() -> dist.Work:
            begin = self._clock.now()
            work = start()
            self._records.append((begin, self._clock.now(), self._completion(exchange, work)))
            return work

        return recorded

    def wait(self, wait: Call) -> Call:
        return self.compute(wait)

    def read(self, steps: Sequence[tuple[Any, Any]]) -> list[TracedStep]:
        """The recorded steps, and forget them; on CUDA the device must be idle.

        Args:
            steps: the moments at which each step began and ended.
        """
        each = len(self._program.actions)
        records, self._records = self._records, []
        return [self._step(*step, records[i * each : (i + 1) * each]) for i, step in enumerate(steps)]

    def _completion(self, exchange: Exchange, work: dist.Work) -> Sequence[Any]:
        """The moment of completion, once it is known."""
        if self._clock.cuda:
            ranks = exchange.task.ranks
            if ranks not in self._streams:
                self._streams[ranks] = torch.cuda.Stream()
            with torch.cuda.stream(self._streams[ranks]):
                work.wait()
                return [self._clock.now()]
        found: list[float] = []
        with suppress(RuntimeError):  # raised by gloo's send and receive
            work.get_future().add_done_callback(lambda _: found.append(time.perf_counter()))
        return found

    def _step(self, begin: Any, end: Any, records: Sequence[tuple[Any, Any, Sequence[Any]]]) -> TracedStep:
        def at(moment: Any) -> float:
            return self._clock.reading(moment, begin)

        tasks: dict[int, tuple[float, float]] = {}
        exposed: list[tuple[int, float, float]] = []
        for action, (began, ended, complete) in zip(self._program.actions, records, strict=True):
            place, start, stop = action.place, at(began), at(ended)
            if isinstance(action, Compute):
                tasks[place] = (tasks.get(place, (start, stop))[0], stop)
            elif isinstance(action, Exchange):  # begins here, not with a copy that was made for it
                tasks[place] = (start, min((at(m) for m in complete), default=float("inf")))
                if not self._clock.cuda:
                    exposed.append((place, start, stop))
            else:
                tasks[place] = (tasks[place][0], min(tasks[place][1], stop))
                exposed.append((place, start, stop))
        in_order = tuple(tasks[place] for place in range(self._program.tasks))
        return TracedStep(self._clock.name, at(begin), at(end), in_order, tuple(exposed))
