"""A small process that runs commands in forks of itself: it has what commands import, and never torch.

The memory of a forked process begins at that of its parent. A command forked from a test process, which may have
loaded torch and transformers, would seem to need what they need; forked from here it needs what a user's needs.

A request comes over a socket with three file descriptors (standard input, output and error): its length in eight
bytes, then JSON, the fields of ``Request``. The reply is a line of JSON, the fields of ``Used``. When the other end of
the socket is closed, the command that runs is killed and the server ends.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Never

import rich.console  # noqa: F401

# What the commands import when they are used, so that it is here before the fork.
import helixctl.cli.diff
import helixctl.cli.plan
import helixctl.cli.simulate
import helixctl.cli.validate
import helixctl.cli.visualize
import helixctl.emit.dot
import helixctl.lower
import helixctl.report.rules
import helixctl.solve
import helixctl.spec.hugging_face.families.dense
import helixctl.verify  # noqa: F401
from helixctl import collector
from helixctl.cli.main import main
from helixctl.documents import load_document

SHIPPED: Final = Path(__file__).parent.parent / "plans/small/dense.4x4.dag.json"

LENGTH: Final = 8  # bytes
STREAMS: Final = 3


@dataclass(frozen=True)
class Request:
    """A command to run.

    Attributes:
        arguments: those of ``helixctl``.
        before: Python source that the forked process runs first; it may replace a part of the program.
        seconds: of CPU time at most; the process is also ended after four times as long by the clock.
        nbytes: of address space at most.
    """

    arguments: list[str]
    before: str
    cwd: str
    env: dict[str, str]
    seconds: int
    nbytes: int


@dataclass(frozen=True)
class Used:
    """The exit status (minus the number of a signal that ended the process), CPU time, and peak memory."""

    status: int
    seconds: float
    nbytes: int


def serve(number: int) -> None:
    """Run commands one after another, until the socket with this number is closed at its other end."""
    load_document(str(SHIPPED))  # once, for the schemas that pydantic makes when they are first needed
    gc.collect()
    gc.freeze()  # commands neither look through what is loaded here, nor copy it by that
    with collector.paused():
        pass  # it notes here that there is something frozen, so that no command counts it
    # Whoever is gone needs no reply.
    with socket.socket(fileno=number) as link, contextlib.suppress(ConnectionError):
        while (received := _receive(link)) is not None:
            request, streams = received
            pid = os.fork()
            if not pid:
                link.close()
                _become(request, streams)
            for stream in streams:
                os.close(stream)
            used = _wait(pid, link)
            if used is None:
                return
            link.sendall(json.dumps(asdict(used)).encode() + b"\n")


def _receive(link: socket.socket) -> tuple[Request, list[int]] | None:
    """The next request and its streams; None when there will be no more."""
    head, streams, _, _ = socket.recv_fds(link, LENGTH, STREAMS)
    if len(head) < LENGTH:
        return None
    body = bytearray()
    while len(body) < int.from_bytes(head, "big"):
        if not (part := link.recv(65536)):
            return None
        body += part
    return Request(**json.loads(body)), list(streams)


def _wait(pid: int, link: socket.socket) -> Used | None:
    """Wait for the command; None if the other end of the socket is closed first."""
    os.setpgid(pid, pid)
    child, poll = os.pidfd_open(pid), select.poll()
    for descriptor in (child, link.fileno()):
        poll.register(descriptor, select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll()}
    os.close(child)
    os.killpg(pid, signal.SIGKILL)  # the command, or what it has left behind
    _, status, used = os.wait4(pid, 0)
    if child not in ready:
        return None
    return Used(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def _become(request: Request, streams: list[int]) -> Never:
    """The forked process: the command, with its streams and limits, and no way back."""
    status = 99
    try:
        os.setpgid(0, 0)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin, sys.stdout, sys.stderr = (open(n, "w" if n else "r", encoding="utf-8") for n in range(3))  # noqa: PTH123, SIM115
        os.chdir(request.cwd)
        os.environ.clear()
        os.environ.update(request.env)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.alarm(4 * request.seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (request.seconds, request.seconds))
        resource.setrlimit(resource.RLIMIT_AS, (request.nbytes, request.nbytes))
        try:
            exec(request.before, {})
            main(request.arguments)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 98
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)
