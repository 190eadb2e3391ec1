"""The clock of one rank: the host's on CPU, events of the current stream on CUDA."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Clock:
    """Takes moments in time: the host's on CPU; on CUDA events, which can be read when the device is idle.

    Attributes:
        cuda: the moments are events of the current CUDA stream.
        name: clocks with the same name show the same time. All processes of a host share one on CPU; every rank has
            its own on CUDA.
        now: takes a moment.
    """

    def __init__(self, device: torch.device, rank: int) -> None:
        """The clock of a rank on a device."""
        self.cuda = device.type == "cuda"
        self.name = f"rank {rank}" if self.cuda else _host()
        self.now: Callable[[], Any] = _event if self.cuda else time.perf_counter

    def seconds(self, begin: Any, end: Any) -> float:
        """Seconds from one moment to another."""
        return float(begin.elapsed_time(end)) * 1e-3 if self.cuda else float(end - begin)

    def reading(self, moment: Any, begin: Any) -> float:
        """The time of a moment in seconds; on CUDA it is counted from the begin of the step.

        Args:
            moment: the moment.
            begin: the begin of its step.
        """
        return self.seconds(begin, moment) if self.cuda else float(moment)

    def settle(self) -> None:
        """Wait until every moment taken so far can be read."""
        if self.cuda:
            torch.cuda.synchronize()


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _host() -> str:
    """A name that all processes of a host share, because they share its monotonic clock; also those in containers."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()
