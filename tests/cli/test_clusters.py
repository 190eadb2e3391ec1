"""Clusters by name: which texts are names, the specs that they give, and that a name and its file give equal plans."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import helixctl as api
from helixctl.spec.cluster import ClusterSpec
from helixctl.spec.load import load_cluster
from helixctl.spec.named import cluster_names
from tests.cli.command import helixctl
from tests.documents import PAPER, ROOT

PAGE = (ROOT / "docs/clusters.md").read_text()


def planned(cluster: str | Path, *more: str, cwd: Path = ROOT) -> dict[str, Any]:
    done = helixctl("plan", PAPER[0], cluster, "--plain", *more, "-q", "-o", "-", cwd=cwd)
    assert done.status == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def refused(cluster: str, *, cwd: Path = ROOT) -> str:
    done = helixctl("plan", PAPER[0], cluster, cwd=cwd)
    assert done.status == 2
    return done.err


@pytest.mark.parametrize(
    ("text", "name", "hosts", "devices"),
    [
        ("h100:2x8", "h100-2x8", 2, 8),
        ("H100:2X8", "h100-2x8", 2, 8),
        ("h100:1x8", "h100-1x8", 1, 8),
        ("h100:8", "h100-1x8", 1, 8),
        ("8xH100", "h100-1x8", 1, 8),
        ("8xh100", "h100-1x8", 1, 8),
        ("8XH100", "h100-1x8", 1, 8),
        ("1xa100", "a100-1x1", 1, 1),
        ("l40s:1x10", "l40s-1x10", 1, 10),
        ("b200:4096x8", "b200-4096x8", 4096, 8),
    ],
)
def test_a_name_in_either_notation(text: str, name: str, hosts: int, devices: int) -> None:
    found = api.load(text)
    assert isinstance(found, ClusterSpec)
    assert (found.name, found.hosts, found.devices_per_host) == (name, hosts, devices)
    assert found == load_cluster(text)


def test_the_h100_are_those_of_the_paper() -> None:
    """All is equal, except what the paper's file lacks: rates of other numbers, and what was measured."""
    ours, papers = load_cluster("h100:2x8"), load_cluster(PAPER[1])
    peak = {name: rate for name, rate in ours.device.peak.items() if name in papers.device.peak}
    device = ours.device.model_copy(update={"peak": peak, "sms": None, "matmul_share": None})
    assert ours.model_copy(update={"name": papers.name, "device": device, "measured": None}) == papers


def test_the_sms_of_each_gpu() -> None:
    assert {gpu: load_cluster(f"{gpu}:8").device.sms for gpu in cluster_names()} == {
        "a100": 108, "b200": 148, "h100": 132, "h200": 132, "l40s": 142, "rtx4090": 128,
        "mi300x": 304, "mi325x": 304, "mi355x": 256,
    }  # fmt: skip
    with pytest.raises(api.HelixError, match="must be over 0 %"):
        api.load("h100:8", ["device.matmul_share=0 %"])


