"""Run a worker on all ranks: as one of them where a launcher started us, else in local processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from helixctl_runtime.ranks.devices import DeviceKind, check_devices
from helixctl_runtime.ranks.failure.diagnosis import TaskName, root_cause
from helixctl_runtime.ranks.interfaces import check_interfaces, loopback
from helixctl_runtime.ranks.launchers.environment import check_world_size, detect
from helixctl_runtime.ranks.local import signals
from helixctl_runtime.ranks.local.processes import LocalRanks
from helixctl_runtime.ranks.logs import log_folder, scratch_folder
from helixctl_runtime.ranks.outer.here import run_here
from helixctl_runtime.ranks.progress import Position
from helixctl_runtime.ranks.rank import Rank

Worker = Callable[[Rank], object]
Watch = Callable[[Position], None]


def run_ranks(
    worker: Worker,
    *,
    world_size: int,
    device: DeviceKind,
    timeout: float,
    task_name: TaskName,
    log_dir: Path | None = None,
    watch: Watch | None = None,
) -> list[object]:
    """Call the worker on every rank and return what each returned.

    Under torchrun, srun or a launcher of MPI this process is one rank: the worker runs here, and only its place in the
    list is filled.

    Args:
        worker: on CUDA it must be picklable, because the ranks are fresh processes; so must every result.
        world_size: the plan's number of ranks.
        device: one CUDA device per rank, or the CPU for all.
        timeout: seconds that a rank waits for another; the run fails at most two seconds later. While ranks run, it
            also is the time within which some task must begin somewhere.
        task_name: the id of the n-th task of a rank, for messages.
        log_dir: where ``rank-N.log`` go; without it, a temporary folder that stays only if the run fails. What rank 0
            prints is not redirected.
        watch: told, a few times a second, how far the rank is that is furthest behind (local ranks only).

    Raises:
        HelixError: with the one diagnostic that names the root cause.
    """
    place = detect(os.environ)
    check_interfaces(os.environ, device)
    if place is not None:
        check_world_size(place, world_size)
        if place.rendezvous.startswith("tcp://127."):  # all are on this host, whose own name may lead nowhere
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback())
        return run_here(worker, place, device=device, timeout=timeout, task_name=task_name, log_dir=log_dir)
    check_devices(device, world_size)
    with (
        signals.as_exceptions(),
        log_folder(log_dir) as logs,
        scratch_folder() as private,
    ):
        ranks = LocalRanks(world_size, device, timeout, logs)
        try:
            with signals.held():
                ranks.start(worker, f"file://{private}/rendezvous")
            results = ranks.wait(watch)
            if results is None:
                raise root_cause(ranks.standings(), timeout, task_name)
            return results
        finally:
            with signals.held():
                ranks.end()
