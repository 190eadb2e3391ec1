"""Collectives of CPU ranks in one round: every rank sends to every other at once, by gloo's all-to-all.

gloo's own all-reduce and all-gather send pieces around a ring, in 2 (n - 1) and n - 1 rounds of n ranks. That is the
fewest bytes, but of little data the time is that of the rounds. Its reduce-scatter is an all-reduce, so that one round
is better for any size. Sums are added up here, in the order of the ranks and rounded once: all ranks have the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.distributed as dist

from helixctl.dag.ops import wire_kind
from helixctl_runtime.compile.bound import Exchange

# Of what one rank sends to each. Measured on one host: up to here one round is faster than the ring with 2, 4, 8 and 16
# ranks (with 4 ranks and 16 KiB 3 times), from 1 MiB on it is slower.
MOST_NBYTES = 256 * 1024
_PAIR = 2  # of ranks: their ring gathers in one round


class Work(Protocol):
    """A collective that runs, as torch has it."""

    def wait(self) -> object:
        """Return when its result is there."""

    def get_future(self) -> torch.futures.Future[object]:
        """What calls back when all data has arrived."""


class _Summed:
    """An exchange behind which the pieces that arrived are added up."""

    def __init__(self, work: dist.Work, pieces: torch.Tensor, out: torch.Tensor) -> None:
        self._work, self._pieces, self._out = work, pieces, out
        self.get_future = work.get_future

    def wait(self) -> None:
        self._work.wait()
        torch.sum(self._pieces, 0, out=self._out)


def one_round(exchange: Exchange, group: dist.ProcessGroup | None) -> Callable[[], Work] | None:
    """The call that starts a collective in one round; None where another way is better.

    Args:
        exchange: the collective, bound to memory.
        group: the process group of its ranks.
    """
    send, receive, ranks = exchange.send.view(-1), exchange.receive.view(-1), len(exchange.task.ranks)
    if send.device.type != "cpu":
        return None
    little = send.nbytes <= MOST_NBYTES
    match wire_kind(exchange.task.op):
        case "all_reduce" if little:
            return lambda: _Summed(*_to_all(send, ranks, group), receive)
        case "reduce_scatter":

            def start() -> Work:
                pieces = torch.empty(ranks, receive.numel(), dtype=send.dtype)
                return _Summed(_exchanged(pieces, send, group), pieces, receive)

            return start
        case "all_gather" if little and ranks > _PAIR:
            return lambda: _to_all(send, ranks, group, receive)[0]
    return None


def _to_all(
    send: torch.Tensor, ranks: int, group: dist.ProcessGroup | None, into: torch.Tensor | None = None
) -> tuple[dist.Work, torch.Tensor]:
    """Send the same to every rank; the work, and what arrives, (ranks, numel)."""
    pieces = torch.empty(ranks, send.numel(), dtype=send.dtype) if into is None else into.view(ranks, -1)
    return _exchanged(pieces, send.expand(ranks, -1).contiguous(), group), pieces


def _exchanged(pieces: torch.Tensor, send: torch.Tensor, group: dist.ProcessGroup | None) -> dist.Work:
    return dist.all_to_all_single(pieces.view(-1), send.view(-1), group=group, async_op=True)
