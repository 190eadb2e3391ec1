"""Collectives through torch.distributed: groups made once, in one order, and one call per exchange."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist

from helixctl.dag import AllGather, AllReduce, Dag
from helixctl_runtime.program import Exchange

# torch 2.13 renames all_gather_into_tensor; 2.11 has only the old name, and the new torch warns about it.
_all_gather: Callable[..., dist.Work] = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

Issue = Callable[[], dist.Work]


def make_groups(dag: Dag) -> dict[tuple[int, ...], dist.ProcessGroup | None]:
    """A process group for every set of ranks that meets in a collective; None is the default group.

    All ranks make all groups in the order of the document, as torch.distributed demands.
    """
    world = tuple(range(dist.get_world_size()))
    groups: dict[tuple[int, ...], dist.ProcessGroup | None] = {world: None}
    for task in dag.tasks:
        if task.is_collective and task.ranks not in groups:
            groups[task.ranks] = dist.new_group(list(task.ranks))
    return groups


def issue(exchange: Exchange, group: dist.ProcessGroup | None) -> Issue:
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
