"""The time of a collective, as one rank sees it and as its group does.

A step of a dag takes its computation, at the pace at which the ranks of a host share its cores, and what its
collectives take beyond that. The latter is what is measured here: a loop of computation and collective in turn, less
the computation in it. Collectives alone would be too fast: where there are more ranks than cores, a rank that arrives
straight from computation finds the others' threads waiting for a core, and its own at the end of their time slice.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

import torch
import torch.distributed as dist

from helixctl.dag import AllGather, AllReduce, AllToAll, Broadcast, Op, ReduceScatter, SendReceive, Task, Value
from helixctl.dag.formulas import nbytes
from helixctl_runtime.calibrate.points import Collective, CollectivePoint
from helixctl_runtime.comm.collectives import Issue, issue
from helixctl_runtime.compile.bound import Exchange
from helixctl_runtime.ranks import Rank

# Seconds of a core between two collectives: what a rank of the small twins computes there.
_COMPUTATION_S: Final = 0.0015
# Nothing is faster; what is left of a short collective after the subtraction may be noise below zero.
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
class Block:
    """What one rank notes of a loop of collectives: the host's clock, and seconds of a core.

    Attributes:
        begin_s, end_s: by a clock that all processes of a host share.
        computation_s: of the rank's computation between the collectives.
        processor_s: of all its threads.
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
        task: a computation like those of a step, of less than a few milliseconds, to run between the collectives; None
            where every rank has a device of its own.
    """

    def __init__(
        self,
        rank: Rank,
        groups: Mapping[tuple[int, ...], dist.ProcessGroup],
        task: Callable[[], object] | None,
    ) -> None:
        """Run nothing yet."""
        self._rank, self._groups, self._task = rank, groups, task

    def blocks(self, point: CollectivePoint, members: tuple[int, ...], blocks: int, repeat: int) -> list[Block]:
        """Repeat a collective of this rank's group a number of times in each of some loops."""
        calls = self._calls(point, members)
        for call in calls:
            call().wait()
        return [self._block(calls, repeat) for _ in range(blocks)]

    def _block(self, calls: Sequence[Issue], repeat: int) -> Block:
        self._synchronize()
        dist.barrier()
        computation, processor, begin = 0.0, time.process_time(), time.perf_counter()
        for turn in range(repeat):
            if self._task is not None:
                computation += _compute(self._task)
            calls[turn % len(calls)]().wait()
        self._synchronize()
        return Block(begin, time.perf_counter(), computation, time.process_time() - processor)

    def _synchronize(self) -> None:
        if self._rank.device.type == "cuda":
            torch.cuda.synchronize()

    def _calls(self, point: CollectivePoint, members: tuple[int, ...]) -> list[Issue]:
        """The calls to make in turn.

        The root changes from one to the next: a rank that only sends does not wait, and would run ahead of the others.
        """
        op, numel = _OPS[point.kind], numel_of(point)
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


def numel_of(point: CollectivePoint) -> int:
    """Elements of the float32 tensor that a rank passes, so that one rank receives about ``point.nbytes``."""
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


def nbytes_of(point: CollectivePoint) -> int:
    """``nbytes`` of a task of a dag that is this collective: what one rank receives."""
    op, numel = _OPS[point.kind], numel_of(point)
    share = numel // point.ranks
    made = {AllGather: numel * point.ranks, AllToAll: share, ReduceScatter: share}.get(type(op), numel)
    # What the piece and the result of an all-to-all have in common is a part of the piece.
    piece, whole = (Value("v", "t", 0, ((0, n),), "float32") for n in (numel, made))
    return nbytes(op, point.ranks, [piece] * point.ranks, [whole] * point.ranks, {})


def seconds_of(groups: Sequence[Sequence[Sequence[Block]]], repeat: int, stretch: float) -> float:
    """Seconds of a collective: median over the groups of the median over the blocks.

    In each, from when the first of a group's ranks began to when the last ended, less the computation.

    Args:
        groups: for each, for each of its ranks, the blocks.
        repeat: collectives in a block.
        stretch: ranks per core, not below 1.
    """

    def of(ranks: Sequence[Block]) -> float:
        wall = max(b.end_s for b in ranks) - min(b.begin_s for b in ranks)
        return (wall - stretch * statistics.fmean(b.computation_s for b in ranks)) / repeat

    found = statistics.median(statistics.median(of(b) for b in zip(*ranks, strict=True)) for ranks in groups)
    return max(found, _SHORTEST_S)


def load_of(blocks: Sequence[Block], stretch: float) -> float:
    """Cores that a rank keeps busy inside a collective: 0 to 1."""
    processor = sum(b.processor_s - b.computation_s for b in blocks)
    wall = sum(b.end_s - b.begin_s - stretch * b.computation_s for b in blocks)
    return min(1.0, max(0.0, processor / wall)) if wall > 0 else 0.0
