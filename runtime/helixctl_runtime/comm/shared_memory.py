"""Memory that the CPU ranks of a host share: a segment that each rank writes and its neighbours read.

To begin a collective a rank puts what it sends into a free slot of its own segment, and tells every other rank of the
collective, by a message through the socket between them, where the slot is. Whoever waits for the collective reads the
slots of the others. No rank writes into memory of another, and no rank waits for another's wait.

When a slot is free is known from the same messages. Two ranks meet in all collectives in one order (HX409), so both
number the collectives between them alike. Each message says below which number its sender has read everything that the
other put there. A slot is free when every reader has said so of it. If none that is large enough is free, the segment
grows: it holds what was begun since the oldest collective that a neighbour has not yet waited for, and said so.
"""

from __future__ import annotations

import mmap
import os
import resource
import struct
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

# Where the sender's slot begins in its segment, and the lowest number that the sender has not finished to read.
_MESSAGE: Final = struct.Struct("<QQ")
# A slot is a number of whole pages.
_PAGE_NBYTES: Final = mmap.PAGESIZE


class _Pair:
    """What passes between this rank and a neighbour: the collectives of both, numbered in their order.

    Attributes:
        begun: how many this rank has begun.
        unread: the lowest number of which this rank has not read what the neighbour put into its slot.
        unread_there: the same of the neighbour and this rank's slots, as it last said.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.begun = self.unread = self.unread_there = 0
        self._read_ahead = set[int]()
        self._mapped = torch.empty(0, dtype=torch.uint8)

    def have_read(self, number: int) -> None:
        """Count a collective as read; waits may come in another order than begins."""
        self._read_ahead.add(number)
        while self.unread in self._read_ahead:
            self._read_ahead.remove(self.unread)
            self.unread += 1

    def part(self, offset: int, nbytes: int) -> torch.Tensor:
        """Bytes of the neighbour's segment, which are not to be written."""
        if offset + nbytes > len(self._mapped):  # it has grown
            self._mapped = _mapped(self.descriptor, os.fstat(self.descriptor).st_size, mmap.PROT_READ)
        return self._mapped[offset : offset + nbytes]


@dataclass(slots=True, eq=False)
class _Slot:
    """A part of this rank's segment, and who reads it: each pair with the collective's number there."""

    offset: int
    nbytes: int
    readers: Sequence[tuple[_Pair, int]] = ()
    waited: bool = False

    def free(self) -> bool:
        """Whether this rank has waited for the collective, and every reader has said that it has read this."""
        return self.waited and all(pair.unread_there > number for pair, number in self.readers)


