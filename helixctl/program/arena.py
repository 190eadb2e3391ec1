"""Offsets of blocks in one piece of memory: blocks that are needed at the same time do not overlap.

To find the smallest such memory is hard (dynamic storage allocation). What helps in practice is to place the large or
long-lived blocks first, each in the tightest gap between those that are there while it is needed. Several orders are
tried; as soon as one takes no more than the largest sum of live blocks, none can be better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

# Kernels read and write whole vectors of 64 bytes (AVX-512); CUDA asks for 16.
ALIGNMENT: Final = 64


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of the arena.

    Attributes:
        nbytes: its size, without what aligns it.
        first, last: the places in the list of actions between which, both included, it is needed.
    """

    nbytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Arena:
    """Where each block begins, in bytes, and how many bytes all of them take."""

    offsets: tuple[int, ...]
    nbytes: int


# How much work goes into a tighter arena where the first try leaves gaps: blocks placed, all together.
_WORK: Final = 20_000


def arena_of(blocks: Sequence[Block]) -> Arena:
    """The tightest arena that is found for blocks with these lifetimes.

    The blocks that reach highest are placed first in the next round, until nothing is gained or the work is done.
    """
    sizes = [aligned(block.nbytes) for block in blocks]
    floor = largest_sum(blocks, sizes)
    beside = _together(blocks)
    rounds = max(2, _WORK // (1 + len(blocks)) // len(_ORDERS))
    best: Arena | None = None
    for key in _ORDERS:
        keys = [key(size, block) for size, block in zip(sizes, blocks, strict=True)]
        order = sorted(range(len(blocks)), key=keys.__getitem__)
        for _ in range(rounds):
            found = _placed(sizes, beside, order)
            if best is None or found.nbytes < best.nbytes:
                best = found
            if best.nbytes <= floor:
                return best
            top = {i for i in order if found.offsets[i] + sizes[i] == found.nbytes}
            order = [*(i for i in order if i in top), *(i for i in order if i not in top)]
    return best or Arena((), 0)


_ORDERS: Final[tuple[Callable[[int, Block], tuple[int, ...]], ...]] = (
    lambda size, b: (-size, b.first - b.last, b.first),
    lambda size, b: (b.first - b.last, -size, b.first),
    lambda size, b: (-size * (b.last - b.first + 1), b.first),
    lambda size, b: (b.first, b.first - b.last, -size),
)


def aligned(nbytes: int) -> int:
    """The next multiple of the alignment."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def largest_sum(blocks: Sequence[Block], sizes: Sequence[int]) -> int:
    """The largest sum of sizes that are needed at one place: no arena is smaller."""
    if not blocks:
        return 0
    changes = [0] * (2 + max(block.last for block in blocks))
    for size, block in zip(sizes, blocks, strict=True):
        changes[block.first] += size
        changes[block.last + 1] -= size
    return max(accumulate(changes))


def _together(blocks: Sequence[Block]) -> list[list[int]]:
    """Of every block, the others that are needed at some place where it is."""
    beside: list[list[int]] = [[] for _ in blocks]
    live: list[int] = []
    for i in sorted(range(len(blocks)), key=lambda i: blocks[i].first):
        live = [other for other in live if blocks[other].last >= blocks[i].first]
        for other in live:
            beside[other].append(i)
        beside[i] += live
        live.append(i)
    return beside


def _placed(sizes: Sequence[int], beside: Sequence[Sequence[int]], order: Sequence[int]) -> Arena:
    """Blocks placed one after the other."""
    offsets = [-1] * len(sizes)
    for i in order:
        taken = sorted([(offsets[other], offsets[other] + sizes[other]) for other in beside[i] if offsets[other] >= 0])
        offsets[i] = _tightest_gap(taken, sizes[i])
    return Arena(tuple(offsets), max((o + s for o, s in zip(offsets, sizes, strict=True)), default=0))


def _tightest_gap(taken: Sequence[tuple[int, int]], size: int) -> int:
    """The begin of the smallest gap between intervals that so many bytes fit into; else the end of them all."""
    end, best, room = 0, -1, 0
    for start, stop in taken:
        gap = start - end
        if gap >= size and (best < 0 or gap < room):
            best, room = end, gap
        end = max(end, stop)
    return end if best < 0 else best
