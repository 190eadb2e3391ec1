"""The device of a rank, and whether this machine has enough of them."""

from __future__ import annotations

import os
from typing import Literal

import torch

from helixctl.errors import fail

DeviceKind = Literal["cpu", "cuda"]


def pick_device(kind: DeviceKind, local_rank: int) -> torch.device:
    """The device of a rank that an outer launcher started.

    Args:
        kind: cpu or cuda.
        local_rank: the number of the rank on this machine.

    Raises:
        HelixError: HX502, this machine has no such CUDA device.
    """
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
    """Raise HX502 if this machine has too few devices to start all ranks on it."""
    seen = torch.cuda.device_count() if kind == "cuda" else world_size
    if seen < world_size == 1:
        raise fail("HX502", "1 rank needs a CUDA device, this machine has none", "use --device cpu")
    if seen < world_size:
        per_host = max(1, seen)
        raise fail(
            "HX502",
            f"{world_size} ranks need {world_size} CUDA devices, this machine has {seen}",
            "use --device cpu, or start the ranks over several hosts: "
            f"torchrun --nnodes {-(-world_size // per_host)} --nproc-per-node {per_host} --no-python helixctl run ...",
        )
