"""Clock: moments of one rank's work."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Clock:
    """Takes moments: of the processor on CPU; on CUDA of the current stream, to be read once the device is idle.

    Attributes:
        name: clocks of one name show one time. On CPU that is all processes of a host, on CUDA one rank alone.
        now: takes a moment.
    """

    def __init__(self, device: torch.device, rank: int) -> None:
        """The clock of a rank; it runs by itself."""
        self.cuda = device.type == "cuda"
        self.name = f"rank {rank}" if self.cuda else _host()
        self.now: Callable[[], Any] = _event if self.cuda else time.perf_counter

    def seconds(self, begin: Any, end: Any) -> float:
        """Seconds from one moment to another."""
        return float(begin.elapsed_time(end)) * 1e-3 if self.cuda else float(end - begin)

    def reading(self, moment: Any, begin: Any) -> float:
        """What the clock shows at a moment of the step that began at ``begin``: seconds; on CUDA since then."""
        return self.seconds(begin, moment) if self.cuda else float(moment)

    def settle(self) -> None:
        """Wait until every moment taken so far has passed, so that it can be read."""
        if self.cuda:
            torch.cuda.synchronize()


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _host() -> str:
    """One name for all that share a monotonic clock: the processes of a host, those in its containers too."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()
