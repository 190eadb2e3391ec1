"""--set FIELD=VALUE."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helixctl.errors import HelixError
from helixctl.spec.load import apply_overrides, load_specs

MODEL: dict[str, Any] = {"name": "tiny", "layers": 2, "attention": {"heads": 4, "head_dim": 16}}
CLUSTER: dict[str, Any] = {"name": "pair", "hosts": 2, "device": {"memory": "1 GB", "peak": {"float32": "4 GFLOP/s"}}}

PLANS = Path(__file__).parent.parent.parent / "plans"
MODEL_FILE = str(PLANS / "paper/dense.model.yaml")
CLUSTER_FILE = str(PLANS / "paper/h100x16.cluster.yaml")


def problems(*sets: str) -> list[str]:
    with pytest.raises(HelixError) as caught:
        apply_overrides(MODEL, CLUSTER, sets)
    assert {d.code for d in caught.value.diagnostics} == {"HX108"}
    return [str(d) for d in caught.value.diagnostics]


@pytest.mark.parametrize(
    ("text", "document", "path", "value"),
    [
        ("attention.softmax_slices=16", "model", "attention.softmax_slices", 16),
        ("workload.batch=8", "model", "workload.batch", 8),
        ("hosts=1", "cluster", "hosts", 1),
        ("device.memory=40 GB", "cluster", "device.memory", "40 GB"),
        ("device.peak.float16=1 TFLOP/s", "cluster", "device.peak.float16", "1 TFLOP/s"),
        ("between_hosts.bandwidth = 450 GB/s", "cluster", "between_hosts.bandwidth", "450 GB/s"),
        ("between_hosts=null", "cluster", "between_hosts", None),
        ("model.attention.causal=true", "model", "attention.causal", True),
        ("model.name=other", "model", "name", "other"),
        ("cluster.name='8'", "cluster", "name", "8"),
        ("norm.eps=1e-6", "model", "norm.eps", 1e-6),
        ("cluster.device.name=a=b", "cluster", "device.name", "a=b"),
        ("device.name=[not: yaml", "cluster", "device.name", "[not: yaml"),
        ("device.name=", "cluster", "device.name", None),
    ],
)
def test_sets_one_field(text: str, document: str, path: str, value: object) -> None:
    model, cluster = apply_overrides(MODEL, CLUSTER, [text])
    changed, same = (model, cluster) if document == "model" else (cluster, model)
    assert same == (CLUSTER if document == "model" else MODEL)
    found: Any = changed
    for part in path.split("."):
        found = found[part]
    assert found == value
    assert type(found) is type(value)


def test_leaves_its_input_and_the_neighbours_alone() -> None:
    before = repr((MODEL, CLUSTER))
    model, cluster = apply_overrides(MODEL, CLUSTER, ["attention.heads=8", "device.peak.float64=1 GFLOP/s"])
    assert model["attention"] == {"heads": 8, "head_dim": 16}
    assert cluster["device"]["peak"] == {"float32": "4 GFLOP/s", "float64": "1 GFLOP/s"}
    assert repr((MODEL, CLUSTER)) == before


def test_the_last_one_wins() -> None:
    model, cluster = apply_overrides(MODEL, CLUSTER, ["layers=3", "between_hosts=null", "layers=4"])
    assert (model["layers"], cluster["between_hosts"]) == (4, None)


def test_a_null_mapping_is_made_anew() -> None:
    _, cluster = apply_overrides(MODEL, {"between_hosts": None}, ["between_hosts.latency=5 us"])
    assert cluster == {"between_hosts": {"latency": "5 us"}}


def test_a_malformed_file_is_left_to_validation() -> None:
    model, _ = apply_overrides({"attention": 3}, CLUSTER, ["attention.heads=8"])
    assert model == {"attention": 3}


REFUSED = (
    "attention.haeds=8",
    "heads=8",
    "bandwidth=1 GB/s",
    "between_host.bandwidth=1 GB/s",
    "attention.batch=8",
    "workload.sequence=8",
    "device.peak.int4=1 TFLOP/s",
    "device.peak.float61=1 TFLOP/s",
    "model.hosts=2",
    "cluster.host=2",
    "name=x",
    "model=x",
    "layers.x=3",
    "attention.heads",
    "device.name='x",
    "\x1b[31m=\udcff",
)


def test_says_what_was_meant(golden: Callable[[Path, str], None]) -> None:
    found = problems(*REFUSED)
    assert len(found) == len(REFUSED)
    golden(Path(__file__).parent.parent / "invalid" / "HX108-set.txt", "\n".join(found) + "\n")


@pytest.mark.parametrize(
    "text",
    ["", "=", "=3", ".=3", "..=", "model=3", "cluster=x", "model.=3", "layers.x=3", "a.b.c=1", "layers=" + "9" * 5000],
)
def test_refuses_what_names_no_field(text: str) -> None:
    assert len(problems(text)) == 1


def test_refuses_all_at_once() -> None:
    assert len(problems("a=1", "layers=2", "b=3", "c")) == 3


def errors(*sets: str, cluster: str = CLUSTER_FILE) -> list[str]:
    with pytest.raises(HelixError) as caught:
        load_specs(MODEL_FILE, cluster, sets)
    return [str(d) for d in caught.value.diagnostics]


def test_a_good_set_reaches_the_specs() -> None:
    model, cluster = load_specs(MODEL_FILE, CLUSTER_FILE, ["attention.softmax_slices=16", "device.memory=40 GB"])
    assert model.attention.softmax_slices == 16
    assert cluster.device.memory == 40e9


def test_a_bad_value_is_the_command_lines() -> None:
    assert errors("attention.heads=x", "hosts=0", "device.memory=40") == [
        "HX105 --set attention.heads=x: attention.heads must be a whole number from 1 to 2^40, not the text 'x'",
        "HX105 --set hosts=0: hosts must be a whole number from 1 to 4096, not 0",
        "HX106 --set device.memory=40: device.memory: 40 has no unit\n  hint: write for example '80 GB'",
    ]


def test_a_mapping_that_set_made_is_the_command_lines() -> None:
    cluster = str(PLANS / "small/cpu16.cluster.yaml")
    assert errors("between_hosts.latency=5 us", cluster=cluster) == [
        (
            "HX104 --set between_hosts.latency=5 us: missing key 'bandwidth' in between_hosts\n"
            "  hint: bandwidth is a quantity such as 450 GB/s"
        )
    ]


def test_a_contradiction_names_the_set_that_has_a_part_in_it() -> None:
    assert errors("attention.softmax_slices=3") == [
        "HX109 --set attention.softmax_slices=3: attention: softmax_slices 3 does not divide head_dim 512"
    ]
    assert errors("attention.head_dim=18") == [
        (
            f"{MODEL_FILE}:9:3: HX109 attention: softmax_slices 4 does not divide head_dim 18 "
            "(with --set attention.head_dim=18)"
        )
    ]


def test_errors_of_the_set_and_of_both_files_come_together(tmp_path: Path) -> None:
    model, cluster = tmp_path / "a.model.yaml", tmp_path / "b.cluster.yaml"
    model.write_text("layers: 2\nattention: {}\n")
    cluster.write_text("hosts: x\n")
    with pytest.raises(HelixError) as caught:
        load_specs(str(model), str(cluster), ["nonsense=1"])
    found = caught.value.diagnostics
    assert found[0].code == "HX108"
    assert {d.file for d in found[1:]} == {str(model), str(cluster)}
