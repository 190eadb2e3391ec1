"""Ranks as processes of this machine: start them, watch them, end them."""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import os
import pickle
import selectors
import socket
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Final

import torch

from helixctl.errors import fail
from helixctl_runtime.ranks.devices import DeviceKind
from helixctl_runtime.ranks.failure.rank_report import RankReport
from helixctl_runtime.ranks.failure.rank_state import RankState
from helixctl_runtime.ranks.local.child import LENGTH_BYTES, Assignment, rank_progress, release, serve
from helixctl_runtime.ranks.progress import CELL_WORDS, Phase, Position, Progress
from helixctl_runtime.ranks.rank import Rank

# Seconds between two looks at the cells; reports and deaths are noticed at once.
_TICK: Final = 0.2
# Seconds after the first failure in which to wait for one that explains it: a death, or the positions of the others.
_SETTLE: Final = {"helix": 0.1, "task": 0.1, "late": 0.5, "gone": 0.5}
# gloo's timeout names a cause and a missing report does not, so gloo's timeout must come first.
_SILENCE_MARGIN: Final = 1.0
_FAREWELL: Final = 5.0  # for ranks that have succeeded: NCCL needs seconds to close
_AFTER_SIGTERM: Final = 0.2
_AFTER_SIGKILL: Final = 5.0

_CHUNK: Final = 1 << 20
_OMP_PAUSE_HARD: Final = 2


@dataclass
class _LocalRank:
    rank: int
    device: torch.device
    log: Path
    process: BaseProcess
    link: socket.socket
    progress: Progress
    received: bytearray = field(default_factory=bytearray)
    report: RankReport | None = None
    last_seen: tuple[Position, int] | None = None
    last_moved: float = field(default_factory=time.monotonic)

    @property
    def pending(self) -> bool:
        """Whether the rank has neither reported nor ended."""
        return self.report is None and self.process.exitcode is None

    def check_progress(self, now: float) -> None:
        """Note the time if the rank has moved since the last look."""
        position = self.progress.position()
        # These phases may take long without a task, so processor time counts as progress in them.
        long = position.phase in (Phase.PREPARING, Phase.CHECKING)
        seen = (position, _process_state(self.process.pid)[1] if long else 0)
        if seen != self.last_seen:
            self.last_seen, self.last_moved = seen, now

    def receive(self) -> bool:
        """Read what the rank has sent; False if nothing more will come."""
        while self.report is None:
            try:
                chunk = self.link.recv(_CHUNK)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not chunk:
                return False
            self.received += chunk
            length = int.from_bytes(self.received[:LENGTH_BYTES], "big") + LENGTH_BYTES
            if LENGTH_BYTES < length == len(self.received):
                self.report = pickle.loads(memoryview(self.received)[LENGTH_BYTES:])  # noqa: S301  our own process
                self.received = bytearray()
        return False

    def state(self) -> RankState:
        """The state of the rank now."""
        stopped = _process_state(self.process.pid)[0] in ("T", "t")
        position, idle = self.progress.position(), time.monotonic() - self.last_moved
        return RankState(
            self.rank, self.device, position, self.report, self.process.exitcode, idle, stopped=stopped, log=self.log
        )


