"""How a layout's teams lie on the hosts of a cluster."""

from __future__ import annotations

from helixctl.plan import Layout
from helixctl.spec import ClusterSpec


def uniform_placement(layout: Layout, cluster: ClusterSpec) -> bool:
    """Whether all teams lie on the hosts in one way, and all groups of a team.

    They do where every mesh axis, with the axes inside it, fits a whole number of times into a host or fills a whole
    number of hosts, and so do the replicas that share experts.
    """
    if cluster.differs:
        return False
    size = cluster.kinds[0].devices_per_host
    blocks = [stride * getattr(layout, axis) for axis, stride in layout.strides.items()]
    if layout.expert_data > 1:
        blocks.append(layout.strides["data"] * layout.expert_data)
    return all(size % block == 0 or block % size == 0 for block in blocks)


def host_pattern(layout: Layout, cluster: ClusterSpec) -> tuple[int, ...]:
    """Which ranks of the first team, and of that of the stage behind it, share a host.

    Hosts are numbered in the order in which they are met; all are of one kind.
    """
    if cluster.host_count == 1:
        return ()
    met: dict[int, int] = {}
    size = cluster.only.devices_per_host
    teams = [layout.team(stage, 0) for stage in range(min(2, layout.pipeline))]
    return tuple([met.setdefault(rank // size, len(met)) for team in teams for rank in team])
