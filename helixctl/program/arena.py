"""Offsets of blocks in one piece of memory: blocks that are needed at the same time do not overlap.

To find the smallest such memory is hard (dynamic storage allocation). What helps in practice is to place the large or
long-lived blocks first, each in the tightest gap between those that are there while it is needed. Several orders are
tried; as soon as one takes no more than the largest sum of live blocks, none can be better. What one layer puts into a
block the others put into the same place, so that the arena of a deep model is found like that of a shallow one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, zip_longest
from typing import Final

from helixctl.records import record

# Kernels read and write whole vectors of 64 bytes (AVX-512); CUDA asks for 16.
ALIGNMENT: Final = 64


@record
class Block:
    """A piece of the arena.

    Attributes:
        nbytes: its size, without what aligns it.
        first, last: the places in the list of actions between which, both included, it is needed.
        label: equal for the blocks of all layers that do the same there; empty for a block that has no likes.
    """

    nbytes: int
    first: int
    last: int
    label: str = ""


@record
class Arena:
    """Where each block begins, in bytes, and how many bytes all of them take."""

    offsets: tuple[int, ...]
    nbytes: int


# How much work goes into a tighter arena where the first try leaves gaps: places that are tried in each way.
_WORK: Final = 18_750


@dataclass(slots=True)
class _Slot:
    """A place in the arena for blocks with one label, one after the other.

    Attributes:
        size: in bytes, aligned.
        first, last: when the first of the blocks is needed; when the last one is no longer.
        length: for how long the first is.
        beside: the numbers of the slots that have a block at the same time.
        others: the same as bits.
        at_fullest: whether it has a block when most bytes are needed.
    """

    size: int
    first: int
    last: int
    length: int
    beside: set[int]
    others: int = 0
    at_fullest: bool = False


_ALL: Final = -1  # every bit
_Interval = tuple[int, int]
_Gap = Callable[[Sequence[_Interval], int], int]
# The two that most often come to the largest sum of live blocks stand first.
_ORDERS: Final[tuple[Callable[[_Slot], tuple[int, ...]], ...]] = (
    lambda slot: (-slot.length, -slot.size, slot.first),
    lambda slot: (slot.first, -slot.length, -slot.size),
    lambda slot: (-slot.size, -slot.length, slot.first),
    lambda slot: (-slot.size * slot.length, slot.first),
    lambda slot: (not slot.at_fullest, -slot.length, -slot.size, slot.first),
)


def arena_of(blocks: Sequence[Block], enough: int = 0) -> Arena:
    """The tightest arena that is found for blocks with these lifetimes; or the first of at most ``enough`` bytes."""
    sums = _sums(blocks)
    most = max(sums, default=0)
    slots, slot_of = _slots(blocks, sums.index(most) if sums else 0)
    offsets, nbytes = _tightest(slots, max(enough, most))
    return Arena(tuple([offsets[slot] for slot in slot_of]), nbytes)


def _tightest(slots: Sequence[_Slot], floor: int) -> tuple[list[int], int]:
    """Offsets of the slots, and how high they reach.

    Two ways take turns, a round each, as it is not known which comes to the tightest arena first; then the next two.
    """
    best, least = list[int](), float("inf")
    for found in _tries(slots):
        height = max([end for _, end in found], default=0)
        if height < least:
            best, least = [start for start, _ in found], height
        if least <= floor:
            break
    return best, int(least)


def _tries(slots: Sequence[_Slot]) -> Iterator[Sequence[_Interval]]:
    """Where the slots lie, in one try after the other."""
    ways = [(key, gap) for gap in (_tightest_gap, _first_gap) for key in _ORDERS]
    rounds = max(1, _WORK // (1 + len(slots)))
    for pair in zip(ways[::2], ways[1::2], strict=True):
        for turn in zip_longest(*(_rounds(slots, key, gap, rounds) for key, gap in pair)):
            yield from (found for found in turn if found is not None)


def _rounds(
    slots: Sequence[_Slot], key: Callable[[_Slot], tuple[int, ...]], gap: _Gap, rounds: int
) -> Iterator[Sequence[_Interval]]:
    """Where the slots lie after each round of one way, until the limit of rounds, or until an order comes again.

    Those that reach highest come earlier by half in the next round.
    """
    order = sorted(range(len(slots)), key=partial(_by, slots, key))
    met = set[tuple[int, ...]]()
    found, same, moved = list[_Interval](), 0, _ALL
    for _ in range(rounds):
        if tuple(order) in met:
            return
        met.add(tuple(order))
        found = _placed(slots, order, gap, found, same, moved)
        yield found
        height = max([end for _, end in found], default=0)
        same, moved = len(order), 0
        for slot in [i for i in order if found[i][1] == height]:
            place = order.index(slot)
            order.insert(place // 2, order.pop(place))
            same, moved = min(same, place // 2), moved | 1 << slot


def aligned(nbytes: int) -> int:
    """The next multiple of the alignment."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def largest_sum(blocks: Sequence[Block]) -> int:
    """The largest sum of blocks that are needed at one time, each aligned: no arena is smaller."""
    return max(_sums(blocks), default=0)