class LocalRanks:
    """The processes of one run. ``end`` must always be called; it leaves no process behind."""

    def __init__(self, world_size: int, device: DeviceKind, timeout: float, logs: Path) -> None:
        """Start no process yet.

        Args:
            world_size: the number of ranks.
            device: the kind of their devices.
            timeout: seconds that a rank waits for another.
            logs: the folder for their logs.
        """
        self._world_size, self._device, self._timeout, self._logs = world_size, device, timeout, logs
        self._ranks: list[_LocalRank] = []
        self._selector = selectors.DefaultSelector()
        self._succeeded = False

    def start(self, worker: Callable[[Rank], object], rendezvous: str) -> None:
        """Start all ranks: forked on CPU, fresh on CUDA, which does not survive a fork."""
        forks = self._device == "cpu"
        context = multiprocessing.get_context("fork") if forks else multiprocessing.get_context("spawn")
        threads = max(1, _cores() // self._world_size)
        if forks and not _stop_thread_pool():
            threads = 1
        # Anonymous shared memory needs no clean-up after a kill.
        cells: ctypes.Array[ctypes.c_int64] = RawArray(ctypes.c_int64, CELL_WORDS * self._world_size)
        for rank in range(self._world_size):
            device = torch.device("cuda", rank) if self._device == "cuda" else torch.device("cpu")
            ours, theirs = socket.socketpair()
            log = self._logs / f"rank-{rank}.log"
            inherited = [*(r.link for r in self._ranks), ours] if forks else []
            assignment = Assignment(
                rank=rank,
                world_size=self._world_size,
                device=self._device,
                timeout=self._timeout,
                rendezvous=rendezvous,
                threads=threads,
                launcher=os.getpid(),
                log=log,
                cells=cells,
                link=theirs,
                inherited=inherited,
            )
            process = context.Process(
                target=serve, args=(assignment, worker), name=f"helixctl rank {rank}", daemon=True
            )
            with theirs, warnings.catch_warnings():
                # Python 3.12 warns of forking beside threads; those of torch and numpy are idle or stopped.
                warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
                try:
                    process.start()
                except OSError as error:
                    hint = "there is no room for another process: see ulimit -u, and the limits of a container"
                    raise fail("HX510", f"rank {rank} ({device}) could not be started: {error}", hint) from error
            ours.settimeout(0)
            local = _LocalRank(rank, device, log, process, ours, rank_progress(cells, rank))
            self._ranks.append(local)
            self._selector.register(ours, selectors.EVENT_READ, local)

    def wait(self, on_progress: Callable[[Position], None] | None = None) -> list[object] | None:
        """Wait for the result of every rank.

        Args:
            on_progress: called a few times a second with the position of the slowest rank.

        Returns:
            The results by rank; None when a rank has failed and enough is known to name the cause.
        """
        decide = math.inf
        while True:
            self._listen(min(_TICK, decide - time.monotonic()))
            now = time.monotonic()
            if on_progress is not None:
                on_progress(min(r.progress.position() for r in self._ranks))
            reports = [r.report for r in self._ranks if r.report]
            results = [report.value for report in reports if report.kind == "result"]
            if len(results) == self._world_size:
                self._succeeded = True
                return results
            states = self.states()
            pending = [r for r in self._ranks if r.pending]
            silent = all(now - r.last_moved > self._timeout + _SILENCE_MARGIN for r in pending)
            if silent or any(s.died(self._timeout) for s in states):
                return None
            settle = [_SETTLE[report.kind] for report in reports if report.kind != "result"]
            settle += [_SETTLE["late"] for s in states if s.report is None and s.waits(self._timeout)]
            decide = min([decide, *(now + seconds for seconds in settle)])
            if now >= decide:
                return None

    def states(self) -> list[RankState]:
        """The state of every rank now."""
        return [r.state() for r in self._ranks]

    def end(self) -> None:
        """End every rank: after success by permission to exit, else by signals."""
        if self._succeeded:
            for r in self._ranks:
                release(r.link)
            _join([r.process for r in self._ranks], _FAREWELL)
        alive = [r.process for r in self._ranks if r.process.is_alive()]
        for process in alive:
            process.terminate()
        _join(alive, _AFTER_SIGTERM)
        # A suspended process does not act on SIGTERM.
        for process in alive:
            process.kill()
        _join(alive, _AFTER_SIGKILL)
        self._selector.close()
        for r in self._ranks:
            r.link.close()

    def _listen(self, seconds: float) -> None:
        for key, _ in self._selector.select(max(0.0, seconds)):
            rank: _LocalRank = key.data
            if not rank.receive():
                self._selector.unregister(rank.link)
                if rank.report is None:
                    rank.process.join(_TICK)
        now = time.monotonic()
        for rank in self._ranks:
            if rank.report is None and rank.process.exitcode is not None:
                rank.receive()
            elif rank.pending:
                rank.check_progress(now)


def _join(processes: Sequence[BaseProcess], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _process_state(pid: int | None) -> tuple[str, int]:
    """The state letter and the processor time of a process on Linux; elsewhere "?" and a clock that always grows."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123  in the loop of the launcher
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return "?", time.monotonic_ns()
    return fields[0], int(fields[11]) + int(fields[12])


def _stop_thread_pool() -> bool:
    """End the OpenMP threads of this process before a fork.

    A fork copies the list of the threads, but not the threads, so a child hangs at its first operation on two threads.
    OpenMP starts them again when they are needed.

    Returns:
        Whether the threads have ended.
    """
    try:
        with open("/proc/self/maps", encoding="utf-8") as maps:  # noqa: PTH123
            loaded = {line.split()[-1] for line in maps if "libgomp" in line or "libiomp" in line or "libomp" in line}
        return bool(loaded) and all(ctypes.CDLL(path).omp_pause_resource_all(_OMP_PAUSE_HARD) == 0 for path in loaded)
    except (OSError, AttributeError):
        return False