@pytest.mark.parametrize("gpu", cluster_names())
def test_every_figure_is_in_the_table_of_sources(gpu: str) -> None:
    rows = re.findall(rf"^\| {gpu} \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
    assert all(source for _, _, source in rows)
    table = {key: value for keys, value, _ in rows for key in keys.split(", ")}
    done = helixctl("clusters", "show", f"{gpu}:8")
    cluster = yaml.safe_load(done.out)
    device = cluster["device"]
    figures = {key: device[key] for key in ("memory", "memory_bandwidth")} | device["peak"]
    assert table == figures | {"within_host": cluster["within_host"]["bandwidth"]}
    assert cluster["between_hosts"]["bandwidth"] == {"l40s": "200 Gb/s", "rtx4090": "100 Gb/s"}.get(gpu, "400 Gb/s")
    assert [cluster[link]["latency"] for link in ("within_host", "between_hosts")] == ["5 us", "10 us"]
    # The file says it too, beside each figure.
    lines = done.said.splitlines()
    assert all(" # " in line for line in lines if re.search(r": \d[\d.]* (?!#)\S+", line.partition("#")[0]))


def test_no_rate_is_that_with_sparsity_and_no_link_is_both_ways() -> None:
    """The figures of the brief, from the datasheets, written here once more."""
    dense = {"a100": 312e12, "h100": 989e12, "h200": 989e12, "b200": 2250e12, "l40s": 362.05e12, "rtx4090": 165.2e12}
    dense |= {"mi300x": 1307.4e12, "mi325x": 1307.4e12, "mi355x": 2516.6e12}
    links = {"a100": 300e9, "h100": 450e9, "h200": 450e9, "b200": 900e9, "l40s": 32e9, "rtx4090": 32e9}
    links |= {"mi300x": 448e9, "mi325x": 448e9, "mi355x": 537.6e9}
    assert set(cluster_names()) == set(dense)
    for gpu, rate in dense.items():
        cluster = load_cluster(f"{gpu}:8")
        assert cluster.device.peak["float16"] == cluster.device.peak["bfloat16"] == rate
        assert cluster.within_host.bandwidth == links[gpu]


# A GPU of each kind, with links inside a host and without; the sweep has all.
OFTEN = {"h100", "l40s", "mi300x"}


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(f"{gpu}:2x4", marks=() if gpu in OFTEN else pytest.mark.sweep) for gpu in cluster_names()),
        "8xH100",
    ],
)
def test_the_file_of_a_name_plans_to_the_same_digest(name: str, tmp_path: Path) -> None:
    done = helixctl("clusters", "show", name, cwd=tmp_path)
    assert done.status == 0
    assert done.said.startswith("# yaml-language-server: $schema=")
    assert done.said.split("=", 1)[1].splitlines()[0].endswith("schemas/cluster.schema.json")
    (tmp_path / "my.cluster.yaml").write_bytes(done.out)
    by_name = planned(name)
    assert planned("my.cluster.yaml", cwd=tmp_path) == by_name
    assert helixctl("validate", "my.cluster.yaml", cwd=tmp_path).status == 0
    (tmp_path / "in").mkdir()
    again = helixctl("clusters", "show", name, "-o", "in/my.cluster.yaml", cwd=tmp_path)
    assert (again.status, again.out) == (0, b"")
    assert again.err == f"wrote in/my.cluster.yaml: cluster {by_name['cluster']['name']}\n"
    old, new = done.said.splitlines(), (tmp_path / "in/my.cluster.yaml").read_text().splitlines()
    assert (old[0].replace("$schema=", "$schema=../"), old[1:]) == (new[0], new[1:])
    (tmp_path / "notes").write_text("mine")
    assert "HX511" in helixctl("clusters", "show", name, "-o", "notes", cwd=tmp_path).err


def test_a_plan_holds_its_cluster() -> None:
    plan = planned("h100:2x8", "--set", "hosts=1", "--set", "cluster.name=mine", "--set", "within_host.latency=2 us")
    cluster = plan["cluster"]
    assert (cluster["name"], cluster["hosts"], cluster["device"]["memory"]) == ("mine", 1, "80 GB")
    assert cluster["within_host"] == {"bandwidth": "450 GB/s", "latency": "2 us"}


def test_a_file_comes_first_where_it_is_written_as_a_path(tmp_path: Path) -> None:
    text = Path(PAPER[1]).read_text().replace("name: h100x16", "name: from-a-file")
    for name in ("h100:8", "8xH100", "h100"):
        (tmp_path / name).write_text(text)
    names = [planned(path, cwd=tmp_path)["cluster"]["name"] for path in ("h100:8", "./h100:8", "./8xH100", "./h100")]
    assert names == ["h100-1x8", "from-a-file", "from-a-file", "from-a-file"]
    err = refused("h100", cwd=tmp_path)
    assert "h100: HX105 names a GPU, and does not say how many" in err
    assert "a file of that name is ./h100" in err


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("h10:2x8", "h100:2x8"),
        ("h1000:4", "h100:4"),
        ("h100x16", "h100:2x8"),
        ("h100-8", "h100:8"),
        ("h100:2*8", "h100:2x8"),
        ("h100:", "h100:8"),
        ("2x8xH100", "h100:2x8"),
        ("nvidia-h100-sxm:2x8", "h100:2x8"),
        ("H100-SXM5-80GB:16", "h100:2x8"),
        ("dgx-a100:4", "a100:4"),
    ],
)
def test_a_slip_is_answered_with_the_name(text: str, meant: str) -> None:
    err = refused(text)
    assert f"{text}: HX101 cannot be read" in err
    assert f"did you mean '{meant}'? clusters by name: a100, b200, h100, h200, l40s" in err
    assert load_cluster(meant)


