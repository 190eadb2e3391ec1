"""One command over one document, in a process of its own: how it ends, and what it takes."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.fork import fork
from tests.speed import slowness

# The bar: CPU seconds (of the machine of tests/speed.py) and bytes of memory for one document that is refused.
MOST_S: Final = 2.0
MOST_NBYTES: Final = 500 * 10**6
MOST_SAID: Final = 10**5  # bytes: no terminal and no CI log is flooded
# Of one that is taken: it was no malformed one, and may be planned for as long as a good one.
MOST_GOOD_S: Final = 90.0
MOST_GOOD_NBYTES: Final = 3 * 10**9
_FOR_EVER_S: Final = 100
_FOR_EVER_NBYTES: Final = 6 * 10**9
_DIAGNOSTIC: Final = re.compile(r"(?:^|: )HX\d{3} \S", re.MULTILINE)
_LINE: Final = re.compile(r"(?:\S.*: )?HX\d{3} |  hint: ")


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: its exit status; of a process that a signal ended, minus the signal.
        said: what it printed.
        seconds: of CPU time.
        nbytes: of memory at most, the interpreter and all modules among them.
    """

    status: int
    said: str
    seconds: float
    nbytes: int

    @property
    def codes(self) -> frozenset[str]:
        """Of all diagnostics."""
        return frozenset(re.findall(r"HX\d{3}", self.said))

    @property
    def accepted(self) -> bool:
        """Whether the document was taken for a good one."""
        return self.status == 0

    @property
    def problems(self) -> list[str]:
        """What is wrong with such an end."""
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


def run(arguments: Sequence[str], before: str = "") -> Ended:
    """Run a command in a process of its own; ``before`` is Python source that the process runs first."""
    done = fork(arguments, seconds=_FOR_EVER_S, nbytes=_FOR_EVER_NBYTES, before=before)
    return Ended(done.status, (done.out + done.err).decode("utf-8", "replace"), done.seconds, done.nbytes)
