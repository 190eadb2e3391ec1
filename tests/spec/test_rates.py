"""The measured rates that come with helixctl: whose they are, when they are used, and what is said elsewhere."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from helixctl.spec import CalibrationSpec, ClusterSpec
from helixctl.spec.load import load_cluster, parse_overrides
from helixctl.spec.named import cluster_names, folder_of_clusters
from helixctl.spec.rates import doubts, rates_of, shipped_rates
from tests.benchmarks.silicon import collective_s, product_s
from tests.cli.command import helixctl
from tests.documents import PAPER, ROOT

MEASURED = [gpu for gpu in cluster_names() if shipped_rates(gpu)]
OURS = {"h100", "h200"}  # measured by ourselves too


def cluster(name: str, *sets: str) -> ClusterSpec:
    return load_cluster(name, parse_overrides(sets))


@pytest.mark.parametrize("gpu", MEASURED)
def test_the_rates_of_a_gpu_are_a_calibration_of_its_cluster(gpu: str) -> None:
    file = Path(str(folder_of_clusters())) / f"{gpu}.rates.json"
    named, found = cluster(f"{gpu}:2x8"), shipped_rates(gpu)
    assert found is not None
    assert named.measured is not None
    assert (named.measured.gpu, named.measured.digest) == (gpu, found.digest)
    assert found.digest == "sha256:" + sha256(file.read_bytes()).hexdigest()
    assert rates_of(named) is found.calibration
    assert not list(doubts(named))
    # What is shipped is not validated when it is read.
    again = CalibrationSpec.model_validate(found.calibration.model_dump(mode="json"))
    assert again.model_dump(mode="json") == found.calibration.model_dump(mode="json")
    dtypes = {"float16", "bfloat16"}
    assert set(again.matmul) == set(again.attention) == set(again.decode) == set(again.experts) == dtypes
    assert {(t.ranks, t.hosts) for t in again.collectives} == {(2, 1), (4, 1), (8, 1)}
    assert max(len(line) for line in file.read_text().splitlines()) < 20_000  # a line is a table's rates
    assert file.stat().st_size < 90_000


@pytest.mark.parametrize("gpu", MEASURED)
def test_the_source_names_the_gpu_and_the_tables_and_keeps_their_licence(gpu: str) -> None:
    named, found = cluster(f"{gpu}:8"), shipped_rates(gpu)
    assert found is not None
    source = found.calibration.source
    assert named.device.name in source
    assert "NVIDIA's tables in aiconfigurator-core 0.12.0" in source
    assert ("measured 2026" in source) == (gpu in OURS)
    data = json.loads((Path(str(folder_of_clusters())) / f"{gpu}.rates.json").read_text())
    of = data["derived_from"]["aiconfigurator-core 0.12.0"]
    assert of["license"] == "Apache-2.0"
    assert re.fullmatch("[0-9a-f]{64}", of["sha256"])
    assert of["sha256"] in (ROOT / "NOTICE").read_text()
    for path, told in data["derived_from"].items():
        if path.startswith("docs/"):
            assert told["sha256"] == sha256((ROOT / path).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (
            ["device.memory_bandwidth=3 TB/s"],
            "device.memory_bandwidth is not that of the h100 whose rates were measured",
        ),
        (["device.peak.bfloat16=700 TFLOP/s"], "device.peak.bfloat16 is not that of the h100"),
        (
            ["device.memory_bandwidth=3 TB/s", "device.peak.float16=700 TFLOP/s"],
            "device.memory_bandwidth and device.peak.float16 are not those of the h100",
        ),
        (["measured.gpu=x100"], "measured.gpu: this helixctl has no measured rates of x100"),
    ],
)
def test_a_device_of_other_figures_is_predicted_by_datasheet(sets: list[str], said: str) -> None:
    found = cluster("h100:8", *sets)
    assert rates_of(found) is None
    (doubt,) = doubts(found)
    assert doubt.startswith(said)
    assert doubt.endswith("it is predicted by datasheet")


@pytest.mark.parametrize(
    "field", ["device.memory=94 GB", "device.reserve=5 %", "device.peak.float32=60 TFLOP/s", "hosts=4"]
)
def test_other_figures_are_the_users_own(field: str) -> None:
    found = cluster("h100:8", field)
    assert rates_of(found) is rates_of(cluster("h100:8"))
    assert not list(doubts(found))


def test_another_link_leaves_the_rates_of_the_device() -> None:
    found = cluster("h100:8", "within_host.bandwidth=200 GB/s")
    rates, all_of_them = rates_of(found), rates_of(cluster("h100:8"))
    assert rates is not None
    assert all_of_them is not None
    assert not rates.collectives
    assert rates.matmul == all_of_them.matmul
    assert list(doubts(found)) == [
        "within_host is not that of the h100 that was measured: collectives are predicted from the link"
    ]


def test_another_digest_is_said_and_the_rates_that_there_are_count() -> None:
    found = cluster("h100:8", "measured.digest=sha256:" + "1" * 64)
    assert rates_of(found) is rates_of(cluster("h100:8"))
    (doubt,) = doubts(found)
    assert "sha256:111111111111... of h100 is named; this helixctl has sha256:" in doubt


def test_a_cluster_without_them_is_its_own() -> None:
    paper = cluster(PAPER[1])
    assert rates_of(paper) is None
    assert not list(doubts(paper))
    assert rates_of(cluster("h100:8", "measured=null")) is None
    ours = cluster(str(ROOT / "docs/measurements/gpus/h100.cluster.yaml"))
    assert rates_of(ours) is ours.calibration


@pytest.mark.parametrize("gpu", ["mi300x", "mi325x", "mi355x"])
def test_no_table_stands_behind_gpus_of_amd_and_a_note_says_so(gpu: str) -> None:
    found = cluster(f"{gpu}:8")
    assert rates_of(found) is None
    (doubt,) = doubts(found)
    assert doubt.startswith(f"no measured table stands behind AMD Instinct {gpu.upper()}: it is predicted by datasheet")
    # Priced as a GPU: a product by the tiles of its compute units, a collective with a start-up.
    named = [load_cluster(f"{gpu}:8"), load_cluster("h100:8", parse_overrides(["measured=null"]))]
    amd, nvidia = (collective_s(its, ("all_reduce", 8, 1024)) for its in named)
    assert amd == pytest.approx(nvidia, rel=1e-3)
    amd, nvidia = (product_s(its, (8192, 8192, 8192)) for its in named)
    assert 0.3 < amd / nvidia < 1


def test_both_are_a_contradiction(tmp_path: Path) -> None:
    ours = (ROOT / "docs/measurements/gpus/h100.cluster.yaml").read_text()
    (tmp_path / "both.yaml").write_text(f"{ours}measured: {{gpu: h100, digest: 'sha256:{'0' * 64}'}}\n")
    done = helixctl("validate", "both.yaml", cwd=tmp_path)
    assert done.status == 2
    assert "HX109 measured and calibration both give measured rates; leave one of them out" in done.said + done.err


@pytest.mark.parametrize("digest", ["sha256:12", "0" * 64, ""])
def test_a_digest_is_one(digest: str) -> None:
    with pytest.raises(Exception, match="digest"):
        cluster("h100:8", f"measured.digest={digest!r}")


def test_the_commands_say_what_they_predict_by(tmp_path: Path) -> None:
    plain = ("Llama-3.1-8B", "h100:1x8", "--plain", "--groups", "8", "--slices", "1")
    named = helixctl("plan", *plain, "-o", tmp_path / "named.plan.json")
    assert "predicted from measured rates (products, short prompts, elementwise work measured 2026-" in named.said
    assert "NVIDIA's tables in aiconfigurator-core 0.12.0), datasheet rates and default constants" in named.said
    sheet = helixctl("plan", *plain, "--set", "measured=null")
    assert "predicted from datasheet rates and default constants, not measured" in sheet.said
    # The plan names its rates and does not hold them.
    text = (tmp_path / "named.plan.json").read_text()
    assert len(text) < 4_000
    plan = json.loads(text)
    old: dict[str, Any] = plan["cluster"]["measured"]
    assert set(old) == {"gpu", "digest"}
    done = helixctl("simulate", tmp_path / "named.plan.json", "-v")
    assert "matmul in bfloat16: rates by shape: calibrated: products, short prompts" in done.said
    assert "all_reduce of 8 ranks: times by size: calibrated: products" in done.said
    assert "note: " not in done.said
    # A plan that another helixctl made, with other rates.
    other = helixctl("plan", *plain, "--set", "measured.digest=sha256:" + "1" * 64, "-o", tmp_path / "old.plan.json")
    assert "note: measured.digest: sha256:1111" in other.said
    for command in ("simulate", "validate"):
        done = helixctl(command, tmp_path / "old.plan.json")
        assert done.status == 0
        assert "sha256:111111111111... of h100 is named; this helixctl has sha256:" in done.said + done.err
    done = helixctl("diff", tmp_path / "old.plan.json", tmp_path / "named.plan.json")
    assert "cluster.measured.digest" in done.said
    assert "note: measured.digest" in done.said
    done = helixctl("plan", *plain, "--check", tmp_path / "old.plan.json")
    assert done.status == 1
    assert "measured.digest" in done.said + done.err


def test_rates_are_read_where_they_are_used() -> None:
    shipped_rates.cache_clear()
    cluster("h100:8")
    assert shipped_rates.cache_info().currsize == 0
    assert rates_of(cluster("l40s:8"))
    assert shipped_rates.cache_info().currsize == 1
