"""The part of one rank: measure every point together with the others; rank 0 puts it all together."""

from __future__ import annotations

import os
import socket
import statistics
from dataclasses import dataclass

import torch
import torch.distributed as dist

from helixctl.errors import fail
from helixctl_runtime.calibrate.collective_time import CollectiveTimer, load_of, seconds_of
from helixctl_runtime.calibrate.kernel_time import KernelTimer
from helixctl_runtime.calibrate.points import CollectivePoint, KernelPoint, Sizes
from helixctl_runtime.ranks import Phase, Rank
from helixctl_runtime.report.environment import environment


@dataclass(frozen=True, slots=True)
class Measurements:
    """What was measured, in seconds.

    Attributes:
        hosts, ranks_per_host: where the ranks were.
        cores: of a host, shared by its ranks; None: each has a device of its own.
        device, torch_version: what the numbers are of.
        memory_nbytes: of one device, or one rank's part of the machine's.
        kernels: of one repetition on the device, or on one core where ranks share cores.
        collectives: from when the last rank has issued it to when the last rank has its result.
        collective_load: cores that a rank keeps busy inside a collective.
    """

    hosts: int
    ranks_per_host: int
    cores: int | None
    device: str
    torch_version: str
    memory_nbytes: int
    kernels: dict[KernelPoint, float]
    collectives: dict[CollectivePoint, float]
    collective_load: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """What each rank is given; picklable, so that it can be sent to a spawned rank."""

    sizes: Sizes
    kernels: tuple[KernelPoint, ...]

    def __call__(self, rank: Rank) -> Measurements | None:
        """Be one rank; rank 0 returns the measurements of all."""
        rank.init_process_group()
        per_host = _ranks_per_host(rank)
        cuda, info = rank.device.type == "cuda", environment()
        cores = None if cuda else int(info["cpus"])
        stretch = 1.0 if cores is None else max(1.0, per_host / cores)
        collectives = tuple(self.sizes.collectives(per_host))
        members = {k: _split(rank.world_size, k) for k in dict.fromkeys(p.ranks for p in collectives)}
        groups = rank.new_groups([g for split in members.values() for g in split])
        rank.progress.enter(Phase.RUNNING)
        with torch.inference_mode():
            timer = KernelTimer(self.sizes, rank)
            seconds = []
            for place, point in enumerate(self.kernels):
                _announce(rank, place)
                dist.barrier()
                seconds.append(timer.seconds(point))
            exchanges = CollectiveTimer(rank, groups, timer.other_task if stretch > 1 else None)
            blocks = []
            for place, collective in enumerate(collectives, len(self.kernels)):
                _announce(rank, place)
                (mine,) = (g for g in members[collective.ranks] if rank.rank in g)
                blocks.append(exchanges.blocks(collective, mine, self.sizes.blocks, self.sizes.exchanges))

        found = [(seconds, blocks)] * rank.world_size
        dist.all_gather_object(found, (seconds, blocks))
        if rank.rank:
            return None
        return Measurements(
            hosts=rank.world_size // per_host,
            ranks_per_host=per_host,
            cores=cores,
            device=str(info["gpu" if cuda else "processor"]),
            torch_version=info["torch"],
            memory_nbytes=_memory(rank, per_host),
            kernels={p: statistics.median(s[i] for s, _ in found) for i, p in enumerate(self.kernels)},
            collectives={
                p: seconds_of([[found[r][1][i] for r in g] for g in members[p.ranks]], self.sizes.exchanges, stretch)
                for i, p in enumerate(collectives)
            },
            collective_load=0.0 if cuda else load_of([b for _, each in found for p in each for b in p], stretch),
        )


def _announce(rank: Rank, place: int) -> None:
    """Let the launcher see which measurement this is."""
    rank.progress.cell[0], rank.progress.cell[1] = place + 1, place


def _ranks_per_host(rank: Rank) -> int:
    """How many ranks each host has, in blocks of neighbours.

    Raises:
        HelixError: HX509, the hosts have not equally many neighbouring ranks.
    """
    names = [""] * rank.world_size
    dist.all_gather_object(names, socket.gethostname())
    per_host = names.count(names[0])
    blocks = [names[i : i + per_host] for i in range(0, len(names), per_host)]
    if any(len(set(block)) > 1 for block in blocks) or len({block[0] for block in blocks}) * per_host != len(names):
        message = "the hosts do not have equally many ranks, numbered host by host"
        raise fail("HX509", message, "start as many ranks on every host, as torchrun does")
    return per_host


def _split(world_size: int, size: int) -> list[tuple[int, ...]]:
    return [tuple(range(first, first + size)) for first in range(0, world_size, size)]


def _memory(rank: Rank, per_host: int) -> int:
    if rank.device.type == "cuda":
        return torch.cuda.get_device_properties(rank.device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // per_host
