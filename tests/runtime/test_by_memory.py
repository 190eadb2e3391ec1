"""Collectives of much data between CPU ranks of one host, through memory that they share."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from helixctl.dag import AllGather, AllReduce, AllToAll, Broadcast, Op, ReduceScatter
from helixctl.lower import lower
from helixctl_runtime.comm import by_memory as module
from helixctl_runtime.comm.by_links import MOST_NBYTES, by_links
from helixctl_runtime.comm.by_memory import by_memory
from helixctl_runtime.comm.collectives import issue
from helixctl_runtime.comm.group import groups_of
from helixctl_runtime.comm.links import Links
from helixctl_runtime.comm.one_round import Work
from helixctl_runtime.compile.bound import Exchange
from helixctl_runtime.ranks import Rank, run_ranks
from helixctl_runtime.run import Options, run
from tests.hosts.network import missing
from tests.runtime.linked import ALL, exchange, failure, on_ranks
from tests.runtime.models import REAL, plan_for

NEW_NETWORK = 0x40000000  # CLONE_NEWNET; os.unshare is of Python 3.12
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MUCH = MOST_NBYTES // 2 + 3  # elements, of which those of the smallest dtype are more than sockets take


def started(its: Exchange, rank: Rank, links: Links) -> Work:
    assert by_links(its, rank.rank, links) is None
    start = by_memory(its, rank.rank, links)
    assert start is not None
    return start()


def sent(rank: int, numel: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(numel, generator=torch.Generator().manual_seed(rank)).to(dtype)


def cases(rank: int) -> Iterator[tuple[Exchange, torch.Tensor]]:
    """A collective of each kind and dtype, and what a rank must have at its end."""
    for dtype in DTYPES:
        mine, all_sent = sent(rank, MUCH, dtype), [sent(other, MUCH, dtype) for other in ALL]
        total = torch.stack(all_sent).sum(0)
        yield exchange(AllReduce(), its := mine.clone(), its), total
        yield exchange(AllGather("x"), mine, mine.new_empty(3 * MUCH)), torch.cat(all_sent)
        last = ALL[-1:] + ALL[:-1]
        yield exchange(Broadcast(), its := mine.clone(), its, last), all_sent[-1]
        # Each rank has three times as much for the next two, of which every other has a third.
        thrice = [sent(10 + other, 3 * MUCH, dtype) for other in ALL]
        part = torch.stack(thrice).sum(0).chunk(3)[rank]
        yield exchange(ReduceScatter("x"), thrice[rank], mine.new_empty(MUCH)), part
        even = torch.cat([its.chunk(3)[rank] for its in thrice])
        yield exchange(AllToAll("x", "y"), thrice[rank], mine.new_empty(3 * MUCH)), even


def uneven(rank: int) -> tuple[Exchange, torch.Tensor]:
    """Of every pair another number of elements, and of some none."""
    sizes = [[(i * 3 + j) % 4 * 40_000 for j in ALL] for i in ALL]
    from_all = [torch.arange(sum(sizes[i])) + 10**6 * i for i in ALL]
    leave, arrive = tuple(sizes[rank]), tuple(sizes[i][rank] for i in ALL)
    whole = exchange(AllToAll("x", "y"), from_all[rank], torch.zeros(sum(arrive), dtype=torch.int64))
    task = replace(whole.task, nbytes=8 * max(sum(its) for its in sizes))
    made = Exchange(0, task, whole.send, whole.receive, leave, arrive)
    return made, torch.cat([its.split(sizes[i])[rank] for i, its in enumerate(from_all)])


def test_every_kind_brings_what_it_should() -> None:
    """In every dtype, with sums that have the bits of torch's; and parts that differ in size."""

    def work(rank: Rank, links: Links) -> list[str]:
        wrong = []
        for its, due in (*cases(rank.rank), uneven(rank.rank)):
            started(its, rank, links).wait()
            if not torch.equal(its.receive, due):
                wrong.append(f"{its.task.op} {due.dtype}")
        return wrong

    assert on_ranks(work) == [[], [], []]


