"""Stages that fit: layers that differ are dealt to the stages of a pipeline so that their work is even."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from math import inf

from helixctl.plan import Layout


def dealt(layout: Layout, seconds: Sequence[float], embed: float, head: float) -> Layout:
    """The layout with the stages whose slowest is as quick as can be; itself where equal stages are no slower.

    Args:
        layout: of several stages.
        seconds: of every layer, one microbatch of it.
        embed: of the embedding, which is the first stage's.
        head: of the head, which is the last stage's.
    """
    sums = list(accumulate(seconds, initial=0.0))

    def takes(stage: int, start: int, stop: int) -> float:
        ends = (embed if stage == 0 else 0.0) + (head if stage == layout.pipeline - 1 else 0.0)
        return sums[stop] - sums[start] + ends

    @cache
    def best(stage: int, start: int) -> tuple[float, tuple[int, ...]]:
        """The slowest of the stages from one on, and their sizes."""
        left = layout.pipeline - stage - 1
        if not left:
            return takes(stage, start, len(seconds)), (len(seconds) - start,)
        found: tuple[float, tuple[int, ...]] = (inf, ())
        for stop in range(start + 1, len(seconds) - left + 1):
            mine = takes(stage, start, stop)
            if mine >= found[0]:
                break
            slowest, sizes = best(stage + 1, stop)
            if max(mine, slowest) < found[0]:
                found = (max(mine, slowest), (stop - start, *sizes))
        return found

    slowest, sizes = best(0, 0)
    equal = [layout.layers_of(stage, len(seconds)) for stage in range(layout.pipeline)]
    if slowest >= max(takes(stage, layers.start, layers.stop) for stage, layers in enumerate(equal)) * (1 - 1e-9):
        return layout
    return layout.model_copy(update={"stages": "-".join(map(str, sizes))})
