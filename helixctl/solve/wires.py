"""How the ranks of a layer's collectives are spread over hosts and domains: what prices follow from a team's place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from helixctl.plan import Layout
from helixctl.spec import ClusterSpec

# How many ranks are in every domain of links, ascending; by level, the innermost first, the last that of hosts.
_Spread = tuple[tuple[int, ...], ...]


class Wires(NamedTuple):
    """Of the first rank of a team: how the ranks are spread that meet in a collective along an axis.

    Of one replica with experts of its own none meet along the last two.
    """

    tensor: _Spread
    groups: _Spread
    slices: _Spread
    replicas: _Spread = ()
    spread: _Spread = ()


def wires(layout: Layout, cluster: ClusterSpec) -> Wires:
    """The wires of a layout's first team."""
    sizes = cluster.only.domain_sizes
    if cluster.host_count == 1 and len(sizes) == 1:
        found = Wires(((layout.partitions,),), ((layout.groups,),), ((layout.slices,),))
    else:
        at = layout.strides
        found = _wires(layout.groups, at["groups"], layout.slices, at["slices"], sizes)
    if layout.expert_data == 1:
        return found
    at = layout.strides
    mesh = (layout.groups, at["groups"], layout.slices, at["slices"])
    replicas, spread = _shared(tuple(layout.sharing(0)), at["data"], *mesh, sizes)
    return found._replace(replicas=replicas, spread=spread)


@lru_cache(maxsize=4096)
def _shared(
    sharing: tuple[int, ...],
    replica_stride: int,
    groups: int,
    group_stride: int,
    slices: int,
    slice_stride: int,
    sizes: tuple[int, ...],
) -> tuple[_Spread, _Spread]:
    """Of replicas that share experts: their first ranks, and all ranks of their teams."""
    firsts = [one * replica_stride for one in sharing]
    team = [one * group_stride + other * slice_stride for one in range(groups) for other in range(slices)]
    return _spread(firsts, sizes), _spread([first + rank for first in firsts for rank in team], sizes)


def _spread(ranks: Sequence[int], sizes: tuple[int, ...]) -> _Spread:
    """How some ranks are spread over domains, and hosts, of so many devices."""
    return tuple([tuple(sorted(Counter([rank // size for rank in ranks]).values())) for size in sizes])


@lru_cache(maxsize=4096)
def _wires(groups: int, group_stride: int, slices: int, slice_stride: int, sizes: tuple[int, ...]) -> Wires:
    by_group = range(0, groups * group_stride, group_stride)
    by_slice = range(0, slices * slice_stride, slice_stride)
    every = [one + other for one in by_group for other in by_slice]
    return Wires(*(_spread(ranks, sizes) for ranks in (every, by_group, by_slice)))
