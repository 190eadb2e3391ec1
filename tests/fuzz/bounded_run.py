"""One command over one document, in its own process: how it ends, and how much time and memory it takes."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.fork import fork
from tests.speed import slowness

# The bounds for one refused document: CPU seconds (of the machine of tests/speed.py), and bytes of memory.
MOST_S: Final = 2.0
MOST_NBYTES: Final = 500 * 10**6
MOST_SAID: Final = 10**5  # characters, so that no terminal and no CI log is flooded
# The bounds for a document that is accepted: it is well-formed, so planning may take as long as for a good one.
MOST_GOOD_S: Final = 90.0
MOST_GOOD_NBYTES: Final = 3 * 10**9
# The limits at which a command is ended, above all bounds.
_LIMIT_S: Final = 100
_LIMIT_NBYTES: Final = 6 * 10**9
_DIAGNOSTIC: Final = re.compile(r"(?:^|: )HX\d{3} \S", re.MULTILINE)
_LINE: Final = re.compile(r"(?:\S.*: )?HX\d{3} |  hint: ")


@dataclass(frozen=True)
class CommandEnd:
    """How a command ended.

    Attributes:
        status: its exit status; minus the number of a signal that ended it.
        said: what it printed.
        seconds: its CPU time.
        nbytes: its peak memory, the interpreter and all modules included.
    """

    status: int
    said: str
    seconds: float
    nbytes: int

    @property
    def codes(self) -> frozenset[str]:
        """The codes of all diagnostics."""
        return frozenset(re.findall(r"HX\d{3}", self.said))

    @property
    def accepted(self) -> bool:
        """Whether the document was accepted."""
        return self.status == 0

    @property
    def problems(self) -> list[str]:
        """The rules that this end breaks."""
        found = []
        seconds, nbytes = (MOST_GOOD_S, MOST_GOOD_NBYTES) if self.accepted else (MOST_S, MOST_NBYTES)
        if self.status not in {0, 1, 2}:
            found.append(f"exit status {self.status}")
        if "Traceback" in self.said or "Error:" in self.said.replace("Usage", ""):
            found.append("a traceback")
        if self.status in {1, 2} and not _DIAGNOSTIC.search(self.said):
            found.append("no diagnostic")
        lines = [] if "HX204" in self.codes else self.said.splitlines()
        if self.status in {1, 2} and not all(_LINE.match(line) for line in lines):
            found.append("a line that is no diagnostic")
        if self.seconds > seconds and self.seconds > seconds * slowness(time.process_time):
            found.append(f"{self.seconds:.1f} s")
        if self.nbytes > nbytes:
            found.append(f"{self.nbytes / 1e6:.0f} MB")
        if len(self.said) > MOST_SAID:
            found.append(f"{len(self.said):,} characters said")
        return found


def run(arguments: Sequence[str], before: str = "") -> CommandEnd:
    """Run a command in its own process; ``before`` is Python source that the process runs first."""
    # How far it is, which a slow machine would be told, is no diagnostic.
    env = {**os.environ, "HELIXCTL_PROGRESS": "off"}
    done = fork(arguments, env=env, seconds=_LIMIT_S, nbytes=_LIMIT_NBYTES, before=before)
    return CommandEnd(done.status, (done.out + done.err).decode("utf-8", "replace"), done.seconds, done.nbytes)
