"""What a worker knows of its rank, and how it joins the other ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import torch
import torch.distributed as dist

from helixctl_runtime.ranks.progress import Phase, Progress

if TYPE_CHECKING:  # torch.distributed exports it at run time, but its stubs do not
    from torch._C._distributed_c10d import Store


class PeerDirectory(Protocol):
    """The connection of a rank of an outer launcher to the other ranks."""

    @property
    def shown_host(self) -> str:
        """The name of this host for messages; empty if the run has one host."""

    def connect(self) -> Store:
        """Connect to the store and publish the host and the device of this rank."""

    def load_peers(self) -> None:
        """Read host and device of all ranks; all have connected before any process group is complete."""


@dataclass
class Rank:
    """One process of a run.

    Attributes:
        rank, world_size: its number in the run, and the number of all ranks.
        local_rank: its number on its machine.
        device: where it computes.
        timeout: seconds that it waits for another rank.
        progress: how far it is.
        rendezvous: the ``init_method`` through which the ranks find each other.
        peers: the other ranks, if an outer launcher started all; None for local ranks.
    """

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    timeout: float
    progress: Progress
    rendezvous: str
    peers: PeerDirectory | None = None

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
        store = self.peers.connect() if self.peers else None
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
            self.peers.load_peers()
        self.progress.enter(Phase.PREPARING)

    def new_groups(self, members: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], dist.ProcessGroup]:
        """The process group of each set of ranks that this rank belongs to.

        Every rank must call this with the same sets in the same order: torch names a group by counting the calls, and
        NCCL splits the world's communicator, which takes all ranks.

        Args:
            members: the sets, each as ascending ranks. A set that occurs twice gets one group; the set of all ranks
                is the default group.

        Raises:
            ValueError: ranks do not ascend. torch sorts them, so pieces would arrive in another order.
        """
        world = tuple(range(self.world_size))
        groups: dict[tuple[int, ...], dist.ProcessGroup] = {}
        for ranks in dict.fromkeys(members):
            if list(ranks) != sorted(set(ranks)):
                message = f"the ranks of a group must ascend: {ranks}"
                raise ValueError(message)
            # Without a timeout a group takes torch's default, not the timeout of the default group.
            group = dist.group.WORLD if ranks == world else dist.new_group(ranks, timedelta(seconds=self.timeout))
            if self.rank in ranks and group is not None:
                groups[ranks] = group
        return groups
