"""What a worker is told about itself, and how it joins the other ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import torch
import torch.distributed as dist

from helixctl_runtime.ranks.progress import Phase, Progress

if TYPE_CHECKING:  # torch.distributed has it for use, not for types
    from torch._C._distributed_c10d import Store


class MeetingPlace(Protocol):
    """Where the ranks of an outer launcher meet."""

    @property
    def shown_host(self) -> str:
        """This host's name for messages; empty where there is only one."""

    def meet(self) -> Store:
        """Connect, and say where this rank is."""

    def learn(self) -> None:
        """Get to know all ranks; each has met before anyone's process group is complete."""


@dataclass
class Rank:
    """One process of a run.

    Attributes:
        local_rank: its number on its machine.
        device: where it computes.
        timeout: seconds that it waits for another rank.
        rendezvous: the ``init_method`` through which the ranks find each other.
        peers: where it meets the other ranks, if another launcher started all.
    """

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    timeout: float
    progress: Progress
    rendezvous: str
    peers: MeetingPlace | None = None

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
