"""Who started this process: torchrun, srun, or nobody."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from helixctl.errors import fail

DeviceKind = Literal["cpu", "cuda"]

# Ports that SLURM jobs share out among themselves, below those that Linux gives to clients.
_FIRST_PORT, _PORTS = 20000, 12000


@dataclass(frozen=True, slots=True)
class Place:
    """This process is one rank of a run that something else started."""

    launcher: Literal["torchrun", "srun"]
    rank: int
    world_size: int
    local_rank: int
    rendezvous: str


def detect(environ: Mapping[str, str]) -> Place | None:
    """The rank that the environment makes of this process; None where this process is to start the ranks.

    ``RANK`` and ``WORLD_SIZE`` are torchrun's (and most other launchers'); ``SLURM_PROCID`` is srun's.
    """
    if "RANK" in environ and "WORLD_SIZE" in environ:
        return _of_torchrun(environ)
    if "SLURM_PROCID" in environ and _slurm_tasks(environ) > 1:
        return _of_srun(environ)
    return None


def check_world_size(place: Place, wanted: int) -> None:
    """Raise HX509 where the launcher started another number of ranks than the plan has."""
    if place.world_size == wanted:
        return
    command = {
        "torchrun": f"torchrun --nproc-per-node {wanted} --no-python helixctl run ... "
        f"(over two hosts: --nnodes 2 --nproc-per-node {max(1, wanted // 2)}), "
        "or unset RANK and WORLD_SIZE to start local ranks",
        "srun": f"srun --ntasks {wanted} helixctl run ..., or unset SLURM_PROCID to start local ranks",
    }
    started = f"{place.launcher} started {place.world_size}"
    raise fail("HX509", f"the plan is for {wanted} ranks, {started}", command[place.launcher])


def pick_device(kind: DeviceKind, local_rank: int) -> torch.device:
    """The device of a rank that another launcher started."""
    if kind == "cpu":
        return torch.device("cpu")
    seen = torch.cuda.device_count()
    # srun --gpus-per-task shows every task its own device as number 0.
    index = 0 if seen == 1 and "CUDA_VISIBLE_DEVICES" in os.environ else local_rank
    if index >= seen:
        hint = "start at most one rank per device, or use --device cpu"
        raise fail("HX502", f"local rank {local_rank} needs CUDA device {index}, this machine has {seen}", hint)
    return torch.device("cuda", index)


def check_devices(kind: DeviceKind, world_size: int) -> None:
    """Raise HX502 where this machine alone has too few devices for all ranks."""
    seen = torch.cuda.device_count() if kind == "cuda" else world_size
    if seen < world_size:
        per_host = max(1, seen)
        raise fail(
            "HX502",
            f"{world_size} ranks need {world_size} CUDA devices, this machine has {seen}",
            "use --device cpu, or start the ranks over several hosts: "
            f"torchrun --nnodes {-(-world_size // per_host)} --nproc-per-node {per_host} --no-python helixctl run ...",
        )


def expand_hosts(nodelist: str) -> list[str]:
    """The hosts of a SLURM node list: ``a[1-2,7],b`` is a1, a2, a7, b; leading zeros are kept."""
    # A comma inside brackets separates numbers, one outside separates hosts.
    if not re.fullmatch(r"(?:[^\[\]]|\[[0-9,-]+\])+", nodelist):
        raise fail("HX509", f"{nodelist!r} is not a SLURM node list", "set MASTER_ADDR to the host of rank 0")
    hosts: list[str] = []
    for entry in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodelist):
        parts = re.split(r"\[([^\]]*)\]", entry)
        choices = [_numbers(part) if index % 2 else [part] for index, part in enumerate(parts)]
        hosts += ["".join(chosen) for chosen in itertools.product(*choices)]
    return hosts


def _numbers(ranges: str) -> list[str]:
    numbers: list[str] = []
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        numbers += [str(n).zfill(len(first)) for n in range(int(first), int(last or first) + 1)]
    return numbers


def _of_torchrun(environ: Mapping[str, str]) -> Place:
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in environ]
    if missing:
        hint = "set it as torchrun does, or unset RANK and WORLD_SIZE to start local ranks"
        raise fail("HX509", f"RANK and WORLD_SIZE are set, {' and '.join(missing)} not", hint)
    rank = _integer(environ, "RANK", 0)
    # env:// and not the address itself: under torchrun the store already runs in its agent.
    return Place("torchrun", rank, _integer(environ, "WORLD_SIZE", 1), _integer(environ, "LOCAL_RANK", rank), "env://")


def _of_srun(environ: Mapping[str, str]) -> Place:
    nodelist = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_NODELIST") or environ.get("SLURM_JOB_NODELIST")
    host = environ.get("MASTER_ADDR") or (expand_hosts(nodelist)[0] if nodelist else None)
    if host is None:
        hint = "set MASTER_ADDR to the host of rank 0, or unset SLURM_PROCID to start local ranks"
        raise fail("HX509", "SLURM_PROCID is set, SLURM_NODELIST is not", hint)
    job, step = _integer(environ, "SLURM_JOB_ID", 0), _integer(environ, "SLURM_STEP_ID", 0)
    port = _integer(environ, "MASTER_PORT", _FIRST_PORT + (job * 16 + step) % _PORTS)
    rank = _integer(environ, "SLURM_PROCID", 0)
    return Place("srun", rank, _slurm_tasks(environ), _integer(environ, "SLURM_LOCALID", rank), f"tcp://{host}:{port}")


def _slurm_tasks(environ: Mapping[str, str]) -> int:
    # A step may have fewer tasks than its job: srun -n 1 inside a larger allocation.
    return _integer(environ, "SLURM_STEP_NUM_TASKS", _integer(environ, "SLURM_NTASKS", 1))


def _integer(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal():
        raise fail("HX509", f"{name} is {text!r}, not a number", f"unset {name}, or set it as the launcher does")
    return int(text)
