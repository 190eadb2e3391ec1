"""Timers of the actions of a walk: one adds up the time in communication, another records every action."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import torch

from helixctl_runtime.comm.collectives import Issue
from helixctl_runtime.comm.one_round import Work
from helixctl_runtime.compile.bound import BoundProgram, Compute, Exchange
from helixctl_runtime.measure.clock import Clock
from helixctl_runtime.measure.step_trace import RankTrace

Call = Callable[[], object]


class ActionTimer(Protocol):
    """Wraps the calls of a walk: each method returns the call to make instead of the given one."""

    def compute(self, run: Call) -> Call:
        """Wrap a computation."""

    def issue(self, exchange: Exchange, start: Issue) -> Issue:
        """Wrap the start of a collective."""

    def wait(self, wait: Call) -> Call:
        """Wrap the wait for the end of a collective."""


class NoTimer:
    """Times nothing: it returns every call unchanged."""

    def compute(self, run: Call) -> Call:
        return run

    def issue(self, exchange: Exchange, start: Issue) -> Issue:  # noqa: ARG002  one signature for all timers
        return start

    def wait(self, wait: Call) -> Call:
        return wait


class CommunicationTimer:
    """Adds up the seconds that this rank spends in communication, and waits for it, since the last ``lap``.

    On CPU it is the time inside the calls. On CUDA it is the time in which the compute stream is idle, between two
    events around each wait.
    """

    def __init__(self, clock: Clock) -> None:
        """Start at zero seconds."""
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

    def issue(self, exchange: Exchange, start: Issue) -> Issue:  # noqa: ARG002  one signature for all timers
        if self._clock.cuda:
            return start

        def timed() -> Work:
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


class TraceRecorder:
    """Records when every action of a program begins and ends, and when every collective is complete.

    On CPU a collective calls back when it is complete; gloo's send and receive do not, so they count as complete at the
    end of the wait for them. On CUDA a side stream waits for a collective. There is one side stream for each set of
    ranks, because the collectives of one set complete in the order of their issue.
    """

    def __init__(self, program: BoundProgram, clock: Clock) -> None:
        """Record nothing yet.

        Args:
            program: the program that is walked.
            clock: the clock of its rank.
        """
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
        def recorded() -> Work:
            begin = self._clock.now()
            work = start()
            self._records.append((begin, self._clock.now(), self._completion(exchange, work)))
            return work

        return recorded

    def wait(self, wait: Call) -> Call:
        return self.compute(wait)

    def read(self, steps: Sequence[tuple[Any, Any]]) -> list[RankTrace]:
        """Return the recorded steps and clear the records; on CUDA the device must be idle.

        Args:
            steps: the begin and the end of each step.
        """
        each = len(self._program.actions)
        records, self._records = self._records, []
        return [self._step(*step, records[i * each : (i + 1) * each]) for i, step in enumerate(steps)]

    def _completion(self, exchange: Exchange, work: Work) -> Sequence[Any]:
        """A list that holds the moment of completion as soon as it is known."""
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

    def _step(self, begin: Any, end: Any, records: Sequence[tuple[Any, Any, Sequence[Any]]]) -> RankTrace:
        def at(moment: Any) -> float:
            return self._clock.reading(moment, begin)

        tasks: dict[int, tuple[float, float]] = {}
        exposed: list[tuple[int, float, float]] = []
        for action, (began, ended, complete) in zip(self._program.actions, records, strict=True):
            place, start, stop = action.place, at(began), at(ended)
            if isinstance(action, Compute):
                tasks[place] = (tasks.get(place, (start, stop))[0], stop)
            elif isinstance(action, Exchange):  # begins here, not with the copy that packs its data
                tasks[place] = (start, min((at(m) for m in complete), default=float("inf")))
                if not self._clock.cuda:
                    exposed.append((place, start, stop))
            else:
                tasks[place] = (tasks[place][0], min(tasks[place][1], stop))
                exposed.append((place, start, stop))
        for place in reversed(range(self._program.tasks)):
            if place not in tasks:  # it has no action: the kernel of the next task computes it
                following, _ = tasks[place + 1]
                tasks[place] = following, following
        in_order = tuple(tasks[place] for place in range(self._program.tasks))
        return RankTrace(self._clock.name, at(begin), at(end), in_order, tuple(exposed))