def test_many_under_way_are_waited_for_in_any_order() -> None:
    """Each rank in an order of its own, while it begins others, over many steps: memory is used again meanwhile."""
    count, numel = 60, MOST_NBYTES // 4 + 1

    def work(rank: Rank, links: Links) -> tuple[list[int], int]:
        choice = random.Random(rank.rank)
        running: list[tuple[int, Work, torch.Tensor]] = []
        wrong = []
        for number in range(count):
            size = numel * (1 + number % 3)
            mine = torch.full((size,), float(number + 1000 * rank.rank))
            kinds = (exchange(AllReduce(), mine, mine), exchange(AllGather("x"), mine, torch.empty(3 * size)))
            its = kinds[number % 2]
            running.append((number, started(its, rank, links), its.receive))
            while len(running) > choice.randrange(8):
                known, work, receive = running.pop(choice.randrange(len(running)))
                work.wait()
                each = torch.tensor([float(known + 1000 * other) for other in ALL])
                due = each.sum().expand(len(receive)) if known % 2 == 0 else each.repeat_interleave(len(receive) // 3)
                if not torch.equal(receive, due):
                    wrong.append(known)
        for _, work, _ in running:
            work.wait()
        assert links.memory
        return wrong, links.memory.nbytes

    for wrong, nbytes in on_ranks(work):
        assert wrong == []
        assert nbytes < count * 4 * numel  # half of what all of them would take


def test_nothing_is_overwritten_before_it_is_read() -> None:
    """Rank 0 has waited, and begins another, before rank 1 and 2 read what it sent first."""

    def work(rank: Rank, links: Links) -> list[float]:
        receives = [torch.empty(3 * MUCH) for _ in range(2)]
        first, second = (
            exchange(AllGather("x"), torch.full((MUCH,), float(10 * number + rank.rank)), receive)
            for number, receive in enumerate(receives)
        )
        running = started(first, rank, links)
        if rank.rank == 0:
            running.wait()
            later = started(second, rank, links)
            dist.barrier()
        else:
            dist.barrier()
            running.wait()
            later = started(second, rank, links)
        later.wait()
        return [value for receive in receives for value in receive.unique().tolist()]

    assert on_ranks(work) == [[0, 1, 2, 10, 11, 12]] * 3


def test_no_rank_waits_for_the_wait_of_another() -> None:
    """Rank 0 begins and waits for one after another; the others begin both and wait for the second first."""

    def work(rank: Rank, links: Links) -> list[float]:
        mine = [torch.full((MUCH,), float(number)) for number in range(2)]
        both = [exchange(AllReduce(), its, its) for its in mine]
        if rank.rank == 0:
            for its in both:
                started(its, rank, links).wait()
        else:
            for running in reversed([started(its, rank, links) for its in both]):
                running.wait()
        return [its[0].item() for its in mine]

    assert on_ranks(work) == [[0, 3]] * 3


@pytest.mark.parametrize("op", [AllReduce(), Broadcast()], ids=lambda op: op.kind)
def test_steps_take_no_more_memory_than_the_first_three(op: Op) -> None:
    """Broadcasts are all from rank 0, which hears of nothing else what the others have read."""

    def work(rank: Rank, links: Links) -> list[int]:
        assert links.memory
        sizes, mine = [], torch.ones(MUCH)
        for _ in range(30):
            started(exchange(op, mine, mine), rank, links).wait()
            sizes.append(links.memory.nbytes)
        return [sizes[2], sizes[-1]]

    for early, late in on_ranks(work):
        assert early == late


def test_limits_are_the_same_on_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_NBYTES", 4 * MUCH)
    monkeypatch.setattr(module, "MOST_SUMMED", 2)

    def work(rank: Rank, links: Links) -> list[bool]:
        ops, sizes = (AllGather("x"), Broadcast(), AllReduce()), (MUCH, MUCH + 1)
        made = [exchange(op, torch.empty(n), torch.empty(3 * n)) for op in ops for n in sizes]
        made += [exchange(ReduceScatter("x"), torch.empty(3 * n), torch.empty(n)) for n in sizes]
        return [by_memory(its, rank.rank, links) is not None for its in made]

    assert on_ranks(work) == [[True, False] * 2 + [False, False] + [True, False]] * 3


def by_way(rank: Rank, prepare: Callable[[], object]) -> list[tuple[bool, float]]:
    """An all-reduce of ranks 0 and 1, and one of all: whether memory carries it, and its sum."""
    rank.init_process_group()
    sets, found = [(0, 1), ALL], []
    processes = rank.new_groups(sets)
    if rank.rank == 2:
        prepare()
    groups = groups_of(processes, sets, rank.rank, rank.device, rank.timeout)
    for ranks in groups:
        mine = torch.full((MUCH,), float(1 + rank.rank))
        its, links = exchange(AllReduce(), mine, mine, ranks), groups[ranks].links
        issue(its, rank.rank, groups[ranks])().wait()
        found.append((links is not None and by_memory(its, rank.rank, links) is not None, mine[-1].item()))
    return found


def ways(worker: Callable[[Rank], object]) -> list[Any]:
    return run_ranks(worker, world_size=3, device="cpu", timeout=20, task_name=lambda r, p: "t")


APART = [[(True, 3), (False, 6)], [(True, 3), (False, 6)], [(False, 6)]]


def leave_the_network() -> None:
    """Go into a network namespace of its own, as a container without the host's network has."""
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "unshare")


