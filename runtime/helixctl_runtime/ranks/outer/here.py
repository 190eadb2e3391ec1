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
from helixctl_runtime.ranks.failure.diagnosis import TaskName, absent, ended_by_sigterm, nobody_there, root_cause
from helixctl_runtime.ranks.failure.report import Report, describe
from helixctl_runtime.ranks.launchers.place import Place
from helixctl_runtime.ranks.logs import log_folder
from helixctl_runtime.ranks.outer.ending import Ending
from helixctl_runtime.ranks.outer.peers import Peers
from helixctl_runtime.ranks.outer.sigterm import Sigterm
from helixctl_runtime.ranks.outer.speaker import leave_word, speaks
from helixctl_runtime.ranks.outer.store import address
from helixctl_runtime.ranks.progress import Phase, Progress
from helixctl_runtime.ranks.rank import Rank

# Seconds in which a rank that was suspended, and is woken to be ended, has ended.
_WOKEN: Final = 0.1


def run_here(
    worker: Callable[[Rank], object],
    place: Place,
    *,
    device: DeviceKind,
    timeout: float,
    task_name: TaskName,
    log_dir: Path | None,
) -> list[object]:
    """Call the worker as the rank that this process is; only its place in the result is filled.

    Raises:
        HelixError: what ended the run, on the one rank of each host that says it.
        SystemExit: the same, on the others.
    """
    progress, where = Progress(), pick_device(device, place.local_rank)
    ending = Ending()

    def stuck() -> None:
        try:
            error = _cause(peers, None, timeout, task_name, None)
        except _Terminated as terminated:
            error = terminated.error
        leave_word(error)
        if speaks(peers):
            for diagnostic in error.diagnostics:
                print(diagnostic, file=sys.stderr, flush=True)  # noqa: T201  the main thread waits and cannot raise
        peers.leave()
        os._exit(error.exit_status)

    peers = Peers(place.rank, place.world_size, where, place.rendezvous, timeout, progress, ending, stuck)
    rank = Rank(
        rank=place.rank,
        world_size=place.world_size,
        local_rank=place.local_rank,
        device=where,
        timeout=timeout,
        progress=progress,
        rendezvous=place.rendezvous,
        peers=peers,
    )
    results: list[object] = [None] * place.world_size
    sigterm = Sigterm()
    with sigterm.watched(peers.ends_within):
        try:
            results[place.rank] = worker(rank)
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
                if sigterm.came:
                    os._exit(128 + signal.SIGTERM)  # as the others were: nobody needs to hear of it
                cause = terminated.error
            leave_word(cause)
            first = speaks(peers)
            peers.leave()
            if first:
                raise cause from error
            raise SystemExit(cause.exit_status) from error
    return results


class _Terminated(Exception):  # noqa: N818  no error of this rank
    """The others were ended by SIGTERM."""

    def __init__(self, error: HelixError) -> None:
        """Keep what is to be said where this rank was not."""
        super().__init__(str(error))
        self.error = error


def _cause(peers: Peers, report: Report | None, timeout: float, task_name: TaskName, log: Path | None) -> HelixError:
    """Why the run has ended, by what this rank knows and what the others say."""
    heard = peers.hear(report)
    standings = [replace(s, log=log) if s.rank == peers.rank else s for s in heard.standings]
    if any(s.report and s.report.kind in ("helix", "task") for s in standings):
        return root_cause(standings, timeout, task_name)
    if heard.terminated and not heard.missing:
        raise _Terminated(ended_by_sigterm(standings[0], heard.terminated))
    if heard.store:
        return (
            absent(standings, heard.missing, timeout, task_name)
            if heard.missing
            else root_cause(standings, timeout, task_name)
        )
    time.sleep(_WOKEN)
    if not peers.known:
        return nobody_there(standings[0], address(peers.rendezvous), timeout)
    # The store is with rank 0, so what does not answer is rank 0's host, or on that host rank 0 itself.
    keeper = peers.known[0]
    gone = [p for p in peers.known.values() if p.host == keeper.host] if keeper.host != peers.host else [keeper]
    return absent(standings, [peers.shown(p) for p in gone if p.rank != peers.rank], timeout, task_name)


def _write_traceback(log_dir: Path | None, rank: int) -> Path | None:
    if log_dir is None:
        return None
    with log_folder(log_dir) as logs, (logs / f"rank-{rank}.log").open("w", encoding="utf-8") as log:
        traceback.print_exc(file=log)
        return Path(log.name)
