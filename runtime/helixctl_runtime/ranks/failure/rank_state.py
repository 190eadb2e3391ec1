"""What is known of each rank when a run has failed."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

import torch

from helixctl_runtime.ranks.failure.rank_report import RankReport
from helixctl_runtime.ranks.progress import Position


@dataclass(frozen=True, slots=True)
class Peer:
    """A rank of a run on several hosts; host and device are empty until the rank has published them."""

    rank: int
    host: str = ""
    device: str = ""


@dataclass(frozen=True, slots=True)
class RankState:
    """What is known of one rank when the run has failed.

    Attributes:
        rank, device: its number, and where it computes.
        position: how far it is.
        report: what it reported; None if nothing.
        exit_code: the status of its process; minus the number of a signal that ended it; None while it runs.
        idle: seconds since its position last changed.
        stopped: its process is suspended (SIGSTOP, a debugger).
        log: the file with its output, if any.
        host: the name of its host; empty if the run has one host.
    """

    rank: int
    device: torch.device
    position: Position
    report: RankReport | None
    exit_code: int | None
    idle: float
    stopped: bool
    log: Path | None
    host: str = ""

    def __str__(self) -> str:
        """``rank 3 (cpu)``, or ``rank 3 (cpu) on host a``."""
        return f"rank {self.rank} ({self.device})" + (f" on host {self.host}" if self.host else "")

    def died(self, timeout: float) -> bool:
        """Whether the process ended without a report, and not because NCCL aborted it for a late peer."""
        return self.report is None and self.exit_code is not None and not self._aborted(timeout)

    def waits(self, timeout: float) -> bool:
        """Whether the rank gave up waiting for another."""
        return self.report.kind == "late" if self.report else self._aborted(timeout)

    def _aborted(self, timeout: float) -> bool:
        aborted = self.device.type == "cuda" and self.exit_code == -signal.SIGABRT
        return aborted and self.idle >= 0.9 * timeout
