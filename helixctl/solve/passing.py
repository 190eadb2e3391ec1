"""How long a microbatch keeps a pipeline stage from the next one."""

from __future__ import annotations

from typing import NamedTuple

from helixctl.solve.work import LayerCosts


class Stage(NamedTuple):
    """A stage, by what a microbatch takes in it.

    Attributes:
        counts: its layers, by their kind.
        first, last: which of the ends of the model it has.
        beside_s: of the links before and behind it.
    """

    counts: tuple[int, ...]
    first: bool
    last: bool
    beside_s: float


class Stages(NamedTuple):
    """The stages of a layout, of equal ones one, and the seconds of all links between them."""

    unlike: tuple[Stage, ...]
    sent_s: float


def passing(work: LayerCosts, stage: Stage, *, turns: bool) -> tuple[float, float]:
    """For how long a microbatch keeps a stage from the next one; and what part of its own way that is.

    A rank comes to the transfer of the next microbatch when it has computed the one before, and has sent that on: both
    are in one lane. The first stage receives nothing, and sends while it computes.

    Args:
        work: of the microbatch.
        stage: which it passes.
        turns: whether microbatches take turns, which can hide the shorter lane behind the longer.
    """
    lanes = [*zip(stage.counts, work.layers, strict=True)]
    if stage.first:
        lanes.append((1, work.embed))
    if stage.last:
        lanes.append((1, work.head))
    compute = communication = alone = 0.0
    for n, (compute_s, communication_s, alone_s, _) in lanes:  # asked for with every bound: read faster than by name
        compute += n * compute_s
        communication += n * communication_s
        alone += n * alone_s
    if turns:
        return max(compute, communication + stage.beside_s), alone + stage.beside_s
    serial = alone if stage.first else alone + stage.beside_s
    return serial, serial
