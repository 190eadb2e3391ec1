"""How far a rank is: in memory that its launcher can read."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

# int64 words of a rank's cell: a cache line each, so that ranks do not write to one another's.
CELL_WORDS: Final = 8


class Phase(IntEnum):
    """The parts of a run, in the order in which a rank goes through them."""

    STARTING = 0  # the process exists
    JOINING = 1  # in init_process_group
    PREPARING = 2  # groups, buffers, weights
    RUNNING = 3
    CHECKING = 4
    DONE = 5


class Position(NamedTuple):
    """How far a rank is; a smaller position is further behind."""

    phase: Phase
    step: int
    begun: int  # tasks of the step that the rank has begun


class Progress:
    """How far one rank is, in memory that the launcher can read while the rank is stuck or dead.

    Attributes:
        cell: ``cell[0]`` counts the tasks of this step that the rank has begun to issue or to wait for, so the
            current task is ``order[cell[0] - 1]``; ``cell[1]`` is the step. The hot loop writes both directly.
    """

    def __init__(self, cell: memoryview | None = None) -> None:
        """Use eight int64 words of shared memory, or private ones where no launcher looks."""
        self.cell: memoryview = memoryview(bytearray(8 * CELL_WORDS)).cast("q") if cell is None else cell

    def enter(self, phase: Phase) -> None:
        """Say that the rank is now in this phase."""
        self.cell[2] = phase

    def position(self) -> Position:
        """How far the rank is now."""
        return Position(Phase(self.cell[2]), self.cell[1], self.cell[0])
