"""The part of one rank: measure every point together with the other ranks; rank 0 combines the measurements."""

from __future__ import annotations

import os
import socket
import statistics
from dataclasses import dataclass

import torch
import torch.distributed as dist

from helixctl.errors import fail
from helixctl_runtime.calibrate.collective_time import CollectiveTimer, collective_load, collective_seconds
from helixctl_runtime.calibrate.kernel_time import KernelTimer
from helixctl_runtime.calibrate.points import CollectivePoint, KernelPoint, Sizes
from helixctl_runtime.comm.group import groups_of
from helixctl_runtime.ranks import Phase, Rank
from helixctl_runtime.report.environment import environment


@dataclass(frozen=True, slots=True)
class Measurements:
    """The measurements of all ranks.

    Attributes:
        hosts, ranks_per_host: the number of hosts, and of the ranks on each.
        cores: the cores of a host, which its ranks share; None if each rank has its own device.
        device, torch_version: the hardware and the version of torch.
        memory_nbytes: bytes of one device, or one rank's part of the host's memory.
        kernels: seconds of one repetition on the device, or on one core if ranks share cores.
        collectives: seconds from the issue by the last rank to the result at the last rank.
        collective_load: cores that a rank keeps busy inside a collective, from 0 to 1.
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
class CalibrationWorker:
    """The worker of each rank; picklable, so that it can be sent to a spawned rank.

    Attributes:
        sizes: the sizes to measure.
        kernels: the kernels to measure, in order.
    """

    sizes: Sizes
    kernels: tuple[KernelPoint, ...]

    def __call__(self, rank: Rank) -> Measurements | None:
        """Measure as one rank; rank 0 returns the measurements of all, the others None."""
        rank.init_process_group()
        per_host = _ranks_per_host(rank)
        cuda, info = rank.device.type == "cuda", environment()
        cores = None if cuda else int(info["cpus"])
        stretch = 1.0 if cores is None else max(1.0, per_host / cores)
        collectives = tuple(self.sizes.collectives(per_host))
        members = {k: _split(rank.world_size, k) for k in dict.fromkeys(p.ranks for p in collectives)}
        sets = [g for split in members.values() for g in split]
        groups = groups_of(rank.new_groups(sets), sets, rank.rank, rank.device, rank.timeout)
        rank.progress.enter(Phase.RUNNING)
        with torch.inference_mode():
            timer = KernelTimer(self.sizes, rank)
            seconds = []
            for index, point in enumerate(self.kernels):
                _announce(rank, index)
                dist.barrier()
                seconds.append(timer.seconds(point))
            exchanges = CollectiveTimer(rank, groups, timer.other_task if stretch > 1 else None)
            loops = []
            for index, collective in enumerate(collectives, len(self.kernels)):
                _announce(rank, index)
                (mine,) = (g for g in members[collective.ranks] if rank.rank in g)
                loops.append(exchanges.loops(collective, mine, self.sizes.loops, self.sizes.exchanges))

        found = [(seconds, loops)] * rank.world_size
        dist.all_gather_object(found, (seconds, loops))
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
                p: collective_seconds(
                    [[found[r][1][i] for r in g] for g in members[p.ranks]], self.sizes.exchanges, stretch
                )
                for i, p in enumerate(collectives)
            },
            collective_load=0.0
            if cuda
            else collective_load([b for _, each in found for p in each for b in p], stretch),
        )


def _announce(rank: Rank, index: int) -> None:
    """Write the number of the measurement into the cell that the launcher reads."""
    rank.progress.cell[0], rank.progress.cell[1] = index + 1, index


def _ranks_per_host(rank: Rank) -> int:
    """The number of ranks on each host.

    Raises:
        HelixError: HX509, the hosts do not have equally many ranks, numbered host by host.
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