@pytest.mark.parametrize("text", ["v100:8", "a10:8", "mi300a:8", "gb200:2x4", "b300:8", "l40:8", "l4:8", "mycluster"])
def test_another_gpu_is_no_slip(text: str) -> None:
    err = refused(text)
    assert "did you mean" not in err
    assert "clusters by name: a100, b200, h100, h200, l40s" in err
    assert "helixctl clusters show h100:8 prints one to edit" in err


@pytest.mark.parametrize("text", ["no.yaml", "plans/h100", "./h100:8", "a/h100:8"])
def test_a_path_that_is_missing_is_a_path(text: str) -> None:
    err = refused(text)
    assert "HX101 cannot be read: no such file" in err
    assert "clusters by name" not in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("h100:16", "h100:2x8 is 2 hosts of 8, h100:1x16 is one host of 16"),
        ("12xH100", "h100:1x12 is one host of 12"),
        ("h100:0x8", "a cluster has 1 to 4096 hosts of 1 to 1024 devices"),
        ("h100:8x0", "a cluster has 1 to 4096 hosts of 1 to 1024 devices"),
        ("h100:4097x8", "a cluster has 1 to 4096 hosts of 1 to 1024 devices"),
    ],
)
def test_numbers_that_cannot_be(text: str, said: str) -> None:
    err = refused(text)
    assert f"{text}: HX105" in err
    assert said in err


def test_every_command_that_reads_a_cluster_takes_a_name(tmp_path: Path) -> None:
    assert helixctl("validate", "h100:2x8").said == "h100:2x8: valid cluster h100-2x8\n"
    done = helixctl("calibrate", "--cluster", "h100:2x8", "--device", "cpu", "-o", tmp_path / "x.yaml")
    assert "h100:2x8 is made of cuda devices" in done.err
    done = helixctl("plan", "h100:2x8", PAPER[0])
    assert "h100:2x8: HX110 is a cluster; it was given as MODEL" in done.err
    for model in ("Llama-3.1-8B", "plans/models/Llama-3.1-8B"):
        done = helixctl("plan", "h100:2x8", model)
        assert f"{model}: HX110 is a model; it was given as CLUSTER\n  hint: give the model first" in done.err
    done = helixctl("validate", "v100:8")
    assert "clusters by name" in done.said


def test_an_error_in_a_named_cluster_has_no_line() -> None:
    done = helixctl("plan", PAPER[0], "l40s:2x8", "--set", "dtype=float64")
    assert done.err.startswith("l40s:2x8: HX114 NVIDIA L40S has no peak rate for float64")
    done = helixctl("plan", PAPER[0], "l40s:2x8", "--set", "between_hosts=null")
    assert done.err.startswith("l40s:2x8: HX109 2 hosts, but between_hosts is not given")


def test_the_list_fits_a_terminal_and_names_every_source() -> None:
    done = helixctl("clusters")
    assert done.status == 0
    lines = done.said.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    for gpu in cluster_names():
        cluster = load_cluster(f"{gpu}:1")
        row = next(line for line in lines if line.startswith(f"{gpu} "))
        assert f" {cluster.device.peak['float16'] / 1e12:g} " in row
        maker = "AMD" if gpu.startswith("mi") else "NVIDIA"
        assert f"{gpu}: {cluster.device.name}; {maker} " in done.said
    assert "datasheet" in done.said
    assert "assumptions" in done.said
    assert "names no cluster" in helixctl("clusters", "show", "plans").err
    assert helixctl("clusters", "show", PAPER[1]).status == 2
