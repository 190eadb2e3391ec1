"""Walking compiled programs: one rank with torch.distributed, or all ranks of a dag in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch.nn.attention import sdpa_kernel

from helixctl.dag import Dag
from helixctl.dag.dry_run import dry_run
from helixctl_runtime.comm.collectives import exchange_together, issue
from helixctl_runtime.comm.group import Groups
from helixctl_runtime.comm.one_round import Work
from helixctl_runtime.compile.bound import Action, BoundProgram, Compute, Exchange
from helixctl_runtime.measure.action_timers import ActionTimer, Call


class Walker:
    """One rank's program, bound to process groups and to a timer of its actions."""

    def __init__(
        self,
        program: BoundProgram,
        groups: Groups,
        cell: memoryview[int],
        timer: ActionTimer,
        first: int = 0,
    ) -> None:
        """Bind every action once.

        Args:
            program: the actions.
            groups: that of every set of ranks.
            cell: ``cell[0]`` becomes ``first`` plus the number of tasks that this rank has begun, for the launcher.
            timer: times the actions.
            first: the number of this dag's start (``TaskNumbering.first``).
        """
        self.first = first
        self._rank = program.rank
        self._cell = cell
        self._works: dict[int, Work] = {}
        self._steps = [(first + min(a.place + 1, program.tasks), self._bind(a, groups, timer)) for a in program.actions]

    def __call__(self) -> None:
        """Walk one step."""
        cell = self._cell
        for begun, run in self._steps:
            cell[0] = begun
            run()

    def _bind(self, action: Action, groups: Groups, timer: ActionTimer) -> Call:
        works, key = self._works, action.place
        if isinstance(action, Compute):
            return timer.compute(action.run)
        if isinstance(action, Exchange):
            start = timer.issue(action, issue(action, self._rank, groups.get(action.task.ranks)))

            def begin() -> None:
                works[key] = start()

            return begin
        return timer.wait(lambda: works.pop(key).wait())


class Replay:
    """A step that a CUDA graph holds; it is called like a ``Walker``, but its tasks are not counted."""

    def __init__(self, replay: Callable[[], None], first: int = 0) -> None:
        """Store the replay.

        Args:
            replay: replays the step.
            first: the number of this dag's start (``TaskNumbering.first``).
        """
        self.first = first
        self._replay = replay

    def __call__(self) -> None:
        """Replay one step."""
        self._replay()


@contextmanager
def fused(programs: Sequence[BoundProgram]) -> Iterator[None]:
    """Allow the fused attention kernels of these programs and no others: torch raises if it cannot use them."""
    backends = sorted({b for p in programs for b in p.attention}, key=lambda b: b.value)
    if not backends:
        yield
        return
    with sdpa_kernel(backends):
        yield


def walk_together(dag: Dag, programs: Sequence[BoundProgram]) -> Callable[[], None]:
    """One step of all ranks of a dag in this process, task by task, on one device.

    Args:
        dag: the dag, free of deadlock.
        programs: its bound programs, by rank.

    Returns:
        A call that runs the step.
    """
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


def _by_place(program: BoundProgram) -> dict[int, list[object]]:
    found: dict[int, list[object]] = {}
    for action in program.actions:
        found.setdefault(action.place, []).append(action)
    return found
