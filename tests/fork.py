"""A command in a process of its own, without the half second in which a new interpreter starts.

The process is forked from a small server (``tests.forkserver``), not from this process: what this one has loaded, and
how it is set up, does not reach the command. There are two kinds: one never loads torch, the other has loaded it for
commands that start ranks or are ranks, which takes a second of each.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

from tests.forkserver import LENGTH, Request, Used

_START: Final = "import json, sys; sys.path[:] = json.loads(sys.argv[2])\nfrom tests.forkserver import serve"
_TORCH: Final = (
    "import helixctl.cli.calibrate, helixctl.cli.run, helixctl_runtime.calibrate, helixctl_runtime.run, tokenizers"
)
_ENVIRON: Final = dict(os.environ)  # as it is before any test has changed it


@dataclass(frozen=True)
class Forked:
    """How a command ended.

    Attributes:
        status: its exit status; minus the number of a signal that ended it.
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
    before: str = "",
    torch: bool = False,
    beside: int = 0,
) -> Forked:
    """Run ``helixctl ARGUMENTS``, for so long and in so much address space at most.

    ``before`` is Python source that the process runs first: it replaces a part of the program, where a test needs that.
    With ``torch`` it has been loaded before. Commands that run at the same time, each asked for in a thread of its own,
    are numbered by ``beside``: a server runs one after another.
    """
    environ = dict(os.environ if env is None else env)
    request = Request(list(arguments), before, str(cwd or Path.cwd()), environ, seconds, nbytes)
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin)
        given.seek(0)
        used = _ask(request, (given, out, err), (torch, beside))
        for stream in (out, err):
            stream.seek(0)
        return Forked(used.status, out.read(), err.read(), used.seconds, used.nbytes)


def replacing(name: str, value: object) -> str:
    """Source for ``before`` that gives a name of a module, ``package.module.NAME``, another value."""
    module, _, attribute = name.rpartition(".")
    return f"import {module}\nassert hasattr({module}, {attribute!r})\n{module}.{attribute} = {value!r}\n"


class _Server:
    """A server of this process, and the socket to it; the server ends when the socket is closed."""

    def __init__(self, *, torch: bool) -> None:
        self.link, theirs = socket.socketpair()
        path = json.dumps([str(Path(entry).absolute()) for entry in sys.path])
        start = f"{_START}\n{_TORCH}" if torch else _START
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"{start}\nserve(int(sys.argv[1]))", str(theirs.fileno()), path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_ENVIRON,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the test process, with which it ends
            )

    def ask(self, request: Request, streams: Sequence[IO[bytes]]) -> Used:
        body = json.dumps(asdict(request)).encode()
        socket.send_fds(self.link, [len(body).to_bytes(LENGTH, "big")], [stream.fileno() for stream in streams])
        self.link.sendall(body)
        with self.link.makefile("rb") as replies:
            reply = replies.readline()
        if not reply:
            raise ConnectionError(f"the process that forks commands has ended with status {self.process.wait()}")
        return Used(**json.loads(reply))

    def close(self) -> None:
        self.link.close()
        self.process.wait()


_servers: dict[tuple[bool, int], _Server] = {}  # with torch or not, and its number; each once there was a command
_inherited: list[_Server] = []  # of the process that this one was forked from


def _ask(request: Request, streams: Sequence[IO[bytes]], place: tuple[bool, int]) -> Used:
    if place not in _servers:
        _servers[place] = _Server(torch=place[0])
    try:
        return _servers[place].ask(request, streams)
    except BaseException:  # also a timeout: the reply to this request must not be taken for that to the next
        _close()
        raise


@atexit.register
def _close() -> None:
    while _servers:
        _, server = _servers.popitem()
        server.close()


def _forget() -> None:
    """In a fork of this process: its servers are not ours, and must not wait for us to end."""
    while _servers:
        _, server = _servers.popitem()
        server.link.close()
        _inherited.append(server)


os.register_at_fork(after_in_child=_forget)
