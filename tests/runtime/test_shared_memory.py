"""Memory that the CPU ranks of a host share: slots and their readers; the ranks are in one process here."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import torch

from helixctl_runtime.comm.by_memory import add_up
from helixctl_runtime.comm.shared_memory import Segment, SharedMemory, Sharing

PAGE = 4096


class Ranks:
    """Ranks that share memory; their messages are carried by hand."""

    def __init__(self, count: int, opened: ExitStack) -> None:
        segments = [Segment() for _ in range(count)]
        self.memories = [
            SharedMemory(own, {i: os.dup(its.descriptor) for i, its in enumerate(segments) if its is not own})
            for own in segments
        ]
        for memory in self.memories:
            opened.callback(memory.close)

    def begin(self, rank: int, nbytes: int = PAGE, others: tuple[int, ...] = ()) -> Sharing:
        """Begin a collective with some ranks; with all, if none are named. Its slot gets the rank's number."""
        members = others or tuple(i for i in range(len(self.memories)) if i != rank)
        sharing = self.memories[rank].begin(members, nbytes)
        sharing.mine(0, nbytes).fill_(rank)
        return sharing

    def all_begin(self, nbytes: int = PAGE) -> list[Sharing]:
        """All ranks begin a collective, and hear of each other."""
        begun = [self.begin(rank, nbytes) for rank in range(len(self.memories))]
        for rank, sharing in enumerate(begun):
            for other, its in enumerate(begun):
                if other != rank:
                    sharing.inbox[other][:] = its.message(rank, 0)
        return begun


@contextmanager
def ranks(count: int) -> Iterator[Ranks]:
    with ExitStack() as opened:
        yield Ranks(count, opened)


def offset(sharing: Sharing) -> int:
    assert sharing.slot
    return sharing.slot.offset


def test_a_slot_is_taken_again_when_all_have_said_that_they_read_it() -> None:
    with ranks(3) as three:
        first = three.all_begin()
        first[0].end()
        first[1].end()
        # Rank 2 has not waited: it says so with its second message.
        second = three.all_begin()
        assert offset(second[0]) == PAGE
        second[0].end()
        second[1].end()
        third = three.begin(0)
        assert offset(third) == 2 * PAGE  # rank 1 has read both, rank 2 neither
        first[2].end()
        second[2].end()
        third_there = three.begin(2)
        for other, its in ((1, three.begin(1)), (2, third_there)):
            third.inbox[other][:] = its.message(0, 0)
        third.end()
        assert [offset(three.begin(0)) for _ in range(3)] == [0, PAGE, 3 * PAGE]


def test_a_rank_keeps_its_own_slot_until_it_has_waited() -> None:
    """An all-reduce reads it then."""
    with ranks(2) as two:
        first = two.all_begin()
        first[1].end()
        second = two.all_begin()
        second[0].end()  # rank 1 says that it has read the first
        assert offset(two.begin(0)) == 2 * PAGE
        first[0].end()
        assert offset(two.begin(0)) == 0


def test_what_is_read_is_counted_without_a_gap() -> None:
    """Rank 1 waits for the second collective ahead of the first: the slots of both stay until it has read the first."""
    with ranks(2) as two:
        first, second = two.all_begin(), two.all_begin()
        second[1].end()
        third = two.all_begin()
        for each in (first, second, third):
            each[0].end()
        assert offset(two.begin(0)) == 3 * PAGE
        first[1].end()
        fourth = two.begin(1)
        own = two.begin(0)
        assert fourth.message(0, 0) > third[1].message(0, 0)
        own.inbox[1][:] = fourth.message(0, 0)
        own.end()
        assert [offset(two.begin(0)) for _ in range(2)] == [0, PAGE]


def test_an_earlier_message_takes_nothing_back() -> None:
    with ranks(2) as two:
        first = two.all_begin()
        first[0].end()
        early = two.all_begin()  # of rank 1, which has not read the first
        first[1].end()
        late = two.all_begin()
        late[0].end()
        early[0].end()
        assert offset(two.begin(0)) == 0


