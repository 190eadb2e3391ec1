"""Parts of a cluster: some devices of one host, or some whole hosts."""

from __future__ import annotations

from typing import Any

from helixctl.spec import ClusterSpec, LinkSpec


def part_of(cluster: ClusterSpec, devices: int) -> ClusterSpec:
    """The cluster with fewer devices: those of one host, or whole hosts.

    A name that ends with the size, as ``h100-2x8`` does, gets the new size: the part is the spec of ``h100:1x4``.

    Args:
        cluster: what there is.
        devices: how many of its devices the part has.

    Raises:
        ValueError: the cluster has fewer, or they are no whole hosts, or no whole domains of links.
    """
    if devices > cluster.devices:
        raise ValueError(f"{devices:,} devices: {cluster.name} has {cluster.devices:,}")
    if devices == cluster.devices:
        return cluster
    if cluster.differs:
        raise ValueError(f"{devices:,} devices: hosts of {cluster.name} differ, and no part of them is tried")
    each, count = cluster.only.devices_per_host, cluster.only.hosts
    if devices > each and devices % each:
        whole = devices // each * each
        raise ValueError(
            f"{devices:,} devices are no whole hosts of {cluster.name}, whose hosts have {each:,}: "
            f"write {whole:,} or {whole + each:,}"
        )
    hosts, of_host = (1, devices) if devices <= each else (devices // each, each)
    end = f"-{count}x{each}"
    name = cluster.name.removesuffix(end) + f"-{hosts}x{of_host}" if cluster.name.endswith(end) else cluster.name
    # Of a list with one kind the fields are in its item.
    return cluster.of_kind(0).model_copy(update={"name": name, "hosts": hosts, **_of_a_host(cluster, of_host)})


def _of_a_host(cluster: ClusterSpec, devices: int) -> dict[str, Any]:
    """The fields of a host with so many of its devices: neighbours, whose link is that of the domain they are in."""
    whole = cluster.only
    inside = tuple([link for link in whole.links if link.devices < devices])
    for link in inside:
        if devices % link.devices:
            fewer = devices // link.devices * link.devices
            raise ValueError(
                f"{devices:,} devices: each {link.name} of {cluster.name} has {link.devices:,}: "
                f"write {fewer:,} or {fewer + link.devices:,}"
            )
    fields: dict[str, Any] = {"devices_per_host": devices}
    if whole.links:
        around = [*whole.links[len(inside) :], whole.within_host][0]
        its = LinkSpec.model_construct(bandwidth=around.bandwidth, latency=around.latency)
        fields |= {"links": inside, "within_host": its}
    return fields
