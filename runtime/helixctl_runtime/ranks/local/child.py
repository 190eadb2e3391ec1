"""The process of a local rank."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

import torch
import torch.distributed as dist

from helixctl_runtime.ranks.devices import DeviceKind
from helixctl_runtime.ranks.failure.rank_report import RankReport, describe
from helixctl_runtime.ranks.heap import keep_freed_memory
from helixctl_runtime.ranks.interfaces import loopback
from helixctl_runtime.ranks.progress import CELL_WORDS, Phase, Progress
from helixctl_runtime.ranks.rank import Rank

# A report on the wire: its length, then its pickle.
LENGTH_BYTES: Final = 8

_PR_SET_PDEATHSIG: Final = 1
_RELEASE: Final = b"."


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the launcher gives to a local rank.

    Attributes:
        rank, world_size: its number, and the number of all ranks.
        device: the kind of its device.
        timeout: seconds that it waits for another rank.
        rendezvous: the ``init_method`` through which the ranks find each other.
        threads: the number of threads that its tensor operations may use.
        launcher: the process id of the launcher.
        log: the file for its output.
        cells: the progress cells of all ranks, in shared memory.
        link: a socket that carries the report to the launcher, and the permission to exit back.
        inherited: sockets of the launcher that a fork copied, to be closed.
    """

    rank: int
    world_size: int
    device: DeviceKind
    timeout: float
    rendezvous: str
    threads: int
    launcher: int
    log: Path
    cells: ctypes.Array[ctypes.c_int64]
    link: socket.socket
    inherited: Sequence[socket.socket] = ()


def rank_progress(cells: ctypes.Array[ctypes.c_int64], rank: int) -> Progress:
    """The progress of one rank, in the shared cells of all."""
    words = memoryview(cells).cast("B").cast("q")
    return Progress(words[rank * CELL_WORDS : (rank + 1) * CELL_WORDS])


def serve(assignment: Assignment, worker: Callable[[Rank], object]) -> None:
    """Run the worker as one rank, report its result, and wait for the permission to exit.

    A rank that exited before the others have reported would break connections, or free memory, that they still use.

    Args:
        assignment: what the launcher gives to this rank.
        worker: what every rank does.
    """
    _die_with(assignment.launcher)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches all; the launcher acts for all
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for inherited in assignment.inherited:
        inherited.close()
    # Local ranks never need another interface, and a laptop's own host name may not resolve.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback())
    torch.set_num_threads(assignment.threads)
    if assignment.device == "cpu":
        keep_freed_memory(os.environ)
    log = assignment.log.open("w", buffering=1, encoding="utf-8")
    _write_to(log, everything=assignment.rank != 0)
    data = _report(assignment, worker, log)
    assignment.link.sendall(len(data).to_bytes(LENGTH_BYTES, "big") + data)
    assignment.link.recv(len(_RELEASE))
    if assignment.device == "cpu":
        # The kernel closes gloo's sockets sooner than gloo does: 0.25 s against 0.43 s for a run of 16 ranks.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    if dist.is_initialized():
        dist.destroy_process_group()


def release(link: socket.socket) -> None:
    """Permit the rank at the other end to exit, if it still runs."""
    with contextlib.suppress(OSError):
        link.send(_RELEASE)


def _report(assignment: Assignment, worker: Callable[[Rank], object], log: TextIO) -> bytes:
    # torch extends multiprocessing's pickler to share memory, which ends with the process; plain pickle copies.
    try:
        cuda = assignment.device == "cuda"
        rank = Rank(
            rank=assignment.rank,
            world_size=assignment.world_size,
            local_rank=assignment.rank,
            device=torch.device("cuda", assignment.rank) if cuda else torch.device("cpu"),
            timeout=assignment.timeout,
            progress=rank_progress(assignment.cells, assignment.rank),
            rendezvous=assignment.rendezvous,
        )
        result = pickle.dumps(RankReport("result", worker(rank)))
        rank.progress.enter(Phase.DONE)
    except BaseException as error:  # noqa: BLE001  the launcher must receive every failure
        traceback.print_exc(file=log)
        return pickle.dumps(describe(error))
    return result


def _write_to(log: TextIO, *, everything: bool) -> None:
    # On a crash, and on the launcher's SIGTERM, faulthandler writes the stack of every thread.
    faulthandler.enable(log)
    faulthandler.register(signal.SIGTERM, log, chain=True)
    if everything:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = log


def _die_with(launcher: int) -> None:
    # Elsewhere than on Linux a rank outlives a launcher that was killed with -9 until it fails by itself.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != launcher:
        os._exit(1)
