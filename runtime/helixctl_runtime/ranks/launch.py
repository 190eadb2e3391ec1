"""Run a worker on all ranks: as one rank if an outer launcher started this process, else in local processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from helixctl_runtime.ranks.devices import DeviceKind, check_devices
from helixctl_runtime.ranks.failure.diagnosis import TaskName, root_cause
from helixctl_runtime.ranks.heap import keep_freed_memory
from helixctl_runtime.ranks.interfaces import check_interfaces, loopback
from helixctl_runtime.ranks.launchers.environment import check_world_size, detect
from helixctl_runtime.ranks.local import signals
from helixctl_runtime.ranks.local.processes import LocalRanks
from helixctl_runtime.ranks.logs import log_folder, scratch_folder
from helixctl_runtime.ranks.outer.run_rank import run_as_rank
from helixctl_runtime.ranks.progress import Position
from helixctl_runtime.ranks.rank import Rank

Worker = Callable[[Rank], object]
ProgressCallback = Callable[[Position], None]


def run_ranks(
    worker: Worker,
    *,
    world_size: int,
    device: DeviceKind,
    timeout: float,
    task_name: TaskName,
    log_dir: Path | None = None,
    on_progress: ProgressCallback | None = None,
) -> list[object]:
    """Call the worker on every rank and return the result of each.

    Under torchrun, srun or a launcher of MPI this process is one rank: the worker runs in it, and only the entry of
    this rank is filled in.

    Args:
        worker: on CUDA it must be picklable, because the ranks are fresh processes; so must every result.
        world_size: the plan's number of ranks.
        device: one CUDA device per rank, or the CPU for all.
        timeout: seconds that a rank waits for another; the run fails at most two seconds later. The run also fails
            if no rank begins a task within this time.
        task_name: the id of the n-th task of a rank, for messages.
        log_dir: the folder for ``rank-N.log``; None is a temporary folder that stays only if the run fails. The
            output of rank 0 is not redirected.
        on_progress: called a few times a second with the position of the slowest rank (local ranks only).

    Raises:
        HelixError: one diagnostic, which names the root cause.
    """
    launched = detect(os.environ)
    check_interfaces(os.environ, device)
    if launched is not None:
        check_world_size(launched, world_size)
        if launched.rendezvous.startswith("tcp://127."):  # all are on this host, whose own name may not resolve
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback())
        if device == "cpu":
            keep_freed_memory(os.environ)
        return run_as_rank(worker, launched, device=device, timeout=timeout, task_name=task_name, log_dir=log_dir)
    check_devices(device, world_size)
    with (
        signals.as_exceptions(),
        log_folder(log_dir) as logs,
        scratch_folder() as private,
    ):
        ranks = LocalRanks(world_size, device, timeout, logs)
        try:
            with signals.deferred():
                ranks.start(worker, f"file://{private}/rendezvous")
            results = ranks.wait(on_progress)
            if results is None:
                raise root_cause(ranks.states(), timeout, task_name)
            return results
        finally:
            with signals.deferred():
                ranks.end()