def _sums(blocks: Sequence[Block]) -> list[int]:
    """The sum of blocks at each time."""
    if not blocks:
        return []
    changes = [0] * (2 + max(block.last for block in blocks))
    for block in blocks:
        changes[block.first] += aligned(block.nbytes)
        changes[block.last + 1] -= aligned(block.nbytes)
    return list(accumulate(changes))


def _slots(blocks: Sequence[Block], fullest: int) -> tuple[list[_Slot], list[int]]:
    """The slots of an arena, and which of them each block has; ``fullest``: the time at which most is needed."""
    slots: list[_Slot] = []
    slot_of = [0] * len(blocks)
    by_label: dict[object, list[int]] = {}
    live: list[int] = []
    for i in sorted(range(len(blocks)), key=lambda i: (blocks[i].first, i)):
        block = blocks[i]
        likes = by_label.setdefault((block.label or i, block.nbytes), [])
        mine = next((slot for slot in likes if slots[slot].last < block.first), None)
        if mine is None:
            mine = len(slots)
            slots.append(_Slot(aligned(block.nbytes), block.first, block.last, block.last - block.first + 1, set()))
            likes.append(mine)
        slots[mine].last = block.last
        slot_of[i] = mine
        live = [slot for slot in live if slots[slot].last >= block.first and slot != mine]
        for slot in live:
            slots[slot].beside.add(mine)
        slots[mine].beside.update(live)
        live.append(mine)
    for its in slots:
        its.others = sum(1 << i for i in its.beside)
    for block, slot in zip(blocks, slot_of, strict=True):
        slots[slot].at_fullest |= block.first <= fullest <= block.last
    return slots, slot_of


def _by(slots: Sequence[_Slot], key: Callable[[_Slot], tuple[int, ...]], i: int) -> tuple[int, ...]:
    return key(slots[i])


def _placed(
    slots: Sequence[_Slot],
    order: Sequence[int],
    gap: _Gap,
    before: Sequence[_Interval],
    same: int,
    moved: int,
) -> list[_Interval]:
    """Slots placed one after the other: from where to where each lies.

    Args:
        slots: what is placed.
        order: the numbers of all slots, in the order in which they are placed.
        gap: chooses between the slots that are needed at the same time and lie already.
        before: where the slots lay in the round before.
        same: how many of the order, from the first, lie as before.
        moved: a bit for every slot that has another place in the order than before. A slot that is needed beside none
            of these, nor beside one that lies elsewhere for them, lies as before.
    """
    at: list[_Interval | None] = [None] * len(slots)
    for i in order[:same]:
        at[i] = before[i]
    for i in order[same:]:
        slot = slots[i]
        if not moved & (slot.others | 1 << i):
            at[i] = before[i]
            continue
        start = gap(sorted(filter(None, map(at.__getitem__, slot.beside))), slot.size)
        at[i] = (start, start + slot.size)
        if not before or at[i] != before[i]:
            moved |= 1 << i
    return list(filter(None, at))


def _tightest_gap(taken: Sequence[_Interval], size: int) -> int:
    """The begin of the smallest gap between intervals that the bytes fit into; else the end of them all."""
    end, best, room = 0, -1, 0
    for start, stop in taken:
        gap = start - end
        if gap >= size and (best < 0 or gap < room):
            best, room = end, gap
        if stop > end:  # noqa: PLR1730  # a call of max would take most of the time
            end = stop
    return end if best < 0 else best


def _first_gap(taken: Sequence[_Interval], size: int) -> int:
    """The begin of the lowest gap between intervals that the bytes fit into; else the end of them all."""
    end = 0
    for start, stop in taken:
        if start - end >= size:
            break
        if stop > end:  # noqa: PLR1730
            end = stop
    return end
