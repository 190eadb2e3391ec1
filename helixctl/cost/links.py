"""Over which links of a cluster a collective goes, by name and in words, where links inside hosts differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from helixctl.spec import ClusterSpec

BETWEEN_HOSTS: Final = "between_hosts"
_WITHIN_HOST: Final = "within_host"


def widest_link(ranks: Sequence[int], cluster: ClusterSpec) -> str:
    """The widest link that a collective of some ranks goes over: that of a domain, within_host or between_hosts."""
    if len({cluster.host_of(rank) for rank in ranks}) > 1:
        return BETWEEN_HOSTS
    domains = [cluster.domains_of(rank) for rank in ranks]
    for level, link in enumerate(cluster.hosts_of(ranks[0]).links):
        if len({its[level] for its in domains}) == 1:
            return link.name
    return _WITHIN_HOST


def link_names(cluster: ClusterSpec) -> tuple[str, ...]:
    """The links that ``widest_link`` may name, from the innermost outwards; none where links inside hosts are alike.

    Where hosts differ they come kind by kind.
    """
    if not cluster.has_domains:
        return ()
    inner = dict.fromkeys(link.name for kind in cluster.kinds for link in kind.links)
    return (*inner, _WITHIN_HOST, *([BETWEEN_HOSTS] if cluster.host_count > 1 else []))


def in_words(name: str, cluster: ClusterSpec) -> str:
    """Where a collective is that goes over a link and no wider one: ``inside a pair``, ``across pairs``."""
    if name == BETWEEN_HOSTS:
        return "between hosts"
    if name == _WITHIN_HOST and not all(kind.links for kind in cluster.kinds):
        return "inside a host"  # which may have no domains
    if name == _WITHIN_HOST:
        outermost = dict.fromkeys(kind.links[-1].name for kind in cluster.kinds if kind.links)
        return f"across {' or '.join(f'{its}s' for its in outermost)}"
    return f"inside a {name}"
