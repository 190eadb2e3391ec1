"""helixctl with a fault injected into a rank, for faults that cannot be made from outside.

python -m tests.faults.injections INJECTION[,INJECTION...] ARGS of helixctl

    stepped:FOLDER      every rank leaves a file in FOLDER when it has walked its first step
    raise:RANK:FILE     in its third step, the rank's kernel that adds makes FILE and raises MemoryError
    absent:RANK         the process of a local rank exists but does nothing
    no-fork:RANK        the machine has no room for the process of this local rank
    truncate:RANK:FILE:MARK
                        a weight file is cut off when the rank has opened it and read its first tensor; makes MARK
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

from helixctl.cli.main import main

LEFT = 4096  # bytes of a truncated file: one page, so that the pages after it cannot be read any more


def stepped(folder: str) -> None:
    from helixctl_runtime.measure.walk import Walker

    walk, seen = Walker.__call__, []

    def call(self: Any) -> None:
        walk(self)
        if not seen:
            seen.append(True)
            Path(folder, str(self._rank)).touch()

    Walker.__call__ = call  # type: ignore[method-assign]


def raises(rank: str, file: str) -> None:
    from helixctl_runtime import kernels
    from helixctl_runtime.measure.walk import Walker

    walk, add, steps = Walker.__call__, kernels.add, [0]

    def call(self: Any) -> None:
        steps[0] += self._rank == int(rank)
        walk(self)

    def failing(*args: Any) -> Any:
        plain = add(*args)

        def step() -> None:
            if steps[0] > 2:
                Path(file).touch()
                raise MemoryError("no room for the sum")
            plain()

        return step

    Walker.__call__, kernels.add = call, failing  # type: ignore[method-assign]


def absent(rank: str) -> None:
    from helixctl_runtime.ranks.local import processes

    serve = processes.serve

    def call(assignment: Any, worker: Any) -> None:
        if assignment.rank == int(rank):
            signal.pause()
        serve(assignment, worker)

    processes.serve = call


def no_fork(rank: str) -> None:
    fork, forks = os.fork, [0]

    def call() -> int:
        forks[0] += 1
        if forks[0] == int(rank) + 1:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    os.fork = call


def truncate(rank: str, file: str, mark: str) -> None:
    from helixctl_runtime.ranks.local import processes
    from helixctl_runtime.tensors.tensor_source import TensorSource

    value, serve, mine = TensorSource.value, processes.serve, []

    def call(assignment: Any, worker: Any) -> None:
        mine.append(assignment.rank == int(rank))
        serve(assignment, worker)

    def read(self: Any, *args: Any) -> Any:
        found = value(self, *args)
        if mine[0]:
            os.truncate(file, LEFT)
            Path(mark).touch()
        return found

    processes.serve, TensorSource.value = call, read  # type: ignore[method-assign]


INJECTIONS = {"stepped": stepped, "raise": raises, "absent": absent, "no-fork": no_fork, "truncate": truncate}

if __name__ == "__main__":
    for injection in filter(None, sys.argv[1].split(",")):
        name, *arguments = injection.split(":")
        INJECTIONS[name](*arguments)
    main(sys.argv[2:])
