"""Of what parts the data of a collective consists."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, cast

import torch

from helixctl_runtime.compile.bound import Exchange

if TYPE_CHECKING:
    from typing_extensions import Buffer


def nbytes_to_each(exchange: Exchange, kind: str) -> int:
    """Bytes that a rank sends to each other; of parts that may differ in size a number that all ranks know.

    Args:
        exchange: the collective.
        kind: what it is on the wire (``wire_kind``).
    """
    ranks = len(exchange.task.ranks)
    if exchange.leave:
        return exchange.task.nbytes // (ranks - 1)
    return exchange.send.nbytes // (ranks if kind in {"all_to_all", "reduce_scatter"} else 1)


def parts(t: torch.Tensor, sizes: Sequence[int], ranks: int) -> list[torch.Tensor]:
    """Elements one after another, cut into a part for each rank.

    Args:
        t: the elements, in one dim.
        sizes: how many each part has; equally many if empty.
        ranks: the number of parts.
    """
    sizes = sizes or [t.numel() // ranks] * ranks
    return [t[last - size : last] for size, last in zip(sizes, accumulate(sizes), strict=True)]


def memory_of(t: torch.Tensor) -> memoryview:
    """The bytes of contiguous elements, where they lie."""
    return memoryview(cast("Buffer", t.view(torch.uint8).numpy()))