def test_steps_use_the_same_memory_again() -> None:
    with ranks(3) as three:
        for step in range(200):
            for sharing in three.all_begin(PAGE * (1 + step % 3)):
                sharing.end()
        # Two are in use at a time, of at most three pages each.
        assert all(memory.nbytes <= 6 * PAGE for memory in three.memories)


def test_who_sends_nothing_takes_no_slot_and_says_what_it_has_read() -> None:
    """Broadcasts from one rank: its segment does not grow from one to the next."""
    with ranks(2) as two:
        for _ in range(10):
            root, leaf = two.begin(0), two.memories[1].begin((0,), 0)
            root.inbox[1][:] = leaf.message(0, 0)
            leaf.inbox[0][:] = root.message(1, 0)
            assert leaf.slot is None
            assert leaf.theirs(0, PAGE).sum() == 0
            leaf.end()
            root.end()
        assert [memory.nbytes for memory in two.memories] == [2 * PAGE, 0]


def test_a_gap_between_slots_is_used() -> None:
    with ranks(2) as two:
        begun = [two.all_begin(nbytes) for nbytes in (PAGE, 3 * PAGE, PAGE)]
        for each in (*begun[0], *begun[1]):
            each.end()
        last = two.all_begin(PAGE)
        last[0].end()
        assert offset(last[0]) == 5 * PAGE
        assert [offset(two.begin(0, n * PAGE)) for n in (3, 2, 1)] == [0, 6 * PAGE, 3 * PAGE]


def test_a_reader_sees_what_has_grown() -> None:
    with ranks(2) as two:
        for nbytes in (PAGE, 300 * PAGE, 5):
            for rank, sharing in enumerate(two.all_begin(nbytes)):
                theirs = sharing.theirs(1 - rank, nbytes)
                assert theirs.tolist() == [1 - rank] * nbytes


def test_ranks_that_meet_in_some_collectives_count_by_pairs() -> None:
    """Rank 0 meets rank 1 often, and rank 2 once: what rank 2 does not read stays, and nothing else does."""
    with ranks(3) as three:
        first = three.all_begin()
        first[0].end()
        first[1].end()
        for _ in range(20):
            pair = three.begin(0, PAGE, (1,)), three.begin(1, PAGE, (0,))
            for rank, sharing in enumerate(pair):
                sharing.inbox[1 - rank][:] = pair[1 - rank].message(rank, 0)
            for sharing in pair:
                sharing.end()
        assert first[2].theirs(0, PAGE).eq(0).all()
        assert three.memories[0].nbytes == 3 * PAGE


def test_memory_that_was_mapped_in_inference_mode_can_be_written_after_it() -> None:
    with ranks(2) as two:
        with torch.inference_mode():
            two.all_begin(2 * PAGE)
        for sharing in two.all_begin(PAGE):
            sharing.mine(0, 8).add_(1)


def test_lacking_memory_is_an_error_and_no_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with ranks(2) as two:
        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(MemoryError, match="no memory for 8192 bytes that other ranks read: No space left"):
            two.begin(0, PAGE + 1)


def test_where_files_may_not_grow_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is of this memory too."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 40, resource.RLIM_INFINITY))
    with pytest.raises(OSError, match="no memory to share"):
        Segment()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_sums_are_in_the_order_of_the_ranks_and_rounded_once(dtype: torch.dtype, count: int) -> None:
    numel = 300_001  # more than is added up at once, and no whole number of it
    pieces = [
        torch.randn(numel, generator=torch.Generator().manual_seed(i)).to(dtype) * 4 ** (i % 4) for i in range(count)
    ]
    out = torch.empty(numel, dtype=dtype)
    add_up(pieces, out)
    total = pieces[0].to(torch.promote_types(dtype, torch.float32))
    for piece in pieces[1:]:
        total = total + piece
    assert torch.equal(out, total.to(dtype))
    if count <= 4:
        assert torch.equal(out, torch.stack(pieces).sum(0))
