"""Where the ranks of a layout stand on a cluster whose hosts differ, and which of its replicas are alike."""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from helixctl.plan import Layout
from helixctl.plan.layout import Interval
from helixctl.solve.hosts import fit, pattern
from helixctl.spec import ClusterSpec, Step, WorkloadSpec


class Place(NamedTuple):
    """Where the ranks of a stage of a replica are.

    Attributes:
        kinds: of hosts, ascending.
        regular: whether all are of one kind, and lie on the hosts as the first ranks of equal hosts of that kind do.
        uniform: whether, moreover, each of them stands for all: groups of the team lie on the hosts in one way.
        hosts: of every rank, numbered in the order in which the replica meets them.
        of_ranks: the kind of hosts of every rank.
        domains: the domains of links of every rank, from the innermost outwards, numbered in the same way.
    """

    kinds: tuple[int, ...]
    regular: bool
    uniform: bool
    hosts: tuple[int, ...]
    of_ranks: tuple[int, ...]
    domains: tuple[tuple[int, ...], ...] = ()


class Alike(NamedTuple):
    """Replicas that do the same on devices of the same kinds; replicas exchange nothing.

    Attributes:
        replicas: which they are; the first stands for all.
        stages: where the stages of each are.
        sizes: the sequences of their microbatches.
    """

    replicas: tuple[int, ...]
    stages: tuple[Place, ...]
    sizes: tuple[int, ...]

    @property
    def unlike_stages(self) -> bool:
        """Whether stages take different times, as their devices are of different kinds."""
        return len({stage.kinds for stage in self.stages}) > 1


def alike(layout: Layout, cluster: ClusterSpec, workload: WorkloadSpec | Step) -> tuple[Alike, ...]:
    """The replicas of a layout, those that are alike together."""
    found: dict[tuple[tuple[Place, ...], tuple[int, ...]], list[int]] = {}
    for replica in range(layout.data):
        parts = range(layout.microbatches)
        sizes = tuple([_length(layout.batch(replica, part, workload)) for part in parts])
        found.setdefault((_stages(layout, cluster, replica), sizes), []).append(replica)
    return tuple([Alike(tuple(replicas), *key) for key, replicas in found.items()])


def _length(interval: Interval) -> int:
    return interval[1] - interval[0]


def _stages(layout: Layout, cluster: ClusterSpec, replica: int) -> tuple[Place, ...]:
    return _places(
        *layout.mesh, layout.placement, tuple([(kind.hosts, kind.domain_sizes) for kind in cluster.kinds]), replica
    )


@lru_cache(maxsize=4096)  # asked for with every other axis
def _places(
    groups: int,
    slices: int,
    data: int,
    pipeline: int,
    placement: str,
    shape: tuple[tuple[int, tuple[int, ...]], ...],
    replica: int,
) -> tuple[Place, ...]:
    """Of one replica; ``shape``: how many hosts there are of every kind, and the sizes of their domains and of them."""
    mesh = Layout(groups=groups, slices=slices, data=data, pipeline=pipeline, placement=placement)
    kind_of = [kind for kind, (hosts, sizes) in enumerate(shape) for _ in range(hosts * sizes[-1])]
    devices_of = [sizes[-1] for hosts, sizes in shape for _ in range(hosts)]
    host_of = [host for host, devices in enumerate(devices_of) for _ in range(devices)]
    first_of = list(accumulate(devices_of, initial=0))
    met: dict[int, int] = {}
    met_inside: dict[tuple[int, int], int] = {}
    found = []
    for stage in range(pipeline):
        team = mesh.team(stage, replica)
        hosts = tuple([met.setdefault(host_of[rank], len(met)) for rank in team])
        of_ranks = tuple([kind_of[rank] for rank in team])
        kinds = tuple(sorted(set(of_ranks)))
        sizes = shape[kinds[0]][1]
        own = [host_of[rank] - host_of[team[0]] for rank in team]
        regular = len(kinds) == 1 and own == [rank // sizes[-1] for rank in mesh.team(0, 0)]
        inside = [_domains(rank, first_of[host_of[rank]], shape[kind_of[rank]][1]) for rank in team]
        if regular:
            regular = pattern(inside) == pattern([_domains(rank, 0, sizes) for rank in mesh.team(0, 0)])
        domains = tuple(
            [tuple([met_inside.setdefault(at, len(met_inside)) for at in enumerate(its)]) for its in inside]
        )
        blocks = [mesh.strides[axis] * getattr(mesh, axis) for axis in ("groups", "slices")]
        uniform = regular and fit(blocks, sizes)
        together = len(set(hosts)) == 1 and len(sizes) == 1
        found.append(Place(kinds, regular, uniform or together, hosts, of_ranks, domains))
    return tuple(found)


def _domains(rank: int, first: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The domains of links of a rank, each by its first rank; ``first``: that of its host."""
    return tuple([rank - (rank - first) % size for size in sizes[:-1]])
