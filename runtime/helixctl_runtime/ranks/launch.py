"""Run a worker on all ranks: as one of them where torchrun or srun started us, else in local processes."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from helixctl.errors import HelixError, fail
from helixctl_runtime.ranks import signals
from helixctl_runtime.ranks.environment import DeviceKind, Place, check_devices, check_world_size, detect, pick_device
from helixctl_runtime.ranks.failure import Standing, TaskName, alone, describe, root_cause
from helixctl_runtime.ranks.local import LocalRanks
from helixctl_runtime.ranks.rank import Phase, Position, Progress, Rank

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

    Under torchrun or srun this process is one rank: the worker runs here, and only its place in the list is filled.

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
    if place is not None:
        check_world_size(place, world_size)
        return _run_here(worker, place, device=device, timeout=timeout, task_name=task_name, log_dir=log_dir)
    check_devices(device, world_size)
    with (
        signals.as_exceptions(),
        _log_folder(log_dir) as logs,
        tempfile.TemporaryDirectory(prefix="helixctl-", ignore_cleanup_errors=True) as private,
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


def _run_here(
    worker: Worker, place: Place, *, device: DeviceKind, timeout: float, task_name: TaskName, log_dir: Path | None
) -> list[object]:
    rank = Rank(
        rank=place.rank,
        world_size=place.world_size,
        local_rank=place.local_rank,
        device=pick_device(device, place.local_rank),
        timeout=timeout,
        progress=Progress(),
        rendezvous=place.rendezvous,
    )
    results: list[object] = [None] * place.world_size
    try:
        results[place.rank] = worker(rank)
        rank.progress.enter(Phase.DONE)
        if dist.is_initialized():
            dist.destroy_process_group()
    except Exception as error:
        log = _write_traceback(log_dir, rank.rank)
        position = rank.progress.position()
        standing = Standing(rank.rank, rank.device, position, describe(error), None, 0.0, stopped=False, log=log)
        raise alone(standing, timeout, task_name) from error
    return results


def _write_traceback(log_dir: Path | None, rank: int) -> Path | None:
    if log_dir is None:
        return None
    with _log_folder(log_dir) as logs, (logs / f"rank-{rank}.log").open("w", encoding="utf-8") as log:
        traceback.print_exc(file=log)
        return Path(log.name)


@contextmanager
def _log_folder(wanted: Path | None) -> Iterator[Path]:
    """The folder for the ranks' logs; a temporary one stays only where an error names a file in it."""
    if wanted is not None:
        try:
            wanted.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise fail("HX511", f"cannot make {wanted} for the logs of the ranks: {error.strerror}") from error
        yield wanted
        return
    folder = Path(tempfile.mkdtemp(prefix="helixctl-logs-"))
    keep = False
    try:
        yield folder
    except HelixError:
        keep = True
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
