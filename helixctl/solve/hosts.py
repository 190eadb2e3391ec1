"""How a layout's teams lie on the hosts of a cluster, and in their domains of links."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from helixctl.plan import Layout
from helixctl.spec import ClusterSpec


def uniform_placement(layout: Layout, cluster: ClusterSpec) -> bool:
    """Whether all teams lie on the hosts in one way, and all groups of a team.

    They do where every mesh axis, with the axes inside it, fits a whole number of times into a host or fills a whole
    number of hosts, and so do the replicas that share experts. The same goes for domains of links.
    """
    if cluster.differs:
        return False
    sizes = cluster.kinds[0].domain_sizes
    blocks = [stride * getattr(layout, axis) for axis, stride in layout.strides.items()]
    if layout.expert_data > 1:
        blocks.append(layout.strides["data"] * layout.expert_data)
    return fit(blocks, sizes)


def fit(blocks: Iterable[int], sizes: Sequence[int]) -> bool:
    """Whether each of some blocks of ranks fits a whole number of times into each size, or fills it as often."""
    return all(size % block == 0 or block % size == 0 for block in blocks for size in sizes)


def host_pattern(layout: Layout, cluster: ClusterSpec) -> tuple[tuple[int, ...], ...]:
    """Which ranks of the first team, and of that of the stage behind it, share a domain of links, and a host, the last.

    All hosts are equal. They are numbered in the order in which they are met; one host without domains has no pattern.
    """
    if cluster.host_count == 1 and not cluster.has_domains:
        return ()
    at = layout.strides
    stages = (min(2, layout.pipeline), at["pipeline"] if layout.pipeline > 1 else 0)
    # By group and slice, not by rank: which of the two axes stays inside is what differs.
    return _pattern(stages, (layout.groups, at["groups"]), (layout.slices, at["slices"]), cluster.only.domain_sizes)


@lru_cache(maxsize=1024)  # meshes that differ in their replicas ask for the same
def _pattern(
    stages: tuple[int, int], groups: tuple[int, int], slices: tuple[int, int], sizes: tuple[int, ...]
) -> tuple[tuple[int, ...], ...]:
    """The same of axes with these sizes, and as many ranks from one index to the next."""
    by_stage, by_group, by_slice = ([n * stride for n in range(count)] for count, stride in (stages, groups, slices))
    ranks = [stage + group + slice_ for stage in by_stage for group in by_group for slice_ in by_slice]
    return pattern([tuple([rank // size for size in sizes]) for rank in ranks])


def pattern(places: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """The same of ranks with these domains and hosts: by level, the innermost first, numbered as they are met."""
    found = []
    for level in zip(*places, strict=True):
        met: dict[int, int] = {}
        found.append(tuple([met.setdefault(place, len(met)) for place in level]))
    return tuple(found)