def test_ranks_of_another_network_namespace_share_nothing() -> None:
    if reason := missing():
        pytest.skip(reason)
    assert ways(lambda rank: by_way(rank, leave_the_network)) == APART


def test_a_rank_without_such_memory_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ways(lambda rank: by_way(rank, lambda: monkeypatch.delattr(os, "memfd_create"))) == APART


def _wait_for_rank_1(rank: Rank, links: Links, action: Callable[[], object]) -> None:
    data = torch.ones(MUCH)
    its = exchange(AllReduce(), data, data)
    started(its, rank, links).wait()
    if rank.rank == 1:
        action()
    running = started(its, rank, links)
    rank.progress.cell[0] = 1
    running.wait()


def test_a_killed_rank_is_named() -> None:
    found = failure(lambda rank, links: _wait_for_rank_1(rank, links, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    assert found.code == "HX504"
    assert "rank 1" in found.message


def test_a_rank_that_does_not_come_is_named() -> None:
    found = failure(lambda rank, links: _wait_for_rank_1(rank, links, lambda: time.sleep(60)), timeout=2)
    assert found.code == "HX505"
    assert "rank 1" in found.message


def test_what_a_rank_sent_can_be_read_when_it_is_gone() -> None:
    """It has begun a collective and left: its memory goes with the last rank that reads it."""

    def work(rank: Rank, links: Links) -> float:
        mine = torch.full((MUCH,), float(rank.rank))
        running = started(exchange(AllReduce(), mine, mine), rank, links)
        dist.barrier()
        if rank.rank == 2:
            links.close()
            return 3
        time.sleep(0.1)
        running.wait()
        return mine[-1].item()

    assert on_ranks(work) == [3, 3, 3]


@pytest.mark.parametrize(
    "axes",
    [{"residual": "sharded"}, {"slicing": "batch", "groups": 1, "slices": 3}, {"microbatches": 2, "interleave": 2}],
    ids=str,
)
def test_a_model_whose_collectives_are_large(axes: dict[str, Any]) -> None:
    """A run is within the tolerance of float64, with collectives of several microbatches under way too."""
    dag = lower(plan_for(REAL, (16, 250), **{"groups": 3, "slices": 1, **axes}))
    sizes = [t.nbytes // len(t.ranks) for t in dag.tasks if t.is_collective]
    assert max(sizes) > MOST_NBYTES
    results = run([dag], ["large"], Options(warmup=0, iters=3, check=True), device="cpu", timeout=30)
    assert results is not None
    assert results[0].report["check"]["passed"], results[0].report["check"]
