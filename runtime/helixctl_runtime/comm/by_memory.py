"""Collectives of much data between the CPU ranks of one host, through memory that they share.

A rank copies what it sends into its own segment, once, and the others read it there when they wait. Sums are added up
in the order of the ranks and rounded once: all ranks have the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Final

import torch

from helixctl.dag.ops import wire_kind
from helixctl_runtime.comm.arriving import Arriving
from helixctl_runtime.comm.links import Links
from helixctl_runtime.comm.one_round import Work
from helixctl_runtime.comm.parts import nbytes_to_each, parts
from helixctl_runtime.comm.shared_memory import SharedMemory, Sharing
from helixctl_runtime.compile.bound import Exchange

# Of what one rank sends to each: a segment is memory beyond that of the plan's proof, and its size is bounded so.
MOST_NBYTES: Final = 64 * 2**20
# Ranks of an all-reduce. Each reads all that the others send, where a ring passes on twice the whole for any number of
# ranks. Measured on two cores, 256 KiB to 64 MiB: 8 ranks take 0.2 to 1.0 of the time by gloo, 16 ranks up to as long.
MOST_SUMMED: Final = 8
# Of a sum that is made at once, so that it is still in the processor's cache when the next rank's numbers are added.
_SUMMED_NBYTES: Final = 512 * 1024

_Read = Callable[[Sharing], object]


def by_memory(exchange: Exchange, rank: int, links: Links) -> Callable[[], Work] | None:  # noqa: PLR0911  one a kind
    """The call that starts a collective; None where another way is better, or the ranks share no memory.

    All ranks of a collective find the same.

    Args:
        exchange: the collective, bound to memory.
        rank: this rank, one of the collective's.
        links: sockets to the others, and the memory that is shared with them.
    """
    ranks, kind = exchange.task.ranks, wire_kind(exchange.task.op)
    others = {other: i for i, other in enumerate(ranks) if other != rank}
    memory = links.memory
    if memory is None or not all(other in memory for other in others):
        return None
    if nbytes_to_each(exchange, kind) > MOST_NBYTES:
        return None
    send, receive, at = exchange.send.view(-1), exchange.receive.view(-1), ranks.index(rank)
    match kind:
        case "all_gather":
            places = [*receive.view(len(ranks), -1)]
            return _started(links, memory, [send], dict.fromkeys(others, 0), _copied(others, places, places[at], send))
        case "all_to_all":
            leave, arrive = parts(send, exchange.leave, len(ranks)), parts(receive, exchange.arrive, len(ranks))
            return _started(links, memory, leave, others, _copied(others, arrive, arrive[at], leave[at]))
        case "all_reduce" if len(ranks) <= MOST_SUMMED:
            return _started(links, memory, [send], dict.fromkeys(others, 0), _added(others, at, None, receive))
        case "reduce_scatter":
            leave = parts(send, (), len(ranks))
            return _started(links, memory, leave, others, _added(others, at, leave[at], receive))
        case "broadcast":
            root = ranks[0]
            if rank == root:
                return _started(links, memory, [send], dict.fromkeys(others, 0), lambda _: None)
            # The root hears of this rank too: what it has read.
            return _started(links, memory, [], {root: 0}, _copied({root: 0}, [receive], receive, receive))
        case _:
            return None


def _started(
    links: Links, memory: SharedMemory, leave: Sequence[torch.Tensor], others: Mapping[int, int], read: _Read
) -> Callable[[], Work]:
    """The call that puts what a rank sends into a slot and says so to the others.

    Args:
        links: to the others.
        memory: what is shared with them.
        leave: the parts that the others read; empty if this rank sends nothing.
        others: the part that each other rank reads.
        read: what a wait does when the others' parts are there.
    """
    read_by_others = {i: leave[i] for i in sorted(set(others.values())) if leave}
    ends = [*accumulate((part.nbytes for part in read_by_others.values()), initial=0)]
    offsets = dict(zip(read_by_others, ends, strict=False))

    def start() -> Work:
        sharing = memory.begin(others, ends[-1])
        for i, part in read_by_others.items():
            _like(sharing.mine(offsets[i], part.nbytes), part).copy_(part)
        sends = [(other, memoryview(sharing.message(other, offsets.get(i, 0)))) for other, i in others.items()]
        arrival = links.exchange(sends, [(other, memoryview(its)) for other, its in sharing.inbox.items()])

        def taken() -> None:
            read(sharing)
            sharing.end()

        return Arriving(arrival, taken)

    return start


def _copied(others: Mapping[int, int], places: Sequence[torch.Tensor], place: torch.Tensor, own: torch.Tensor) -> _Read:
    """Copy what the others sent into their places, and this rank's own part."""

    def read(sharing: Sharing) -> None:
        for other, i in others.items():
            places[i].copy_(_like(sharing.theirs(other, places[i].nbytes), places[i]))
        if place is not own:
            place.copy_(own)

    return read


def _added(others: Mapping[int, int], at: int, own: torch.Tensor | None, out: torch.Tensor) -> _Read:
    """Add up what all ranks sent for this one.

    Args:
        others: the place of every other rank in the order of the sum.
        at: that of this rank.
        own: its own part; None: it is in its slot, as the memory that it was sent from becomes the sum.
        out: the sum.
    """

    def read(sharing: Sharing) -> None:
        pieces = {i: _like(sharing.theirs(other, out.nbytes), out) for other, i in others.items()}
        pieces[at] = _like(sharing.mine(0, out.nbytes), out) if own is None else own
        add_up([pieces[i] for i in range(len(pieces))], out)

    return read


def add_up(pieces: Sequence[torch.Tensor], out: torch.Tensor) -> None:
    """The sum of two or more pieces, in their order, in float32 or more, and rounded once.

    It has the bits of ``torch.sum`` over up to four pieces, except that a sum of negative zeros is a negative zero. Of
    more pieces torch adds up float32 in another order.

    Args:
        pieces: each as long as ``out``, of its dtype, and in other memory.
        out: where the sum belongs.
    """
    exact = out.dtype if out.dtype in {torch.float32, torch.float64} else torch.float32
    step = _SUMMED_NBYTES // exact.itemsize
    wide = None if out.dtype == exact else torch.empty(min(step, out.numel()), dtype=exact)
    for begin in range(0, out.numel(), step):
        first, *others = (piece[begin : begin + step] for piece in pieces)
        part = out[begin : begin + step]
        if wide is None:
            torch.add(first, others[0], out=part)
            for other in others[1:]:
                part.add_(other)
        else:
            total = wide[: part.numel()].copy_(first)
            for other in others:
                total.add_(other)
            part.copy_(total)


def _like(memory: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return memory.view(t.dtype)
