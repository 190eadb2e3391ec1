"""A run that is observed from outside: it has its own terminal, so that it prints when it walks steps."""

from __future__ import annotations

import errno
import os
import pty
import re
import secrets
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.cli.command import ENVIRONMENT
from tests.documents import ROOT
from tests.speed import slowness

_MARK = "HELIXCTL_FAULTS"  # in the environment of every process of a run, so that all of them are found
# torch asks the name service for every connection; without these options that takes 5 s if it does not answer.
_TERMINAL = {"TERM": "xterm", "COLUMNS": "240", "RES_OPTIONS": "timeout:1 attempts:1"}
_GOES_ON = re.compile(r"(?<=\S)\n {2}(?=\S)(?!hint: )")  # a sentence set in by two blanks, because it is long
# What a terminal does not show: erased lines, and control sequences.
_HIDDEN = re.compile(r"[^\n]*\x1b\[2K|\x1b\[[0-9;?]*[A-Za-z]|\r")


@dataclass(frozen=True)
class RunEnd:
    """How a run ended.

    Attributes:
        seconds: from the fault to the end.
        status: the exit status.
        text: what it printed.
        orphans: the number of processes that are left.
    """

    seconds: float
    status: int
    text: str
    orphans: int

    @property
    def sentences(self) -> list[str]:
        """What it printed, a line each: the terminal's lines that go on with an earlier one are joined to it."""
        return _GOES_ON.sub(" ", self.text).splitlines()

    @property
    def lines(self) -> list[str]:
        """The lines of errors and warnings, without their hints."""
        wanted = re.compile(r"(?:\S+: )?HX\d{3} |interrupted|ended by |warning: ")
        return [line for line in self.sentences if wanted.match(line)]


@contextmanager
def _heeding_ctrl_c() -> Iterator[None]:
    """Handle Ctrl-C inside the block: a shell makes tests in the background, and what they start, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class ObservedRun:
    """A running command; at the end of ``with`` none of its processes is left."""

    def __init__(self, command: Sequence[str | Path], **environ: str) -> None:
        self._mark, self._text = secrets.token_hex(8), ""
        self._terminal, screen = pty.openpty()
        with _heeding_ctrl_c():
            self.process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=screen,
                stderr=screen,
                cwd=ROOT,
                env=ENVIRONMENT | _TERMINAL | {_MARK: self._mark} | environ,
                start_new_session=True,
            )
        os.close(screen)
        self._begin = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._terminal)

    def until(self, wanted: str, seconds: float = 300) -> str:
        """Wait until the run has printed a text; the result is all that it has printed."""
        deadline = time.monotonic() + seconds
        while wanted not in self._text:
            assert time.monotonic() < deadline, f"no {wanted!r} in {self._text!r}"
            assert self._read() or wanted in self._text, f"ended without {wanted!r}: {self._text!r}"
        return self._text

    def until_files(self, folder: Path, count: int, seconds: float = 300) -> None:
        """Wait until a folder holds a number of files."""
        deadline = time.monotonic() + seconds
        while len(list(folder.iterdir())) < count:
            assert time.monotonic() < deadline
            assert self._read(), f"ended: {self._text!r}"

    def ranks(self, count: int) -> list[int]:
        """The process ids of the ranks, by rank: the children in the order of their start."""
        pid = self.process.pid
        found = sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
        assert len(found) == count
        return found

    def fault(self) -> None:
        """Start the clock; without this call it starts with the process."""
        self._begin = time.monotonic()

    def ended(self, seconds: float = 300) -> RunEnd:
        """Wait for the end."""
        while self._read():
            assert time.monotonic() < self._begin + seconds, f"does not end: {self._text!r}"
        status, took = self.process.wait(), time.monotonic() - self._begin
        # The signal that a rank gets when its launcher is killed takes effect a moment later.
        deadline = time.monotonic() + slowness()
        while self.pids() and time.monotonic() < deadline:
            select.select([], [], [], 0.01)
        while self._read(0):
            pass
        return RunEnd(took, status, _HIDDEN.sub("", self._text), len(self.pids()))

    def pids(self) -> list[int]:
        """The process ids of this run that are alive, whichever process started them."""
        found, wanted = [], f"{_MARK}={self._mark}".encode()
        for path in Path("/proc").glob("[0-9]*"):
            try:
                alive = wanted in (path / "environ").read_bytes() and ") Z" not in (path / "stat").read_text()
            except OSError:
                continue
            if alive:
                found.append(int(path.name))
        return found

    def _read(self, wait: float = 0.05) -> bool:
        """Read what was printed; False if the process has ended and everything is read."""
        over = self.process.poll() is not None
        if not select.select([self._terminal], [], [], 0 if over else wait)[0]:
            return not over
        try:
            self._text += os.read(self._terminal, 65536).decode(errors="replace")
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return not over  # nobody has the terminal open any more
        return True
