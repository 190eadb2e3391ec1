"""How the ranks of a layer's collectives are spread over hosts: what their prices follow from, of a team's place."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import NamedTuple

from helixctl.plan import Layout
from helixctl.spec import ClusterSpec


class Wires(NamedTuple):
    """Of the first rank of a team: how many ranks on each host meet in a collective along an axis, ascending."""

    tensor: tuple[int, ...]
    groups: tuple[int, ...]
    slices: tuple[int, ...]


def wires(layout: Layout, cluster: ClusterSpec) -> Wires:
    """The wires of a layout's first team."""
    if cluster.host_count == 1:
        return Wires((layout.partitions,), (layout.groups,), (layout.slices,))
    at = layout.strides
    return _wires(layout.groups, at["groups"], layout.slices, at["slices"], cluster.only.devices_per_host)


@lru_cache(maxsize=4096)
def _wires(groups: int, group_stride: int, slices: int, slice_stride: int, size: int) -> Wires:
    by_group = range(0, groups * group_stride, group_stride)
    by_slice = range(0, slices * slice_stride, slice_stride)
    every = Counter([(one + other) // size for one in by_group for other in by_slice])
    two = (tuple(sorted(Counter([rank // size for rank in ranks]).values())) for ranks in (by_group, by_slice))
    return Wires(tuple(sorted(every.values())), *two)
