"""The sockets between the CPU ranks of one host: full ones, ranks that are gone or late, and hosts of their own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist

from helixctl.dag import AllGather, AllReduce, AllToAll, Broadcast
from helixctl_runtime.comm import links as links_of_ranks
from helixctl_runtime.comm.by_links import MOST_NBYTES, by_links
from helixctl_runtime.comm.links import Links, connected
from helixctl_runtime.ranks import Rank, run_ranks
from tests.runtime.linked import ALL, exchange, failure, on_ranks


def test_many_collectives_under_way_fill_no_socket_for_good() -> None:
    """All begin 40 of them, of more than sockets hold, before they wait for the first, and wait in another order."""
    count, numel = 40, MOST_NBYTES // 4

    def work(rank: Rank, links: Links) -> bool:
        made, running = [], []
        for i in range(count):
            receive = torch.empty(3 * numel)
            start = by_links(
                exchange(AllGather("x"), torch.full((numel,), float(100 * i + rank.rank)), receive), rank.rank, links
            )
            assert start is not None
            made.append(receive)
            running.append(start())
        for work in reversed(running):
            work.wait()
        due = [
            torch.tensor([100 * i + r for r in ALL], dtype=torch.float32).repeat_interleave(numel) for i in range(count)
        ]
        return all(torch.equal(its, wanted) for its, wanted in zip(made, due, strict=True))

    assert on_ranks(work) == [True, True, True]


def test_a_rank_that_is_ahead_is_not_read_too_soon() -> None:
    """Rank 0 has begun two collectives before rank 2 begins one: nothing of it is taken for another's."""

    def work(rank: Rank, links: Links) -> list[float]:
        time.sleep(0.05 * rank.rank)
        found = []
        for i in range(5):
            send = torch.tensor([float(10 * i + rank.rank)])
            start = by_links(exchange(AllReduce(), send, send), rank.rank, links)
            assert start is not None
            start().wait()
            found.append(send.item())
            root = torch.tensor([float(i)]) if rank.rank == i % 3 else torch.zeros(1)
            order = tuple(sorted(ALL, key=lambda r: (r != i % 3, r)))
            start = by_links(exchange(Broadcast(), root, root, order), rank.rank, links)
            assert start is not None
            start().wait()
            found.append(root.item())
        return found

    assert on_ranks(work) == [[each for i in range(5) for each in (30 * i + 3, i)]] * 3


def test_little_alone_goes_by_sockets() -> None:
    """The limit is of what goes to one rank, and all ranks find the same."""

    def work(rank: Rank, links: Links) -> list[bool]:
        found = []
        for numel in (MOST_NBYTES // 4, MOST_NBYTES // 4 + 1):
            data = torch.empty(numel)
            found.append(by_links(exchange(AllReduce(), data, data), rank.rank, links) is not None)
            parts = torch.empty(3 * numel)
            found.append(by_links(exchange(AllToAll("x", "y"), parts, parts.clone()), rank.rank, links) is not None)
        return found

    assert on_ranks(work) == [[True, True, False, False]] * 3


def test_sockets_are_between_ranks_that_meet() -> None:
    def work(rank: Rank, links: Links) -> list[bool]:
        return [other in links for other in ALL]

    assert on_ranks(work, ((0, 1), (1, 2))) == [[False, True, False], [True, False, True], [False, True, False]]


def test_ranks_of_other_hosts_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def worker(rank: Rank) -> bool:
        monkeypatch.setattr(links_of_ranks, "_host", lambda: "" if rank.rank == 0 else f"host {rank.rank}")
        rank.init_process_group()
        return connected(rank.rank, [ALL], rank.timeout) is None

    found = run_ranks(worker, world_size=3, device="cpu", timeout=20, task_name=lambda r, p: "t")
    assert found == [True, True, True]


def _wait_for_rank_1(rank: Rank, links: Links, action: Callable[[], object]) -> None:
    data = torch.ones(4)
    if rank.rank == 1:
        action()
    start = by_links(exchange(AllReduce(), data, data), rank.rank, links)
    assert start is not None
    rank.progress.cell[0] = 1
    start().wait()


def test_a_killed_rank_is_named() -> None:
    found = failure(lambda rank, links: _wait_for_rank_1(rank, links, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    assert found.code == "HX504"
    assert "rank 1" in found.message


def test_a_rank_that_does_not_come_is_named() -> None:
    begin = time.monotonic()
    found = failure(lambda rank, links: _wait_for_rank_1(rank, links, lambda: time.sleep(60)), timeout=2)
    assert found.code == "HX505"
    assert "rank 1" in found.message
    assert time.monotonic() - begin < 15


def test_errors_say_whom_they_are_of() -> None:
    """What ``describe`` reads: a peer that is gone, and one that is late."""

    def work(rank: Rank, links: Links) -> str:
        dist.barrier()
        memory = memoryview(bytearray(4))
        if rank.rank == 2:
            links.close()
            return ""
        try:
            links.exchange([], [(2, memory)]).wait()
        except dist.DistError as error:
            return str(error)
        return "nothing"

    assert on_ranks(work) == ["connection closed by rank 2", "connection closed by rank 2", ""]
