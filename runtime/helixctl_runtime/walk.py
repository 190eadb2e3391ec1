"""Walking compiled programs: one rank through torch.distributed, or all ranks of a dag together in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.nn.attention import sdpa_kernel

from helixctl.dag import Dag
from helixctl.dag.dry_run import dry_run
from helixctl_runtime.collectives import exchange_together, issue
from helixctl_runtime.program import Compute, Exchange, Program


class Stopwatch:
    """Time that this rank spends in communication and in waiting for it, since the last ``lap``.

    On CPU it is the time inside the calls. On CUDA it is the time for which the compute stream stands still: between
    two events around each wait, which are read once the step has ended.
    """

    def __init__(self, device: torch.device) -> None:
        """Start at zero."""
        self.cuda = device.type == "cuda"
        self.seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def lap(self) -> float:
        """Seconds since the last lap; on CUDA the device must be idle."""
        spent = self.seconds + sum(a.elapsed_time(b) for a, b in self._events) * 1e-3
        self.seconds, self._events = 0.0, []
        return spent

    def around(self, call: Callable[[], object]) -> None:
        """Make a call and count its time."""
        if self.cuda:
            before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            before.record()
            call()
            after.record()
            self._events.append((before, after))
        else:
            begin = time.perf_counter()
            call()
            self.seconds += time.perf_counter() - begin


class Walker:
    """One rank's program bound to process groups."""

    def __init__(
        self,
        program: Program,
        groups: dict[tuple[int, ...], dist.ProcessGroup],
        device: torch.device,
        cell: memoryview[int],
    ) -> None:
        """Bind every action once.

        Args:
            program: what to do.
            groups: the process group of every set of ranks.
            device: where the program runs.
            cell: ``cell[0]`` counts the tasks of the step that this rank has begun; the launcher reads it.
        """
        self.stopwatch = Stopwatch(device)
        self._rank = program.rank
        self._cell = cell
        self._works: dict[int, dist.Work] = {}
        self._steps = [(min(a.place + 1, program.tasks), self._bind(a, groups)) for a in program.actions]

    def __call__(self) -> None:
        """Walk one step."""
        cell = self._cell
        for begun, run in self._steps:
            cell[0] = begun
            run()

    def _bind(self, action: object, groups: dict[tuple[int, ...], dist.ProcessGroup]) -> Callable[[], object]:
        works, stopwatch = self._works, self.stopwatch
        if isinstance(action, Compute):
            return action.run
        if isinstance(action, Exchange):
            start, key = issue(action, self._rank, groups.get(action.task.ranks)), action.place

            def begin() -> None:
                works[key] = start()

            return begin if stopwatch.cuda else lambda: stopwatch.around(begin)
        key = action.place  # type: ignore[attr-defined]
        return lambda: stopwatch.around(lambda: works.pop(key).wait())


@contextmanager
def fused(programs: Sequence[Program]) -> Iterator[None]:
    """Allow the fused attention kernels of these programs, and no other: torch raises where it cannot use them."""
    backends = sorted({b for p in programs for b in p.attention}, key=lambda b: b.value)
    if not backends:
        yield
        return
    with sdpa_kernel(backends):
        yield


def walk_together(dag: Dag, programs: Sequence[Program]) -> Callable[[], None]:
    """One step of all ranks of a dag in this process, task by task, on one device."""
    by_place = [_by_place(p) for p in programs]
    place = [{name: i for i, name in enumerate(order)} for order in dag.order]
    calls: list[Callable[[], object]] = []
    for task in dry_run(dag).done:
        exchanges: list[Exchange] = []
        for rank in task.ranks:
            for action in by_place[rank].get(place[rank][task.id], []):
                if isinstance(action, Compute):
                    calls.append(action.run)
                elif isinstance(action, Exchange):
                    exchanges.append(action)
        if exchanges:
            calls.append(lambda group=exchanges: exchange_together(group))  # type: ignore[misc]
    for actions, order in zip(by_place, dag.order, strict=True):
        calls += [a.run for a in actions.get(len(order), []) if isinstance(a, Compute)]

    def step() -> None:
        for call in calls:
            call()

    return step


def _by_place(program: Program) -> dict[int, list[object]]:
    found: dict[int, list[object]] = {}
    for action in program.actions:
        found.setdefault(action.place, []).append(action)
    return found