class Segment:
    """The memory that this rank writes. It has no name in any folder, and goes with the last process that has it."""

    def __init__(self) -> None:
        """Make a segment without memory.

        Raises:
            OSError: the system has no such memory, or allows only files of a certain size, which would end it.
        """
        if not hasattr(os, "memfd_create") or resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
            msg = "no memory to share"
            raise OSError(msg)
        self.descriptor = os.memfd_create("helixctl")
        self.nbytes = 0
        self._slots = list[_Slot]()
        self._mapped = torch.empty(0, dtype=torch.uint8)

    def take(self, nbytes: int) -> _Slot:
        """A slot that nobody reads, at the lowest place; the segment grows where there is none.

        Args:
            nbytes: its size.

        Raises:
            MemoryError: the system has no memory to let it grow.
        """
        self._slots = [slot for slot in self._slots if not slot.free()]
        nbytes, offset, place = -(-nbytes // _PAGE_NBYTES) * _PAGE_NBYTES, 0, 0
        for place, slot in enumerate(self._slots):  # noqa: B007  the place is used behind the loop
            if slot.offset - offset >= nbytes:
                break
            offset = slot.offset + slot.nbytes
        else:
            place = len(self._slots)
        if offset + nbytes > self.nbytes:
            self._grow(offset + nbytes)
        taken = _Slot(offset, nbytes)
        self._slots.insert(place, taken)
        return taken

    def part(self, offset: int, nbytes: int) -> torch.Tensor:
        """Bytes of the segment."""
        return self._mapped[offset : offset + nbytes]

    def _grow(self, nbytes: int) -> None:
        try:
            # Not ftruncate: memory that is lacking later, at a write, would kill the rank without a word.
            os.posix_fallocate(self.descriptor, self.nbytes, nbytes - self.nbytes)
            self._mapped = _mapped(self.descriptor, nbytes, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            msg = f"no memory for {nbytes} bytes that other ranks read: {error.strerror}"
            raise MemoryError(msg) from error
        self.nbytes = nbytes


@dataclass(eq=False)
class Sharing:
    """One collective of this rank: its slot, and what it says to the others and hears from them.

    Attributes:
        slot: where this rank puts what it sends; None if it sends nothing.
        inbox: a message from each other rank, to be filled.
    """

    segment: Segment
    numbers: Mapping[int, tuple[_Pair, int]]
    slot: _Slot | None
    inbox: dict[int, bytearray] = field(init=False)

    def __post_init__(self) -> None:
        self.inbox = {other: bytearray(_MESSAGE.size) for other in self.numbers}

    def mine(self, offset: int, nbytes: int) -> torch.Tensor:
        """Bytes of this rank's slot, from an offset in it."""
        return self.segment.part((self.slot.offset if self.slot else 0) + offset, nbytes)

    def message(self, other: int, offset: int) -> bytes:
        """What another rank has to know: where its part is, ``offset`` into the slot, and what was read of its own."""
        return _MESSAGE.pack((self.slot.offset if self.slot else 0) + offset, self.numbers[other][0].unread)

    def theirs(self, other: int, nbytes: int) -> torch.Tensor:
        """Bytes that another rank, whose message is there, put into its slot for this one; not to be written."""
        return self.numbers[other][0].part(_MESSAGE.unpack(self.inbox[other])[0], nbytes)

    def end(self) -> None:
        """Count the collective as read: its messages are there, and nothing reads its slots any more."""
        for other, (pair, number) in self.numbers.items():
            pair.have_read(number)
            # Waits may come in another order than messages, which never take back what an earlier one said.
            pair.unread_there = max(pair.unread_there, _MESSAGE.unpack(self.inbox[other])[1])
        if self.slot:
            self.slot.waited = True


class SharedMemory:
    """The segment of one rank, and those of its neighbours."""

    def __init__(self, segment: Segment, descriptors: Mapping[int, int]) -> None:
        """Take the file descriptors over.

        Args:
            segment: that of this rank.
            descriptors: of each neighbour's segment, by rank.
        """
        self._segment = segment
        self._pairs = {rank: _Pair(descriptor) for rank, descriptor in descriptors.items()}

    def __contains__(self, rank: object) -> bool:
        """Whether this rank reads the segment of another, and the other reads this rank's."""
        return rank in self._pairs

    @property
    def nbytes(self) -> int:
        """Bytes of this rank's segment."""
        return self._segment.nbytes

    def begin(self, others: Iterable[int], nbytes: int) -> Sharing:
        """Begin a collective.

        Args:
            others: the other ranks of the collective.
            nbytes: what this rank puts into its slot; 0 if nothing.

        Raises:
            MemoryError: as ``Segment.take``.
        """
        numbers = {}
        for other in others:
            pair = self._pairs[other]
            numbers[other] = pair, pair.begun
            pair.begun += 1
        slot = self._segment.take(nbytes) if nbytes else None
        if slot:
            slot.readers = [*numbers.values()]
        return Sharing(self._segment, numbers, slot)

    def close(self) -> None:
        """Close the file descriptors; memory that is mapped goes with the last tensor over it."""
        for descriptor in (self._segment.descriptor, *(pair.descriptor for pair in self._pairs.values())):
            os.close(descriptor)


def _mapped(descriptor: int, nbytes: int, access: int) -> torch.Tensor:
    """The first bytes of a segment, with their pages: else each would be looked up at its first use."""
    memory = mmap.mmap(descriptor, nbytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=access)
    # A tensor made in inference mode could not be written outside it; torch warns of memory that cannot be written.
    with torch.inference_mode(mode=False), warnings.catch_warnings(action="ignore"):
        return torch.frombuffer(memory, dtype=torch.uint8)
