"""Schedule: the steps of a generation in their order, from which its launcher tells how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

WARM: Final = 3  # tokens after each prompt in the run that comes before the measured one
TRACED: Final = 6  # tokens after each prompt in the run that comes after it, in which every action is timed


class Part(NamedTuple):
    """Steps of one kind that follow each other.

    Attributes:
        run: which of the runs over the same prompts they belong to.
        step: their kind.
        steps: how many there are; of the decode steps of the measured run at most.
    """

    run: Literal["warm-up", "measured", "traced"]
    step: Literal["prefill", "decode"]
    steps: int


def schedule(chunks: Sequence[int], new: int, *, warm: bool, traced: bool) -> tuple[Part, ...]:
    """The parts of a run in their order.

    Args:
        chunks: of each plan the steps of its prefill.
        new: tokens after each prompt, at most.
        warm: whether a short run comes before the measured one.
        traced: whether one comes after it.
    """
    found: list[Part] = []
    for its in chunks if warm else ():
        found += [Part("warm-up", "prefill", its), Part("warm-up", "decode", min(WARM, new) - 1)]
    # Plans take turns: the prefill of each, then a decode step of each.
    found += [Part("measured", "prefill", sum(chunks)), Part("measured", "decode", len(chunks) * (new - 1))]
    for its in chunks if traced else ():
        found += [Part("traced", "prefill", its), Part("traced", "decode", min(TRACED, new) - 1)]
    return tuple(part for part in found if part.steps)
