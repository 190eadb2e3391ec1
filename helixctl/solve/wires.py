"""How the ranks of a layer's collectives are spread over hosts: what their prices follow from, of a team's place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from helixctl.plan import Layout
from helixctl.spec import ClusterSpec


class Wires(NamedTuple):
    """Of the first rank of a team: how many ranks on each host meet in a collective along an axis, ascending.

    Of one replica with experts of its own none meet along the last two.
    """

    tensor: tuple[int, ...]
    groups: tuple[int, ...]
    slices: tuple[int, ...]
    replicas: tuple[int, ...] = ()
    spread: tuple[int, ...] = ()


def wires(layout: Layout, cluster: ClusterSpec) -> Wires:
    """The wires of a layout's first team."""
    size = cluster.only.devices_per_host
    if cluster.host_count == 1:
        found = Wires((layout.partitions,), (layout.groups,), (layout.slices,))
    else:
        at = layout.strides
        found = _wires(layout.groups, at["groups"], layout.slices, at["slices"], size)
    if layout.expert_data == 1:
        return found
    at = layout.strides
    mesh = (layout.groups, at["groups"], layout.slices, at["slices"])
    replicas, spread = _shared(tuple(layout.sharing(0)), at["data"], *mesh, size)
    return found._replace(replicas=replicas, spread=spread)


@lru_cache(maxsize=4096)
def _shared(
    sharing: tuple[int, ...],
    replica_stride: int,
    groups: int,
    group_stride: int,
    slices: int,
    slice_stride: int,
    size: int,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of replicas that share experts: their first ranks, and all ranks of their teams."""
    firsts = [one * replica_stride for one in sharing]
    team = [one * group_stride + other * slice_stride for one in range(groups) for other in range(slices)]
    return _on_hosts(firsts, size), _on_hosts([first + rank for first in firsts for rank in team], size)


def _on_hosts(ranks: Sequence[int], size: int) -> tuple[int, ...]:
    """How many of some ranks are on each host of so many, ascending."""
    return tuple(sorted(Counter([rank // size for rank in ranks]).values()))


@lru_cache(maxsize=4096)
def _wires(groups: int, group_stride: int, slices: int, slice_stride: int, size: int) -> Wires:
    by_group = range(0, groups * group_stride, group_stride)
    by_slice = range(0, slices * slice_stride, slice_stride)
    every = Counter([(one + other) // size for one in by_group for other in by_slice])
    two = (_on_hosts(ranks, size) for ranks in (by_group, by_slice))
    return Wires(tuple(sorted(every.values())), *two)
