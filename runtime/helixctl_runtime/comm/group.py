"""The ranks of a collective, and the ways on which data go between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from helixctl_runtime.comm.links import Links, connected


@dataclass(frozen=True, slots=True)
class Group:
    """A set of ranks.

    Attributes:
        process: torch's process group of them.
        links: sockets of this rank to all others of them; None where they are not all on this host, or on GPUs.
    """

    process: dist.ProcessGroup
    links: Links | None = None


Groups = Mapping[tuple[int, ...], Group]


def groups_of(
    processes: Mapping[tuple[int, ...], dist.ProcessGroup],
    sets: Sequence[tuple[int, ...]],
    rank: int,
    device: torch.device,
    timeout: float,
) -> Groups:
    """The groups of a rank; all ranks call it with the same sets.

    Args:
        processes: the process group of every set that the rank belongs to.
        sets: all sets, each as ascending ranks.
        rank: this rank.
        device: where it computes.
        timeout: seconds that it waits for another.
    """
    links = connected(rank, sets, timeout) if device.type == "cpu" else None

    def linked(ranks: tuple[int, ...]) -> bool:
        return links is not None and all(each in links for each in ranks if each != rank)

    return {ranks: Group(process, links if linked(ranks) else None) for ranks, process in processes.items()}
