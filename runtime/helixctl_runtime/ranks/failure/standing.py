"""What is known of a rank, and of a rank on another host, when a run has failed."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

import torch

from helixctl_runtime.ranks.failure.report import Report
from helixctl_runtime.ranks.progress import Position


@dataclass(frozen=True, slots=True)
class Peer:
    """A rank of a run on several hosts; host and device are empty until it has said them."""

    rank: int
    host: str = ""
    device: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the launcher knows of one rank when the run has failed.

    Attributes:
        report: None where it has not said anything.
        exit_code: None while it lives; minus the number of the signal that ended it.
        idle: seconds since its position last changed.
        stopped: the process is suspended (SIGSTOP, a debugger).
        host: its name, where ranks run on several hosts; else empty.
    """

    rank: int
    device: torch.device
    position: Position
    report: Report | None
    exit_code: int | None
    idle: float
    stopped: bool
    log: Path | None
    host: str = ""

    def __str__(self) -> str:
        """``rank 3 (cpu)``, or ``rank 3 (cpu) on host a``."""
        return f"rank {self.rank} ({self.device})" + (f" on host {self.host}" if self.host else "")

    def died(self, timeout: float) -> bool:
        """It ended without a word, and not because NCCL ends a process whose peers are late."""
        return self.report is None and self.exit_code is not None and not self._aborted(timeout)

    def waits(self, timeout: float) -> bool:
        """It gave up waiting for another rank."""
        return self.report.kind == "late" if self.report else self._aborted(timeout)

    def _aborted(self, timeout: float) -> bool:
        aborted = self.device.type == "cuda" and self.exit_code == -signal.SIGABRT
        return aborted and self.idle >= 0.9 * timeout
