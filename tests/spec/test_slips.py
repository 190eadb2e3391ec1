"""What people type wrong of a GPU is said with its key and the right value; what is right, or measured, is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from helixctl.spec.load import load_cluster, parse_overrides
from helixctl.spec.named import cluster_names
from helixctl.spec.slips import slips
from tests.cli.command import helixctl
from tests.documents import PAPER, ROOT, SMALL

MEASURED = sorted((ROOT / "docs/measurements/gpus").glob("*.yaml"))


def said(*sets: str, cluster: str = PAPER[1]) -> list[str]:
    return list(slips(load_cluster(cluster, parse_overrides(sets))))


def one(*sets: str, cluster: str = PAPER[1]) -> str:
    found = said(*sets, cluster=cluster)
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("path", [*MEASURED, *(ROOT / "plans").rglob("*.cluster.yaml")], ids=lambda path: path.name)
def test_nothing_is_said_of_shipped_and_measured_files(path: Path) -> None:
    assert len(MEASURED) == 2
    assert not said(cluster=str(path))


@pytest.mark.parametrize("gpu", cluster_names())
def test_nothing_is_said_of_a_named_cluster_and_each_slip_is_in_it(gpu: str) -> None:
    name, right = f"{gpu}:2x8", load_cluster(f"{gpu}:2x8")
    assert not said(cluster=name)
    dense, link, memory = right.device.peak["float16"], right.within_host.bandwidth, right.device.memory
    text = one(f"device.peak.float16={2 * dense / 1e12:g} TFLOP/s", cluster=name)
    assert text.startswith("device.peak.float16: ")
    assert f"with 2:4 sparsity; the dense rate is {dense / 1e12:g} TFLOP/s ({right.device.name})" in text
    text = one(f"device.peak.float32={1.5 * right.device.peak['float32'] / 1e12:g} TFLOP/s", cluster=name)
    assert "above the dense rate of the datasheet" in text
    text = one(f"within_host.bandwidth={2 * link / 1e9:g} GB/s", cluster=name)
    assert f"both directions together; in one direction it is {link / 1e9:g} GB/s" in text
    text = one(f"device.memory={memory / 1e9:g} GiB", cluster=name)
    assert text.startswith(f"device.memory: {memory / 1e9:g} GiB are ")
    assert text.endswith(f"{right.device.name} has {memory / 1e9:g} GB")


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        (
            "device.peak.float16=1979 TFLOP/s",
            (
                "device.peak.float16: 1979 TFLOP/s is the rate with 2:4 sparsity; "
                "the dense rate is 989 TFLOP/s (NVIDIA H100 80GB HBM3)"
            ),
        ),
        (
            "device.peak.bfloat16=989 GFLOP/s",
            (
                "device.peak.bfloat16: 989 GFLOP/s: did you mean TFLOP/s? "
                "The dense rate is 989 TFLOP/s (NVIDIA H100 80GB HBM3)"
            ),
        ),
        (
            "device.peak.float32=494 TFLOP/s",
            (
                "device.peak.float32: 494 TFLOP/s is above the dense rate of the datasheet, "
                "67 TFLOP/s (NVIDIA H100 80GB HBM3)"
            ),
        ),
        (
            "within_host.bandwidth=900 GB/s",
            (
                "within_host.bandwidth: 900 GB/s is both directions together; "
                "in one direction it is 450 GB/s (NVIDIA H100 80GB HBM3)"
            ),
        ),
        (
            "between_hosts.bandwidth=400 GB/s",
            "between_hosts.bandwidth: 400 GB/s is 3200 Gb/s, and a NIC has 800 Gb/s at most: did you mean 400 Gb/s?",
        ),
        (
            "within_host.bandwidth=45 GB/s",
            (
                "between_hosts.bandwidth: 50 GB/s is more than within_host.bandwidth, 45 GB/s: "
                "a link inside a host is the faster; NVIDIA H100 80GB HBM3 has 450 GB/s there"
            ),
        ),
        ("within_host.latency=99 ns", "within_host.latency: 99 ns is less than a link takes; 5 us is usual"),
        ("between_hosts.latency=5 ns", "between_hosts.latency: 5 ns is less than a link takes; 10 us is usual"),
        ("device.memory=80 GiB", "device.memory: 80 GiB are 85.9 GB; NVIDIA H100 80GB HBM3 has 80 GB"),
        ("device.memory=8 GB", "device.memory: 8 GB; NVIDIA H100 80GB HBM3 has 80 GB"),
    ],
)
def test_a_slip_in_the_papers_cluster(field: str, sentence: str) -> None:
    assert one(field) == sentence


@pytest.mark.parametrize(
    "sets",
    [
        ("device.peak.float16=989.5 TFLOP/s",),
        ("device.peak.float16=700 TFLOP/s",),  # what somebody measured
        ("device.memory=85.02 GB",),  # what torch says of an H100
        ("device.memory=81559 MiB",),  # what nvidia-smi says of one
        ("between_hosts.bandwidth=800 Gb/s",),
        ("between_hosts.bandwidth=450 GB/s",),  # one domain of NVLink
        ("within_host.bandwidth=200 GB/s",),
        ("within_host.latency=100 ns", "between_hosts.latency=1 us"),
        ("hosts=1", "devices_per_host=1", "within_host.bandwidth=3 TB/s", "between_hosts=null"),
        # Another GPU, of which nothing is known.
        ("device.name=NVIDIA H100 PCIe", "device.memory=94 GB", "device.peak.float16=1979 TFLOP/s"),
        ("device.name=NVIDIA H100 NVL", "device.memory=94 GB", "within_host.bandwidth=900 GB/s"),
        ("device.name=NVIDIA GH200 480GB", "device.memory=96 GB"),
        ("device.name=NVIDIA H100 80GB HBM3 MIG 1g.10gb", "device.memory=10 GB"),
        ("device.name=NVIDIA H100 96GB", "device.memory=96 GB"),
        ("device.name=NVIDIA A100-SXM4-40GB", "device.memory=40 GB", "device.peak.float16=312 TFLOP/s",
         "device.peak.bfloat16=312 TFLOP/s", "device.peak.float32=19.5 TFLOP/s", "within_host.bandwidth=300 GB/s"),
        ("device.name=AMD Instinct MI300X", "device.memory=192 GB", "device.peak.float16=1307 TFLOP/s"),
        ("device.kind=cpu", "device.memory=8 GB", "device.peak.float16=989 GFLOP/s", "within_host.latency=1 ns"),
    ],
)  # fmt: skip
def test_nothing_is_said_of_what_may_be_meant(sets: tuple[str, ...]) -> None:
    assert not said(*sets)


@pytest.mark.parametrize("name", ["H100", "h100", "NVIDIA H100-SXM5-80GB", "NVIDIA H100 80GB HBM3"])
def test_a_gpu_is_told_by_a_word_of_its_name(name: str) -> None:
    assert "with 2:4 sparsity" in one(f"device.name={name}", "device.peak.float16=1979 TFLOP/s")


def test_of_a_gpu_that_is_not_known() -> None:
    peaks = [
        f"device.peak.{dtype}={rate} GFLOP/s" for dtype, rate in (("float16", 989), ("bfloat16", 989), ("float32", 67))
    ]
    found = one("device.name=NVIDIA X900", *peaks)
    assert found == "device.peak.float16: 989 GFLOP/s: did you mean 989 TFLOP/s?"
    assert not said("device.name=NVIDIA X900", *peaks[1:])
    assert len(said("device.name=NVIDIA X900", "between_hosts.bandwidth=900 GB/s", "within_host.latency=5 ns")) == 2


@pytest.mark.parametrize("path", MEASURED, ids=lambda path: path.name)
def test_what_a_calibration_did_not_measure_is_looked_at(path: Path) -> None:
    cluster = str(path)
    assert not said("device.peak.float16=1979 TFLOP/s", "device.memory=8 GB", cluster=cluster)
    assert not said("devices_per_host=8", "within_host.bandwidth=900 GB/s", "within_host.latency=5 ns", cluster=cluster)
    assert "above the dense rate" in one("device.peak.float32=494 TFLOP/s", cluster=cluster)
    sets = ("hosts=2", "between_hosts.bandwidth=400 GB/s", "between_hosts.latency=10 us")
    assert "did you mean 400 Gb/s?" in one(*sets, cluster=cluster)


def test_the_commands_warn_and_go_on(tmp_path: Path) -> None:
    field = "device.peak.float16=1979 TFLOP/s"
    plain = ("plan", *PAPER, "--plain", "--groups", "4", "--slices", "4", "--json", tmp_path / "x.json")
    warning = f"warning: {PAPER[1]}: device.peak.float16: 1979 TFLOP/s is the rate with 2:4 sparsity"
    done = helixctl(*plain, "--set", field)
    assert done.status == 0
    assert done.err.startswith(warning)
    assert "sparsity" not in done.said
    assert "with 2:4 sparsity" in (tmp_path / "x.json").read_text()
    assert helixctl(*plain, "--set", field, "-q").err == ""
    assert "warning" not in helixctl(*plain).err
    assert "sparsity" not in (tmp_path / "x.json").read_text()
    refused = helixctl(*plain, "--set", "device.memory=80 MB")
    assert refused.status == 1
    assert "HX203" in refused.err
    assert "warning: " in refused.err.splitlines()[0]
    (tmp_path / "c.yaml").write_text(Path(PAPER[1]).read_text().replace("400 Gb/s\n", "400 GB/s\n"))
    done = helixctl("validate", "c.yaml", cwd=tmp_path)
    assert (done.status, done.said) == (0, "c.yaml: valid cluster h100x16\n")
    assert done.err.startswith("warning: c.yaml: between_hosts.bandwidth: 400 GB/s is 3200 Gb/s")
    assert helixctl("validate", "-q", "c.yaml", cwd=tmp_path).err == ""
    assert not said(cluster=SMALL[1])
