"""A command in a fork of this process: a process of its own, without the half second in which a new one starts."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Never

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
import helixctl.verify  # noqa: F401
from helixctl.cli.main import main


@dataclass(frozen=True)
class Forked:
    """How a command ended.

    Attributes:
        status: its exit status; of a process that a signal ended, minus the signal.
        out, err: what it printed.
        seconds: of CPU time.
        nbytes: of memory at most, the interpreter and all modules among them.
    """

    status: int
    out: bytes
    err: bytes
    seconds: float
    nbytes: int


def fork(
    arguments: Sequence[str],
    *,
    stdin: bytes = b"",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    seconds: int = 100,
    nbytes: int = resource.RLIM_INFINITY,
) -> Forked:
    """Run ``helixctl ARGUMENTS``, for so long and in so much address space at most."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin)
        given.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12, where the test runner has threads
            pid = os.fork()
        if not pid:
            _become(arguments, (given, out, err), cwd, env, (seconds, nbytes))
        _, status, used = os.wait4(pid, 0)
        for stream in (out, err):
            stream.seek(0)
        return Forked(
            os.waitstatus_to_exitcode(status),
            out.read(),
            err.read(),
            used.ru_utime + used.ru_stime,
            used.ru_maxrss * 1024,
        )


def _become(
    arguments: Sequence[str],
    streams: Sequence[IO[bytes]],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    limits: tuple[int, int],
) -> Never:
    """The child: the command, with its streams and limits, and no way back."""
    status = 99
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream.fileno(), number)
        sys.stdin, sys.stdout, sys.stderr = (open(n, "w" if n else "r", encoding="utf-8") for n in range(3))  # noqa: PTH123, SIM115
        os.chdir(cwd or ".")
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the test runner's own clock
        signal.alarm(4 * limits[0])
        resource.setrlimit(resource.RLIMIT_CPU, (limits[0], limits[0]))
        resource.setrlimit(resource.RLIMIT_AS, (limits[1], limits[1]))
        try:
            main(list(arguments))
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 98
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)
