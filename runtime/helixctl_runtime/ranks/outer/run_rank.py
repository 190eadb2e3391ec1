"""Be one rank of a run that torchrun, srun or another launcher started, and end with all others when one fails."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch.distributed as dist

from helixctl.errors import HelixError
from helixctl_runtime.ranks.devices import DeviceKind, pick_device
from helixctl_runtime.ranks.failure.diagnosis import (
    TaskName,
    missing_ranks_error,
    root_cause,
    sigterm_error,
    store_unreachable_error,
)
from helixctl_runtime.ranks.failure.rank_report import RankReport, describe
from helixctl_runtime.ranks.launchers.launched_rank import LaunchedRank
from helixctl_runtime.ranks.logs import log_folder
from helixctl_runtime.ranks.outer.ending import Ending
from helixctl_runtime.ranks.outer.peers import Peers
from helixctl_runtime.ranks.outer.reporter import is_reporter, write_error_file
from helixctl_runtime.ranks.outer.sigterm import Sigterm
from helixctl_runtime.ranks.outer.store import address
from helixctl_runtime.ranks.progress import Phase, Progress
from helixctl_runtime.ranks.rank import Rank

# Seconds after which SIGTERM has ended a rank that was suspended and is woken.
_WOKEN: Final = 0.1


def run_as_rank(
    worker: Callable[[Rank], object],
    launched: LaunchedRank,
    *,
    device: DeviceKind,
    timeout: float,
    task_name: TaskName,
    log_dir: Path | None,
) -> list[object]:
    """Call the worker as the rank that this process is.

    Args:
        worker: what every rank does.
        launched: which rank this process is.
        device: the kind of its device.
        timeout: seconds that it waits for another rank.
        task_name: the id of the n-th task of a rank, for messages.
        log_dir: the folder for its traceback; None writes no traceback.

    Returns:
        A list of one result for each rank; only the result of this rank is filled in.

    Raises:
        HelixError: the cause of a failure, on the one rank of each host that reports it.
        SystemExit: the same failure, on the other ranks.
    """
    progress, where = Progress(), pick_device(device, launched.local_rank)
    ending = Ending()

    def end_stuck_rank() -> None:
        try:
            error = _cause(peers, None, timeout, task_name, None)
        except _Terminated as terminated:
            error = terminated.error
        write_error_file(error)
        if is_reporter(peers):
            for diagnostic in error.diagnostics:
                print(diagnostic, file=sys.stderr, flush=True)  # noqa: T201  the main thread waits and cannot raise
        peers.announce_exit()
        os._exit(error.exit_status)

    peers = Peers(
        launched.rank, launched.world_size, where, launched.rendezvous, timeout, progress, ending, end_stuck_rank
    )
    rank = Rank(
        rank=launched.rank,
        world_size=launched.world_size,
        local_rank=launched.local_rank,
        device=where,
        timeout=timeout,
        progress=progress,
        rendezvous=launched.rendezvous,
        peers=peers,
    )
    results: list[object] = [None] * launched.world_size
    sigterm = Sigterm()
    with sigterm.handled(peers.ends_within):
        try:
            results[launched.rank] = worker(rank)
            rank.progress.enter(Phase.DONE)
            ending.begin()
            if dist.is_initialized():
                dist.destroy_process_group()
        except Exception as error:
            ending.begin()
            log = _write_traceback(log_dir, rank.rank)
            try:
                cause = _cause(peers, describe(error), timeout, task_name, log)
            except _Terminated as terminated:
                if sigterm.received:
                    os._exit(128 + signal.SIGTERM)  # all ranks were terminated: that is no failure to report
                cause = terminated.error
            write_error_file(cause)
            reports = is_reporter(peers)
            peers.announce_exit()
            if reports:
                raise cause from error
            raise SystemExit(cause.exit_status) from error
    return results


class _Terminated(Exception):  # noqa: N818  no error of this rank
    """The others were ended by SIGTERM."""

    def __init__(self, error: HelixError) -> None:
        """Keep the error to report if SIGTERM did not reach this rank."""
        super().__init__(str(error))
        self.error = error


def _cause(
    peers: Peers, report: RankReport | None, timeout: float, task_name: TaskName, log: Path | None
) -> HelixError:
    """Why the run has ended, from this rank's report and those of the others."""
    collected = peers.collect_reports(report)
    states = [replace(s, log=log) if s.rank == peers.rank else s for s in collected.states]
    if any(s.report and s.report.kind in ("helix", "task") for s in states):
        return root_cause(states, timeout, task_name)
    if collected.terminated and not collected.missing:
        raise _Terminated(sigterm_error(states[0], collected.terminated))
    if collected.store:
        return (
            missing_ranks_error(states, collected.missing, timeout, task_name)
            if collected.missing
            else root_cause(states, timeout, task_name)
        )
    time.sleep(_WOKEN)
    if not peers.known:
        return store_unreachable_error(states[0], address(peers.rendezvous), timeout)
    # Rank 0 has the store. If the store does not answer, rank 0's host is gone, or, seen from that host, rank 0 itself.
    first = peers.known[0]
    gone = [p for p in peers.known.values() if p.host == first.host] if first.host != peers.host else [first]
    missing = [peers.without_lone_host(p) for p in gone if p.rank != peers.rank]
    return missing_ranks_error(states, missing, timeout, task_name)


def _write_traceback(log_dir: Path | None, rank: int) -> Path | None:
    if log_dir is None:
        return None
    with log_folder(log_dir) as logs, (logs / f"rank-{rank}.log").open("w", encoding="utf-8") as log:
        traceback.print_exc(file=log)
        return Path(log.name)
