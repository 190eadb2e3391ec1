"""What the microbatches of a round take on one rank: their tasks take turns, and each waits for what it reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from helixctl.solve.outlined import Priced

# Two states of a rank are one if they differ by less than this part of the time so far: sums of the same terms.
_EQUAL: Final = 1e-12


class Run(NamedTuple):
    """Computations one after the other, or one collective.

    Attributes:
        communicates: whether it is a collective.
        seconds: how long it takes.
        made_by: the collectives that bring what it reads, by their number in the part.
        number: that of the collective itself; -1 of computations.
    """

    communicates: bool
    seconds: float
    made_by: tuple[int, ...]
    number: int


class Part(NamedTuple):
    """The tasks of one microbatch in a layer, or in an end of the model.

    Attributes:
        turns: each up to a collective, which is its last task.
        rest: what comes after the last collective, and is one turn with the begin of what follows the part.
        collectives: how many there are.
    """

    turns: tuple[tuple[Run, ...], ...]
    rest: tuple[Run, ...]
    collectives: int


def part_of(tasks: Iterable[Priced]) -> Part:
    """The turns of some tasks, in their order.

    A task that brings the model's input is left out: it is done in the first layer alone.
    """
    made: dict[str, int] = {}
    runs: list[Run] = []
    collectives, seconds = 0, 0.0
    waits: tuple[int, ...] | None = None  # of the computations since the last run, of so many seconds; None: no such
    for its in tasks:
        if its.communicates and not its.seconds:
            continue
        made_by = tuple(dict.fromkeys([made[piece.tensor] for piece in its.task.inputs if piece.tensor in made]))
        if waits is not None and (its.communicates or made_by):
            runs.append(_computing(seconds, waits))
            waits = None
        if its.communicates:
            runs.append(Run(communicates=True, seconds=its.seconds, made_by=made_by, number=collectives))
        else:
            seconds, waits = (its.seconds, made_by) if waits is None else (seconds + its.seconds, waits)
        for piece in its.task.outputs:
            made.pop(piece.tensor, None)
            if its.communicates:
                made[piece.tensor] = collectives
        collectives += its.communicates
    if waits is not None:
        runs.append(_computing(seconds, waits))
    turns: list[tuple[Run, ...]] = []
    turn: list[Run] = []
    for run in runs:
        turn.append(run)
        if run.communicates:
            turns.append(tuple(turn))
            turn = []
    return Part(tuple(turns), tuple(turn), collectives)


def _computing(seconds: float, made_by: tuple[int, ...]) -> Run:
    return Run(communicates=False, seconds=seconds, made_by=made_by, number=-1)


def rank_seconds(parts: Sequence[tuple[Part, int]], rounds: int, width: int) -> float:
    """Seconds until one rank has done the last task of its last microbatch.

    No simulation of a step with these microbatches is below: its rank has the same tasks in the same order, the same
    two lanes and all of these waits, and copies, transfers and waits for other ranks besides.

    Args:
        parts: what a microbatch goes through, and how often in a row: the layers of a stage are one part.
        rounds: of microbatches, one after the other.
        width: microbatches of a round, which take turns.
    """
    rank, before = _Rank(width), (0.0, 0.0)
    for done in range(1, rounds + 1):
        rank.go_through(parts)
        now = (rank.clock_s, rank.lane_s)
        if _alike(now, before):
            return rank.end_s + (rounds - done) * (now[0] - before[0])
        before = now
    return rank.end_s


def _alike(now: Sequence[float], before: Sequence[float]) -> bool:
    """Whether a rank will go on as it did before: what is still ahead of its clock, the first number, is the same.

    What lies behind the clock is waited for by nobody.
    """
    ahead, was = ([max(0.0, one - times[0]) for one in times] for times in (now, before))
    return all(abs(a - b) <= _EQUAL * now[0] for a, b in zip(ahead, was, strict=True))


class _Rank:
    """The clocks of a rank, and what it has still to do of the microbatches of a round."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.clock_s = 0.0
        self.lane_s = 0.0
        self.end_s = 0.0  # of the last task
        self._rest: tuple[Run, ...] = ()  # of the part before, for every microbatch
        self._ended = [list[float]() for _ in range(width)]  # its collectives, by microbatch and number

    def go_through(self, parts: Iterable[tuple[Part, int]]) -> None:
        """Do a round of microbatches."""
        for part, times in parts:
            if part.turns:
                self._repeat(part, times)
            else:
                self._rest += tuple([run._replace(seconds=times * run.seconds) for run in part.rest])
        for ended in self._ended:
            self._do(self._rest, ended)
        self._rest = ()

    def _repeat(self, part: Part, times: int) -> None:
        """Go through a part so often; as soon as it goes on as it did before, the others are as long."""
        before = [0.0] * (2 + self.width * part.collectives)
        for done in range(1, times + 1):
            self._once(part)
            now = [self.clock_s, self.lane_s, *[end for ended in self._ended for end in ended]]
            if done > 1 and _alike(now, before):
                self._shift((times - done) * (now[0] - before[0]))
                return
            before = now

    def _once(self, part: Part) -> None:
        ended = [[0.0] * part.collectives for _ in range(self.width)]
        for place, turn in enumerate(part.turns):
            for mine, its_before in zip(ended, self._ended, strict=True):
                if place == 0:
                    self._do(self._rest, its_before)
                self._do(turn, mine)
        self._rest, self._ended = part.rest, ended

    def _do(self, runs: Iterable[Run], ended: list[float]) -> None:
        """Run a microbatch's tasks, each after the collectives that it reads from."""
        for run in runs:
            for number in run.made_by:
                self.clock_s = max(self.clock_s, ended[number])
            if run.communicates:
                self.end_s = self.lane_s = ended[run.number] = max(self.clock_s, self.lane_s) + run.seconds
            else:
                self.end_s = self.clock_s = self.clock_s + run.seconds

    def _shift(self, seconds: float) -> None:
        self.clock_s += seconds
        self.lane_s += seconds
        self._ended = [[end + seconds for end in ended] for ended in self._ended]
