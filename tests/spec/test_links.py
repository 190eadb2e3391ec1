"""Links that differ inside a host: what is written of them, what is asked of them, and what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from helixctl.cost.links import in_words, link_names, widest_link
from helixctl.errors import HelixError
from helixctl.plan.document import digest
from helixctl.spec import ClusterSpec
from helixctl.spec.load import load_cluster
from helixctl.spec.rates import doubts, rates_of
from helixctl.spec.slips import slips
from helixctl.sweep.parts import part_of
from tests.documents import LINKS, PAPER

L40S = str(LINKS / "l40sx8.cluster.yaml")


def linked(*links: dict[str, Any], hosts: int = 1, devices: int = 8, **fields: Any) -> ClusterSpec:
    """H100s with domains of links."""
    data = load_cluster(PAPER[1]).model_dump(mode="json") | {"hosts": hosts, "devices_per_host": devices}
    return ClusterSpec.model_validate({**data, "links": list(links), **fields})


def domain(name: str, devices: int, bandwidth: str = "450 GB/s", **fields: Any) -> dict[str, Any]:
    return {"name": name, "devices": devices, "bandwidth": bandwidth, "latency": "5 us", **fields}


def test_old_clusters_keep_their_bytes() -> None:
    cluster = load_cluster(PAPER[1])
    assert "links" not in cluster.model_dump(mode="json")
    assert digest(linked(hosts=2)) == digest(cluster)
    assert digest(linked(domain("pair", 2), hosts=2)) != digest(cluster)
    kinds = load_cluster("h100:2x8+l40s:1x4").model_dump(mode="json")["hosts"]
    assert not any("links" in kind for kind in kinds)
    assert "uplinks" not in linked(domain("pair", 2)).model_dump(mode="json")["links"][0]


def test_every_rank_is_in_a_domain_of_each_level() -> None:
    cluster = linked(domain("pair", 2), domain("socket", 4), hosts=2)
    assert cluster.only.domain_sizes == (2, 4, 8)
    assert [cluster.domains_of(rank) for rank in (0, 1, 2, 7, 8, 11)] == [
        (0, 0), (0, 0), (2, 0), (6, 4), (8, 8), (10, 8)
    ]  # fmt: skip
    assert link_names(cluster) == ("pair", "socket", "within_host", "between_hosts")
    widest = [widest_link(ranks, cluster) for ranks in ((0, 1), (1, 2), (0, 3), (3, 4), (7, 8))]
    assert widest == ["pair", "socket", "socket", "within_host", "between_hosts"]
    words = [in_words(name, cluster) for name in link_names(cluster)]
    assert words == ["inside a pair", "inside a socket", "across sockets", "between hosts"]
    assert link_names(load_cluster(PAPER[1])) == ()


def test_every_kind_of_hosts_has_its_own_links() -> None:
    one = load_cluster(L40S).model_dump(mode="json")["hosts"][0]
    kind = {"count": 2, "devices": 3, "device": "h100"}
    cluster = ClusterSpec.model_validate({"name": "both", "hosts": [kind, one]})
    assert [cluster.domains_of(rank) for rank in (0, 5, 6, 7, 8, 13)] == [(), (), (6, 6), (6, 6), (8, 6), (12, 10)]
    assert link_names(cluster) == ("pair", "socket", "within_host", "between_hosts")
    assert in_words("within_host", cluster) == "inside a host"
    assert [widest_link(ranks, cluster) for ranks in ((0, 1), (8, 9), (6, 9))] == ["within_host", "pair", "socket"]


@pytest.mark.parametrize(
    ("links", "devices", "said"),
    [
        ([domain("pair", 2)], 3, "a pair has 2 devices, and a host 3: from the innermost outwards"),
        ([domain("pair", 2)], 2, "a pair has 2 devices, and a host 2"),
        ([domain("pair", 2), domain("socket", 3)], 6, "a pair has 2 devices, and a socket 3"),
        ([domain("socket", 4), domain("pair", 2)], 8, "a socket has 4 devices, and a pair 2"),
        ([domain("pair", 2), domain("pair", 4)], 8, "two of links are named pair"),
        ([domain("within_host", 2)], 8, "within_host is another field"),
    ],
)
def test_domains_that_are_no_parts_of_each_other_are_refused(
    links: list[dict[str, Any]], devices: int, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.cluster.yaml"
    data = yaml.safe_load(Path(PAPER[1]).read_text()) | {"hosts": 1, "devices_per_host": devices, "links": links}
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    with pytest.raises(HelixError) as error:
        load_cluster(str(file))
    (found,) = error.value.diagnostics
    assert found.code == "HX109"
    assert said in found.message
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if text.startswith("links:"))
    assert found.line == line
    kind = {"count": 1, "devices": devices, "device": "h100", "links": links}
    file.write_text(yaml.safe_dump({"name": "listed", "hosts": [kind]}, sort_keys=False))
    with pytest.raises(HelixError, match="HX109"):
        load_cluster(str(file))


def test_links_of_a_list_of_hosts_belong_to_its_items(tmp_path: Path) -> None:
    file = tmp_path / "x.cluster.yaml"
    kind = {"count": 1, "devices": 4, "device": "h100"}
    file.write_text(yaml.safe_dump({"name": "x", "hosts": [kind], "links": [domain("pair", 2)]}))
    with pytest.raises(HelixError, match="links belongs to each of them, as links"):
        load_cluster(str(file))


def test_what_is_typed_wrong_of_a_domain() -> None:
    assert not slips(linked(domain("pair", 2), within_host={"bandwidth": "32 GB/s", "latency": "5 us"}))
    faster = "a link further inside is the faster"
    slow = linked(domain("pair", 2, "400 GB/s"), domain("socket", 4, "410 GB/s"))
    assert slips(slow) == (
        f"links.pair.bandwidth: 400 GB/s is less than links.socket.bandwidth, 410 GB/s: {faster}",
        f"links.socket.bandwidth: 410 GB/s is less than within_host.bandwidth, 450 GB/s: {faster}",
    )
    right = "450 GB/s (NVIDIA H100 80GB HBM3)"
    both = slips(linked(domain("pair", 2, "900 GB/s", latency="5 ns")))
    assert both == (
        f"links.pair.bandwidth: 900 GB/s is both directions together; in one direction it is {right}",
        "links.pair.latency: 5 ns is less than a link takes; 5 us is usual",
    )


def test_measured_collectives_say_nothing_of_links_that_differ() -> None:
    cluster, alike = load_cluster(L40S), load_cluster("l40s:8")
    with_links, without = rates_of(cluster.only), rates_of(alike.only)
    assert with_links is not None
    assert without is not None
    assert (with_links.matmul, with_links.collectives) == (without.matmul, ())
    assert without.collectives
    assert not list(doubts(cluster))  # it is what links are for


@pytest.mark.parametrize("name", ["rtx4090x6", "a100x4", "a6000x4", "l40sx8"])
def test_the_examples_have_no_slips(name: str) -> None:
    cluster = load_cluster(str(LINKS / f"{name}.cluster.yaml"))
    assert cluster.has_domains
    assert not slips(cluster)
    assert ClusterSpec.model_validate(cluster.model_dump(mode="json")) == cluster


def test_a_part_of_a_host_has_the_link_of_the_domain_it_is_in() -> None:
    cluster = linked(domain("pair", 2, "400 GB/s"), domain("socket", 4, "100 GB/s", uplinks=1))
    links = {devices: part_of(cluster, devices).only for devices in (1, 2, 4, 8)}
    assert {n: (it.within_host.bandwidth / 1e9, [link.name for link in it.links]) for n, it in links.items()} == {
        1: (400, []), 2: (400, []), 4: (100, ["pair"]), 8: (450, ["pair", "socket"])
    }  # fmt: skip
    with pytest.raises(ValueError, match="each pair of h100x16 has 2: write 2 or 4"):
        part_of(cluster, 3)
