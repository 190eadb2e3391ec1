"""Collectives: one call of torch.distributed per exchange, or a copy where all ranks live in this process."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist

from helixctl.dag import AllGather, AllReduce, Dag
from helixctl_runtime.program import Exchange

# torch 2.13 renames all_gather_into_tensor; 2.11 has only the old name, and the new torch warns about it.
_all_gather: Callable[..., dist.Work] = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

Issue = Callable[[], dist.Work]


def groups_of(dag: Dag) -> list[tuple[int, ...]]:
    """The sets of ranks that meet in collectives, each once, in the order of the document."""
    return list(dict.fromkeys(task.ranks for task in dag.tasks if task.is_collective))


def issue(exchange: Exchange, group: dist.ProcessGroup) -> Issue:
    """The call that starts a collective; its result is waited for later."""
    send, receive, op = exchange.send, exchange.receive, exchange.task.op
    if isinstance(op, AllGather):
        flat = send.view(-1)
        return lambda: _all_gather(receive, flat, group=group, async_op=True)
    if isinstance(op, AllReduce):
        return lambda: dist.all_reduce(receive, group=group, async_op=True)
    root = exchange.task.ranks[0]
    return lambda: dist.broadcast(receive, root, group=group, async_op=True)


def exchange_together(exchanges: list[Exchange]) -> None:
    """One collective of ranks that all live in this process, in the order of its ranks."""
    op = exchanges[0].task.op
    if isinstance(op, AllGather):
        whole = torch.cat([e.send.reshape(-1) for e in exchanges])
    elif isinstance(op, AllReduce):
        whole = torch.stack([e.send for e in exchanges]).sum(dim=0)
    else:
        whole = exchanges[0].send
    for e in exchanges:
        e.receive.view(-1).copy_(whole.view(-1))
