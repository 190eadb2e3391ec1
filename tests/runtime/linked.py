"""Three ranks with sockets between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from helixctl.dag import Op, Task
from helixctl.errors import Diagnostic, HelixError
from helixctl_runtime.comm.links import Links, connected
from helixctl_runtime.compile.bound import Exchange
from helixctl_runtime.ranks import Phase, Rank, run_ranks

ALL = (0, 1, 2)


def on_ranks(
    work: Callable[[Rank, Links], object], sets: tuple[tuple[int, ...], ...] = (ALL,), timeout: float = 20
) -> list[Any]:
    def worker(rank: Rank) -> object:
        rank.init_process_group()
        links = connected(rank.rank, sets, rank.timeout)
        assert links is not None
        rank.progress.enter(Phase.RUNNING)
        return work(rank, links)

    return run_ranks(worker, world_size=3, device="cpu", timeout=timeout, task_name=lambda r, p: f"task of rank {r}")


def failure(work: Callable[[Rank, Links], object], timeout: float = 20) -> Diagnostic:
    """What a run of the ranks that fails is told to have failed of."""
    with pytest.raises(HelixError) as caught:
        on_ranks(work, timeout=timeout)
    (found,) = caught.value.diagnostics
    return found


def exchange(op: Op, send: torch.Tensor, receive: torch.Tensor, ranks: tuple[int, ...] = ALL) -> Exchange:
    return Exchange(0, Task("t", 0, "transfer", op, ranks, (), (), 0, 0), send, receive)
