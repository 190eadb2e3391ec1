"""Clusters whose hosts differ: what is written, what is asked of them, and what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from helixctl.errors import HelixError
from helixctl.export.engine import specs_of
from helixctl.export.engines import ENGINES
from helixctl.plan import Layout, Plan
from helixctl.plan.document import digest
from helixctl.spec import ClusterSpec
from helixctl.spec.load import load_cluster, load_pair
from helixctl.spec.rates import rates_of
from helixctl.spec.slips import slips
from tests.cli.command import helixctl
from tests.documents import PAPER, SMALL

MIXED = "h100:2x8+l40s:1x4"


def test_every_rank_has_a_device_a_host_and_rates() -> None:
    cluster = load_cluster(MIXED)
    h100, l40s = load_cluster("h100:8").only, load_cluster("l40s:4").only
    assert (cluster.devices, cluster.host_count, cluster.differs) == (20, 3, True)
    assert [cluster.host_of(rank) for rank in range(20)] == [0] * 8 + [1] * 8 + [2] * 4
    assert [cluster.place_of(rank) for rank in (0, 7, 8, 16, 19)] == [0, 7, 0, 0, 3]
    assert [cluster.device_of(rank) for rank in (0, 15, 16, 19)] == [h100.device] * 2 + [l40s.device] * 2
    assert cluster.hosts_of(16).within_host == l40s.within_host
    assert cluster.hosts_of(16).between_hosts == l40s.between_hosts
    assert rates_of(cluster.kinds[1]) is rates_of(l40s)
    assert not slips(cluster)
    with pytest.raises(ValueError, match="16 x NVIDIA H100 80GB HBM3 and 4 x NVIDIA L40S"):
        _ = cluster.only


def test_an_equal_cluster_has_one_kind_and_its_document_is_as_before() -> None:
    cluster = load_cluster("h100:2x8")
    assert len(cluster.kinds) == 1
    assert list(cluster.model_dump(mode="json")) == [
        "name", "hosts", "devices_per_host", "device", "within_host", "between_hosts", "nics_per_host",
        "cores_per_host", "calibration", "measured"
    ]  # fmt: skip
    fewer = cluster.model_copy(update={"hosts": 1})
    assert (fewer.devices, fewer.kinds[0].hosts) == (8, 1)


def test_a_file_and_the_name_are_one_cluster(tmp_path: Path) -> None:
    """A plan has the figures of every GPU, so that it depends on no list of names."""
    file = tmp_path / "mixed.cluster.yaml"
    hosts = [{"count": 2, "devices": 8, "device": "h100"}, {"count": 1, "devices": 4, "device": "L40S"}]
    file.write_text(yaml.safe_dump({"name": "h100-2x8+l40s-1x4", "hosts": hosts}))
    cluster = load_cluster(str(file))
    assert digest(cluster) == digest(load_cluster(MIXED))
    again = ClusterSpec.model_validate(cluster.model_dump(mode="json"))
    assert again == cluster
    assert again.kinds == cluster.kinds
    file.write_bytes(helixctl("clusters", "show", MIXED).out)
    assert digest(load_cluster(str(file))) == digest(cluster)


def item(**changes: Any) -> dict[str, Any]:
    return {"count": 1, "devices": 2, "device": "h100"} | changes


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"hosts": [item(device="h10")]}, "hosts[0].device: no GPU is named 'h10'"),
        (
            {"hosts": [item(), item(count="2")]},
            "hosts[1].count must be a whole number from 1 to 4096, not the text '2'",
        ),
        ({"hosts": [item(), item(devicez=2)]}, "unknown key 'devicez' in hosts[1]"),
        ({"hosts": []}, "hosts is a list of 1 to 64 kinds, not of 0"),
        ({"hosts": [item()], "devices_per_host": 2}, "devices_per_host belongs to each of them, as devices"),
        ({"hosts": [item()], "nics_per_host": 2}, "nics_per_host belongs to each of them, as nics"),
        ({"hosts": 2, "device": None}, "device must be a mapping"),
    ],
)
def test_what_is_wrong_has_its_place(data: dict[str, Any], said: str, tmp_path: Path) -> None:
    file = tmp_path / "a.cluster.yaml"
    file.write_text(yaml.safe_dump({"name": "a", **data}))
    with pytest.raises(HelixError) as error:
        load_cluster(str(file))
    assert said in "\n".join(problem.message for problem in error.value.diagnostics)
    assert all(problem.line for problem in error.value.diagnostics)


def test_a_gpu_in_the_place_of_a_device_has_a_way_out(tmp_path: Path) -> None:
    file = tmp_path / "a.cluster.yaml"
    file.write_text(yaml.safe_dump({"name": "a", "hosts": [{"count": 1, "devices": 4, "gpu": "h100"}]}))
    with pytest.raises(HelixError) as error:
        load_cluster(str(file))
    hints = {problem.message: problem.hint or "" for problem in error.value.diagnostics}
    assert hints["unknown key 'gpu' in hosts[0]"] == "did you mean 'device'?"
    assert hints["missing key 'device' in hosts[0]"].startswith("device is a mapping with the keys kind, name, memory")
    assert ", or one of a100, b200, h100" in hints["missing key 'device' in hosts[0]"]


def test_devices_of_a_gpu_and_of_a_cpu_are_no_cluster(tmp_path: Path) -> None:
    cpu = {
        "kind": "cpu",
        "name": "core",
        "memory": "1 GB",
        "memory_bandwidth": "5 GB/s",
        "peak": {"float32": "9 GFLOP/s"},
    }
    link = {"bandwidth": "1 GB/s", "latency": "1 us"}
    file = tmp_path / "a.cluster.yaml"
    file.write_text(yaml.safe_dump({"name": "a", "hosts": [item(), item(device=cpu, within_host=link)]}))
    with pytest.raises(HelixError, match="some hosts have cuda devices, some cpu"):
        load_cluster(str(file))


def test_a_dtype_that_one_device_lacks_is_refused() -> None:
    with pytest.raises(HelixError, match="NVIDIA L40S has no peak rate for float64"):
        load_pair(PAPER[0], MIXED, ["dtype=float64"])


@pytest.mark.parametrize("name", ["h100:2x8+l40s", "h100:2x8+foo:2"])
def test_a_name_that_is_none(name: str) -> None:
    done = helixctl("validate", name)
    assert done.status == 2
    assert "HX105" in done.said


def test_exports_refuse_it_by_name(tmp_path: Path) -> None:
    loaded = load_pair(SMALL[0], "h100:1x2+l40s:1x1", ["workload.batch=3"])
    plan = Plan.of(loaded.model.model, loaded.cluster, loaded.model.workload, Layout(groups=1, slices=1, data=3))
    for engine in ENGINES.values():
        (unmet,) = engine.unmet(plan.layout, specs_of(plan))
        assert unmet.startswith("equal hosts: those of h100-1x2+l40s-1x1 differ, 2 x NVIDIA H100")
    path = tmp_path / "a.plan.json"
    path.write_text(plan.to_json())
    for target, options in (("slurm", ()), ("k8s", ("--image", "x")), ("vllm", ())):
        done = helixctl("export", str(path), "--to", target, *options)
        assert done.status == 1
        assert "HX601" in done.err
        assert "equal hosts" in done.err
