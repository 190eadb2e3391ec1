"""Collectives: one call of torch.distributed per exchange, or copies if all ranks run in this process."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist

from helixctl.dag import Dag, SendReceive
from helixctl.dag.ops import wire_kind
from helixctl_runtime.comm.by_links import by_links
from helixctl_runtime.comm.by_memory import by_memory
from helixctl_runtime.comm.group import Group
from helixctl_runtime.comm.one_round import Work, one_round
from helixctl_runtime.compile.bound import Exchange

# torch 2.13 renames these two; 2.11 has only the old names, and the new torch warns about it.
_all_gather: Callable[..., dist.Work] = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter: Callable[..., dist.Work] = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor

Issue = Callable[[], Work]


def rank_sets(dag: Dag) -> list[tuple[int, ...]]:
    """The sets of ranks that take part in a collective, each once, in the order of the document."""
    met = (t.ranks for t in dag.tasks if t.is_collective and not isinstance(t.op, SendReceive))
    return list(dict.fromkeys(met))


def issue(exchange: Exchange, rank: int, of: Group | None) -> Issue:  # noqa: PLR0911  one a kind
    """The call that starts a collective.

    Args:
        exchange: the collective, bound to memory.
        rank: this rank.
        of: the group of its ranks; None for sends.

    Returns:
        A call that returns the running work, to be waited for.
    """
    send, receive = exchange.send, exchange.receive
    if of and of.links and (direct := by_links(exchange, rank, of.links) or by_memory(exchange, rank, of.links)):
        return direct
    group = of.process if of else None
    if quick := one_round(exchange, group):
        return quick
    root, *others = exchange.task.ranks
    match wire_kind(exchange.task.op):
        case "all_gather":
            flat = send.view(-1)
            return lambda: _all_gather(receive, flat, group=group, async_op=True)
        case "all_to_all":
            leave, arrive = [*exchange.leave], [*exchange.arrive]
            return lambda: dist.all_to_all_single(receive, send.view(-1), arrive, leave, group=group, async_op=True)
        case "all_reduce":
            return lambda: dist.all_reduce(receive, group=group, async_op=True)
        case "reduce_scatter":
            return lambda: _reduce_scatter(receive.view(-1), send.view(-1), group=group, async_op=True)
        case "send_receive" if rank == root:
            return lambda: _work(dist.isend(send, others[0]))
        case "send_receive":
            return lambda: _work(dist.irecv(receive, root))
        case _:
            return lambda: dist.broadcast(receive, root, group=group, async_op=True)


def _work(work: dist.Work | None) -> dist.Work:
    if work is None:
        msg = "this rank takes no part in the exchange"
        raise RuntimeError(msg)
    return work


def exchange_together(exchanges: list[Exchange]) -> None:
    """Run one collective of ranks that all run in this process.

    Args:
        exchanges: the part of every rank, in the order of the collective's ranks.
    """
    match wire_kind(exchanges[0].task.op):
        case "all_to_all":
            _all_to_all(exchanges)
            return
        case "reduce_scatter":
            _scatter_sum(exchanges)
            return
        case "all_gather":
            whole = torch.cat([e.send.reshape(-1) for e in exchanges])
        case "all_reduce":
            whole = torch.stack([e.send for e in exchanges]).sum(dim=0)
        case _:
            whole = exchanges[0].send
    for e in exchanges:
        e.receive.view(-1).copy_(whole.view(-1))


def _scatter_sum(exchanges: list[Exchange]) -> None:
    """Sum what all ranks send, and give each rank its equal part, in their order."""
    whole = torch.stack([e.send.view(-1) for e in exchanges]).sum(dim=0)
    for e, part in zip(exchanges, whole.chunk(len(exchanges)), strict=True):
        e.receive.view(-1).copy_(part)


def _all_to_all(exchanges: list[Exchange]) -> None:
    """Give every rank the parts that the others send to it, in their order."""
    sent = [e.send.view(-1).split([*e.leave]) for e in exchanges]
    for rank, e in enumerate(exchanges):
        torch.cat([parts[rank] for parts in sent], out=e.receive.view(-1))
