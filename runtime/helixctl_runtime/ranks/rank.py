"""What a worker is told about itself, and the cell in which it says how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from helixctl_runtime.ranks.outer.peers import Peers

# int64 words of a rank's cell: a cache line each, so that ranks do not write to one another's.
CELL_WORDS: Final = 8


class Phase(IntEnum):
    """The parts of a run, in the order in which a rank goes through them."""

    STARTING = 0  # the process exists
    JOINING = 1  # in init_process_group
    PREPARING = 2  # groups, buffers, weights
    RUNNING = 3
    CHECKING = 4
    DONE = 5


class Position(NamedTuple):
    """How far a rank is; a smaller position is further behind."""

    phase: Phase
    step: int
    begun: int  # tasks of the step that the rank has begun


class Progress:
    """How far one rank is, in memory that the launcher can read while the rank is stuck or dead.

    Attributes:
        cell: ``cell[0]`` counts the tasks of this step that the rank has begun to issue or to wait for, so the
            current task is ``order[cell[0] - 1]``; ``cell[1]`` is the step. The hot loop writes both directly.
    """

    def __init__(self, cell: memoryview | None = None) -> None:
        """Use eight int64 words of shared memory, or private ones where no launcher looks."""
        self.cell: memoryview = memoryview(bytearray(8 * CELL_WORDS)).cast("q") if cell is None else cell

    def enter(self, phase: Phase) -> None:
        """Say that the rank is now in this phase."""
        self.cell[2] = phase

    def position(self) -> Position:
        """How far the rank is now."""
        return Position(Phase(self.cell[2]), self.cell[1], self.cell[0])


@dataclass
class Rank:
    """One process of a run.

    Attributes:
        local_rank: its number on its machine.
        device: where it computes.
        timeout: seconds that it waits for another rank.
        rendezvous: the ``init_method`` through which the ranks find each other.
        peers: the other ranks, where another launcher started all.
    """

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    timeout: float
    progress: Progress
    rendezvous: str
    peers: Peers | None = None

    def __str__(self) -> str:
        """``rank 3 (cpu)``, or ``rank 3 (cpu) on host a``."""
        host = self.peers.shown_host if self.peers else ""
        return f"rank {self.rank} ({self.device})" + (f" on host {host}" if host else "")

    def init_process_group(self) -> None:
        """Join the other ranks: gloo on CPU, NCCL on CUDA, with the run's timeout."""
        self.progress.enter(Phase.JOINING)
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.set_device(self.device)
        store = self.peers.meet() if self.peers else None
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            init_method=None if store else self.rendezvous,
            store=store,
            rank=self.rank,
            world_size=self.world_size,
            timeout=timedelta(seconds=self.timeout),
            device_id=self.device if cuda else None,
        )
        if self.peers:
            self.peers.learn()
        self.progress.enter(Phase.PREPARING)

    def new_groups(self, members: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], dist.ProcessGroup]:
        """The process group of each set of ranks that this rank belongs to.

        Every rank must call this with the same sets in the same order: torch names a group by counting the calls, and
        NCCL splits the world's communicator, which takes all ranks. A set that is given twice is made once, and that of
        all ranks is the default group.

        Raises:
            ValueError: ranks do not ascend. torch sorts them, so pieces would arrive in another order than asked for.
        """
        world = tuple(range(self.world_size))
        groups: dict[tuple[int, ...], dist.ProcessGroup] = {}
        for ranks in dict.fromkeys(members):
            if list(ranks) != sorted(set(ranks)):
                message = f"the ranks of a group must ascend: {ranks}"
                raise ValueError(message)
            # A group that is given no timeout waits for torch's default, not for that of the default group.
            group = dist.group.WORLD if ranks == world else dist.new_group(ranks, timedelta(seconds=self.timeout))
            if self.rank in ranks and group is not None:
                groups[ranks] = group
        return groups
