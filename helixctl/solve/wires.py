"""How the ranks of a layer's collectives are spread over hosts and domains: what prices follow from a team's place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from helixctl.plan import Layout
from helixctl.spec import ClusterSpec

_Axis = tuple[int, int]  # its size, and the ranks from one index to the next
# How many ranks are in every domain of links, ascending; by level, the innermost first, the last that of hosts. It is a
# text because a text knows its hash: prices are looked up by it.
_Spread = str


class Wires(NamedTuple):
    """Of the first rank of a team: how the ranks are spread that meet in a collective along an axis.

    Of one replica with experts of its own none meet along the last two.
    """

    tensor: _Spread
    groups: _Spread
    slices: _Spread
    replicas: _Spread = ""
    spread: _Spread = ""


def wires(layout: Layout, cluster: ClusterSpec) -> Wires:
    """The wires of a layout's first team, and of those that share experts with it."""
    at, shared = layout.strides, layout.expert_data
    team = ((layout.groups, at["groups"]), (layout.slices, at["slices"]))
    return _wires(*team, (shared, at["data"] if shared > 1 else 0), cluster.only.domain_sizes)


@lru_cache(maxsize=4096)
def _wires(groups: _Axis, slices: _Axis, replicas: _Axis, sizes: tuple[int, ...]) -> Wires:
    by_group, by_slice, firsts = ([n * stride for n in range(count)] for count, stride in (groups, slices, replicas))
    team = [one + other for one in by_group for other in by_slice]
    found = Wires(*(_spread(ranks, sizes) for ranks in (team, by_group, by_slice)))
    if len(firsts) == 1:
        return found
    every = [first + rank for first in firsts for rank in team]
    return found._replace(replicas=_spread(firsts, sizes), spread=_spread(every, sizes))


def _spread(ranks: Sequence[int], sizes: tuple[int, ...]) -> _Spread:
    """How some ranks are spread over domains, and hosts, of so many devices."""
    levels = [sorted(Counter([rank // size for rank in ranks]).values()) for size in sizes]
    return "; ".join([" ".join(map(str, level)) for level in levels])
