"""Parts of a cluster are the specs that their names stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from helixctl.spec.load import load_cluster, load_specs
from helixctl.sweep import Grid, Wanted, sweep
from helixctl.sweep.parts import part_of
from tests.documents import SMALL


@pytest.mark.parametrize(
    ("whole", "devices", "part"),
    [
        ("h100:4x8", 1, "h100:1x1"),
        ("h100:4x8", 8, "h100:1x8"),
        ("h100:4x8", 24, "h100:3x8"),
        ("h100:4x8", 32, "h100:4x8"),
        ("l40s:2x4", 2, "l40s:1x2"),
    ],
)
def test_a_part_is_the_cluster_of_its_name(whole: str, devices: int, part: str) -> None:
    assert part_of(load_cluster(whole), devices) == load_cluster(part)


def test_of_a_file_it_keeps_its_name() -> None:
    cluster = load_cluster(SMALL[1])
    part = part_of(cluster, 4)
    assert (part.name, part.hosts, part.devices_per_host, part.device) == (cluster.name, 1, 4, cluster.device)


def test_of_hosts_that_differ_there_is_the_whole_alone(tmp_path: Path) -> None:
    path = tmp_path / "mix.cluster.yaml"
    path.write_text(
        "name: mix\nhosts:\n  - {count: 1, devices: 2, device: h100}\n  - {count: 1, devices: 1, device: l40s}\n"
    )
    cluster = load_cluster(str(path))
    assert part_of(cluster, 3) == cluster
    with pytest.raises(ValueError, match="hosts of mix differ"):
        part_of(cluster, 2)
    sets = ("layers=1", "vocabulary.size=64", "workload.output_len=2")
    document, cluster = load_specs("Llama-3.1-8B", str(path), sets)
    found = sweep(document, cluster, Grid((4,), (3,), (8,)), Wanted(plain=True))
    assert [(p.hosts, p.devices, p.state) for p in found.points] == [(2, 3, "planned")]
    assert found.cluster.memory_nbytes == 48e9  # of the smaller devices


@pytest.mark.parametrize(
    ("devices", "said"), [(33, "33 devices: h100-4x8 has 32"), (12, "write 8 or 16"), (9, "whose hosts have 8")]
)
def test_what_is_no_part(devices: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        part_of(load_cluster("h100:4x8"), devices)
