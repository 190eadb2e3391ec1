"""The position of a rank in its run, in memory that its launcher can read."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

# int64 words of a rank's cell: one cache line, so that no two ranks write to the same line.
CELL_WORDS: Final = 8


class Phase(IntEnum):
    """The phases of a run, in the order in which a rank passes through them."""

    STARTING = 0  # the process exists
    JOINING = 1  # in init_process_group
    PREPARING = 2  # groups, buffers, weights
    RUNNING = 3
    CHECKING = 4
    DONE = 5


class Position(NamedTuple):
    """The position of a rank; a slower rank has a smaller one.

    Attributes:
        phase: the phase of the run.
        step: the number of the step.
        begun: the number of tasks of the step that the rank has begun.
        steps: how many steps there will be; 0 where that is not known.
    """

    phase: Phase
    step: int
    begun: int
    steps: int = 0


class Progress:
    """The position of one rank, in memory that the launcher can read while the rank is stuck or dead.

    Attributes:
        cell: ``cell[0]`` counts the tasks of this step that the rank has begun to issue or to wait for, so the
            current task is ``order[cell[0] - 1]``; ``cell[1]`` is the step. The hot loop writes both directly.
            ``cell[2]`` is the phase, ``cell[3]`` how many steps there will be.
    """

    def __init__(self, cell: memoryview | None = None) -> None:
        """Use eight int64 words of shared memory; None uses private memory, for a rank without a local launcher."""
        self.cell: memoryview = memoryview(bytearray(8 * CELL_WORDS)).cast("q") if cell is None else cell

    def enter(self, phase: Phase) -> None:
        """Note that the rank is now in this phase."""
        self.cell[2] = phase

    def expect(self, steps: int) -> None:
        """Note how many steps there will be."""
        self.cell[3] = steps

    def position(self) -> Position:
        """The position of the rank now."""
        return Position(Phase(self.cell[2]), self.cell[1], self.cell[0], self.cell[3])
