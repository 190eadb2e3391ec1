"""Collectives of little data between the CPU ranks of one host, through the sockets between them.

Every rank sends to every other at once. Sums are added up here, in the order of the ranks and rounded once: all ranks
have the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch

from helixctl.dag.ops import wire_kind
from helixctl_runtime.comm.arriving import Arriving
from helixctl_runtime.comm.links import Links
from helixctl_runtime.comm.one_round import Work
from helixctl_runtime.comm.parts import memory_of, nbytes_to_each, parts
from helixctl_runtime.compile.bound import Exchange

# Of what one rank sends to each. More would not fit into a socket, and a rank that computes empties none.
MOST_NBYTES: Final = 128 * 1024


def by_links(exchange: Exchange, rank: int, links: Links) -> Callable[[], Work] | None:  # noqa: PLR0911  one a kind
    """The call that starts a collective; None where it has too much data, or is of another kind.

    All ranks of a collective find the same.

    Args:
        exchange: the collective, bound to memory.
        rank: this rank, one of the collective's.
        links: sockets to the others.
    """
    ranks, kind = exchange.task.ranks, wire_kind(exchange.task.op)
    if nbytes_to_each(exchange, kind) > MOST_NBYTES:
        return None
    send, receive, at = exchange.send.view(-1), exchange.receive.view(-1), ranks.index(rank)
    others = [(i, other) for i, other in enumerate(ranks) if i != at]
    match kind:
        case "all_gather":
            places = receive.view(len(ranks), -1)
            return _exchanged(links, [send] * len(ranks), [*places], others, _copied(places[at], send))
        case "all_to_all":
            leave, arrive = parts(send, exchange.leave, len(ranks)), parts(receive, exchange.arrive, len(ranks))
            return _exchanged(links, leave, arrive, others, _copied(arrive[at], leave[at]))
        case "all_reduce":
            return _summed(links, [send] * len(ranks), receive, others, at)
        case "reduce_scatter":
            return _summed(links, parts(send, (), len(ranks)), receive, others, at)
        case "broadcast":
            root = ranks[0]
            sends = [(other, memory_of(send)) for _, other in others if rank == root]
            receives = [(root, memory_of(receive))] if rank != root else []
            return lambda: Arriving(links.exchange(sends, receives))
        case _:
            return None


def _exchanged(
    links: Links,
    leave: Sequence[torch.Tensor],
    arrive: Sequence[torch.Tensor],
    others: Sequence[tuple[int, int]],
    own: Callable[[], object],
) -> Callable[[], Work]:
    """Parts to and from every other rank, and its own part."""
    sends, receives = ([(other, memory_of(parts[i])) for i, other in others] for parts in (leave, arrive))

    def start() -> Work:
        arrival = links.exchange(sends, receives)
        own()
        return Arriving(arrival)

    return start


def _summed(
    links: Links, leave: Sequence[torch.Tensor], out: torch.Tensor, others: Sequence[tuple[int, int]], at: int
) -> Callable[[], Work]:
    """Parts to every other rank; the sum of the parts that arrive and the rank's own."""
    sends = [(other, memory_of(leave[i])) for i, other in others]

    def start() -> Work:
        pieces = torch.empty(len(leave), out.numel(), dtype=out.dtype)
        arrival = links.exchange(sends, [(other, memory_of(pieces[i])) for i, other in others])
        pieces[at] = leave[at]
        return Arriving(arrival, lambda: torch.sum(pieces, 0, out=out))

    return start


def _copied(target: torch.Tensor, source: torch.Tensor) -> Callable[[], object]:
    return lambda: target.copy_(source)
