"""The time of a collective.

The step of a dag is its computation, slowed down because the ranks of a host share its cores, plus the time that its
collectives add. This module measures that added time: a loop runs computation and collective in turn, and the
computation is subtracted. A loop of collectives alone would be too fast: with more ranks than cores, a rank that comes
from computation finds the threads of the others waiting for a core, and its own at the end of their time slice.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

import torch
import torch.distributed as dist

from helixctl.dag import AllGather, AllReduce, AllToAll, Broadcast, Op, ReduceScatter, SendReceive, Task, Value
from helixctl.dag.formulas import nbytes
from helixctl_runtime.calibrate.points import Collective, CollectivePoint
from helixctl_runtime.comm.collectives import Issue, issue
from helixctl_runtime.comm.group import Groups
from helixctl_runtime.compile.bound import Exchange
from helixctl_runtime.ranks import Rank

# Seconds of a core between two collectives: as long as a rank computes between two in the plans of plans/small.
_COMPUTATION_S: Final = 0.0015
# No collective is faster; after the subtraction the noise of a short one may be below zero.
_SHORTEST_S: Final = 1e-6
_OPS: Final[dict[Collective, Op]] = {
    "broadcast": Broadcast(),
    "all_to_all": AllToAll(split="part", gather="numel"),
    "all_gather": AllGather(dim="numel"),
    "all_reduce": AllReduce(),
    "reduce_scatter": ReduceScatter(dim="numel"),
    "send_receive": SendReceive(),
}


@dataclass(frozen=True, slots=True)
class TimedLoop:
    """The times of one rank in a loop of collectives.

    Attributes:
        begin_s, end_s: begin and end, by a clock that all processes of a host share.
        computation_s: processor seconds of the computation between the collectives.
        processor_s: processor seconds of all threads of the rank.
    """

    begin_s: float
    end_s: float
    computation_s: float
    processor_s: float


class CollectiveTimer:
    """Runs collectives on one rank.

    Args:
        rank: this rank.
        groups: the process groups that this rank is in, by their ranks.
        task: a computation of a few milliseconds at most, to run between the collectives; None if every rank has its
            own device.
    """

    def __init__(
        self,
        rank: Rank,
        groups: Groups,
        task: Callable[[], object] | None,
    ) -> None:
        """Store the arguments; nothing runs yet."""
        self._rank, self._groups, self._task = rank, groups, task

    def loops(self, point: CollectivePoint, members: tuple[int, ...], loops: int, repeat: int) -> list[TimedLoop]:
        """Time some loops of a collective.

        Args:
            point: the collective and its size.
            members: the ranks of this rank's group.
            loops: the number of loops.
            repeat: the number of collectives in each.
        """
        calls = self._calls(point, members)
        for call in calls:
            call().wait()
        return [self._timed_loop(calls, repeat) for _ in range(loops)]

    def _timed_loop(self, calls: Sequence[Issue], repeat: int) -> TimedLoop:
        self._synchronize()
        dist.barrier()
        computation, processor, begin = 0.0, time.process_time(), time.perf_counter()
        for turn in range(repeat):
            if self._task is not None:
                computation += _compute(self._task)
            calls[turn % len(calls)]().wait()
        self._synchronize()
        return TimedLoop(begin, time.perf_counter(), computation, time.process_time() - processor)

    def _synchronize(self) -> None:
        if self._rank.device.type == "cuda":
            torch.cuda.synchronize()

    def _calls(self, point: CollectivePoint, members: tuple[int, ...]) -> list[Issue]:
        """The calls to make in turn.

        The root changes from call to call, because a rank that only sends does not wait and would run ahead.
        """
        op, numel = _OPS[point.kind], sent_numel(point)
        send = torch.zeros(numel, device=self._rank.device)
        received = {AllGather: numel * point.ranks, AllToAll: numel, ReduceScatter: numel // point.ranks}.get(type(op))
        receive = send if received is None else torch.zeros(received, device=self._rank.device)
        turns = point.ranks if isinstance(op, Broadcast | SendReceive) else 1
        orders = [members[i:] + members[:i] for i in range(turns)]
        tasks = [Task(str(point), 0, "transfer", op, order, (), (), 0, 0) for order in orders]
        group = self._groups.get(members)
        return [issue(Exchange(0, task, send, receive), self._rank.rank, group) for task in tasks]


def _compute(task: Callable[[], object]) -> float:
    begin = time.thread_time()
    while (spent := time.thread_time() - begin) < _COMPUTATION_S:
        task()
    return spent


def sent_numel(point: CollectivePoint) -> int:
    """Elements of the float32 tensor that a rank sends, so that one rank receives about ``point.nbytes``."""
    k, numel = point.ranks, point.nbytes // torch.float32.itemsize
    match point.kind:
        case "all_gather":
            return max(1, numel // (k - 1))
        case "all_to_all" | "reduce_scatter":
            return k * max(1, numel // (k - 1))
        case "all_reduce":
            return max(1, numel * k // (2 * (k - 1)))
        case "broadcast" | "send_receive":
            return numel
        case _:
            assert_never(point.kind)


def received_nbytes(point: CollectivePoint) -> int:
    """Bytes that one rank receives: ``nbytes`` of a task of a dag that is this collective."""
    op, numel = _OPS[point.kind], sent_numel(point)
    share = numel // point.ranks
    made = {AllGather: numel * point.ranks, AllToAll: share, ReduceScatter: share}.get(type(op), numel)
    # The result of an all-to-all overlaps the rank's own piece by one share of it.
    piece, whole = (Value("v", "t", 0, ((0, n),), "float32") for n in (numel, made))
    return nbytes(op, point.ranks, [piece] * point.ranks, [whole] * point.ranks, {})


def collective_seconds(groups: Sequence[Sequence[Sequence[TimedLoop]]], repeat: int, stretch: float) -> float:
    """Seconds of a collective: the median over the groups of the median over the loops.

    The time of a loop is from the begin of the group's first rank to the end of its last, less the computation.

    Args:
        groups: the loops of every rank of every group.
        repeat: collectives in a loop.
        stretch: ranks per core, at least 1.
    """

    def of(ranks: Sequence[TimedLoop]) -> float:
        wall = max(b.end_s for b in ranks) - min(b.begin_s for b in ranks)
        return (wall - stretch * statistics.fmean(b.computation_s for b in ranks)) / repeat

    found = statistics.median(statistics.median(of(b) for b in zip(*ranks, strict=True)) for ranks in groups)
    return max(found, _SHORTEST_S)


def collective_load(loops: Sequence[TimedLoop], stretch: float) -> float:
    """Cores that a rank keeps busy inside a collective, from 0 to 1.

    Args:
        loops: the loops of all ranks.
        stretch: ranks per core, at least 1.
    """
    processor = sum(b.processor_s - b.computation_s for b in loops)
    wall = sum(b.end_s - b.begin_s - stretch * b.computation_s for b in loops)
    return min(1.0, max(0.0, processor / wall)) if wall > 0 else 0.0
