"""What a page shows beside the tasks: what was left out of the drawing, timelines, and small plots.

The drawing needs nothing but the dag. The rest is predicted or measured by others and is given to the page.
"""

from __future__ import annotations

from collections.abc import Sequence

from helixctl.dag import Lane
from helixctl.dag.span import Span
from helixctl.emit.folds import Folds
from helixctl.records import record


@record
class Timeline:
    """A step in time: of every drawn rank a lane of computation and one of communication.

    Attributes:
        name: ``predicted`` or ``measured``.
        spans: every task on every rank that has it.
        waits: when a rank neither computes nor could, because it waits for a collective: its task.
        note: what the times are of, a sentence.
        copies: when a rank copies what a collective is to send, ahead of it; or what a step leaves, behind its last
            task.
    """

    name: str
    spans: Sequence[Span]
    waits: Sequence[Span]
    note: str
    copies: Sequence[Span] = ()


@record
class Traffic:
    """Bytes that one device receives in a step, by level; of the device that receives most between hosts."""

    level: str
    inside_nbytes: int
    between_nbytes: int


@record
class Memory:
    """What the fullest device holds, in bytes: the parts of the plan, what no plan takes, and what is free."""

    weights: float
    cache: float
    arenas: float
    reserve: float
    free: float


@record
class LevelTime:
    """Seconds of a step in one level: computation, and communication that nothing hides."""

    level: str
    lane: Lane
    seconds: float


@record
class Figures:
    """The numbers of the small plots.

    Attributes:
        step_s: predicted seconds of the whole step.
        measured_s: measured ones, where there is a report.
        memory: of the fullest device.
        predicted, measured: time by level; the measured ones are means over the ranks.
        traffic: by level.
    """

    step_s: float
    memory: Memory
    predicted: tuple[LevelTime, ...]
    traffic: tuple[Traffic, ...]
    measured_s: float | None = None
    measured: tuple[LevelTime, ...] = ()


@record
class Views:
    """All that a page shows beside the tasks.

    Attributes:
        folds: what is drawn and what it stands for; None if all is drawn.
        timelines: predicted, measured, or both.
        figures: the numbers of the plots; None without plots.
    """

    folds: Folds | None = None
    timelines: tuple[Timeline, ...] = ()
    figures: Figures | None = None
