"""The order in which a rank issues its tasks: microbatch after microbatch, or several taking turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from helixctl.dag import Task


def interleaved(parts: Sequence[Sequence[Task]], width: int) -> tuple[str, ...]:
    """The ids of a rank's tasks, given by microbatch, with ``width`` microbatches taking turns.

    A turn goes up to the next collective: it is issued, and the next microbatch computes while it runs. All ranks of a
    team take the same turns, so their collectives meet in one order.
    """
    order: list[str] = []
    for first in range(0, len(parts), width):
        for turn in zip_longest(*(_turns(tasks) for tasks in parts[first : first + width]), fillvalue=()):
            order += [task.id for tasks in turn for task in tasks]
    return tuple(order)


def _turns(tasks: Sequence[Task]) -> Iterator[tuple[Task, ...]]:
    """Tasks up to and including each collective, and what is left after the last."""
    turn: list[Task] = []
    for task in tasks:
        turn.append(task)
        if task.is_collective:
            yield tuple(turn)
            turn = []
    if turn:
        yield tuple(turn)
