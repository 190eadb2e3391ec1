"""helixctl plan --check: is a plan on disk still what the specs give?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.command import helixctl
from tests.documents import ROOT, SMALL

SPECS = ("plans/paper/dense.model.yaml", "plans/paper/h100x16.cluster.yaml")
PLAN = "plans/paper/dense.4x4.plan.json"
PAIR = ("--plain", "--groups", "4", "--slices", "4")
MEGATRON = ("--layout", "groups=8,pipeline=2,combine=reduce,microbatches=4")


@pytest.fixture(scope="module")
def planned() -> bytes:
    done = helixctl("plan", *SMALL, *MEGATRON, "-q", "-o", "-")
    assert done.status == 0
    return done.out


@pytest.fixture
def small(planned: bytes, tmp_path: Path) -> Path:
    """A plan in which single fields can be changed."""
    path = tmp_path / "x.plan.json"
    path.write_bytes(planned)
    return path


def test_no_drift_is_one_line_and_nothing_is_written(small: Path) -> None:
    before = (small.read_bytes(), small.stat().st_mtime_ns)
    done = helixctl("plan", *SMALL, *MEGATRON, "--check", small)
    assert (done.status, done.err) == (0, "")
    assert done.said.startswith(f"{small}: is what the specs give now, layout 8 x 1, pipeline 2")
    assert done.said.count("\n") == 1
    assert (small.read_bytes(), small.stat().st_mtime_ns) == before
    assert sorted(small.parent.iterdir()) == [small]
    assert helixctl("plan", *SMALL, *MEGATRON, "--check", small, "-q").said == ""


def test_the_shipped_plan_has_not_drifted() -> None:
    assert helixctl("plan", *SPECS, *PAIR, "--check", PLAN).status == 0


def test_other_spacing_is_no_drift(small: Path) -> None:
    small.write_text(json.dumps(json.loads(small.read_text())))
    assert helixctl("plan", *SMALL, *MEGATRON, "--check", small).status == 0


def test_standard_input_can_be_the_plan(small: Path) -> None:
    assert helixctl("plan", *SMALL, *MEGATRON, "--check", "-", stdin=small.read_bytes()).status == 0
    done = helixctl("plan", "-", SMALL[1], "--check", "-", stdin=small.read_bytes())
    assert done.status == 2
    assert "standard input cannot be a spec and the plan to check" in done.err


def test_what_has_changed_is_said(golden: Callable[[Path, str], None]) -> None:
    of_all = helixctl("plan", *SPECS, "--plain", "--groups", "8", "--slices", "2", "--batch", "512", "--check", PLAN)
    of_layout = helixctl("plan", *SPECS, "--plain", "--groups", "16", "--slices", "1", "--check", PLAN)
    assert of_all.status == of_layout.status == 1
    golden(ROOT / "tests/invalid/HX204-drift.txt", "".join(d.said + d.err for d in (of_all, of_layout)))


def test_a_summary_of_many_changes_is_short() -> None:
    done = helixctl("plan", *SPECS, *PAIR, "--check", "plans/small/moe.tp8-pp2.plan.json")
    assert done.status == 1
    assert len(done.said.splitlines()) <= 15
    assert " more\n" in done.said


def test_a_changed_spec_field_is_named_old_to_new(small: Path) -> None:
    done = helixctl(
        "plan", *SMALL, *MEGATRON, "--set", "norm.eps=1e-6", "--set", "device.memory=2 GB", "--check", small
    )
    assert done.status == 1
    lines = [" ".join(line.split()) for line in done.said.splitlines()]
    assert lines == ["model.norm.eps 1e-05 -> 1e-06", "cluster.device.memory 1 GB -> 2 GB"]
    assert "2 fields differ" in done.err


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"layout": {"groups": 16, "slices": 1}}, "the specs are the same: give the options"),
        ({"digests": {"model": "sha256:0", "cluster": "sha256:0", "workload": "sha256:0"}}, "it was edited"),
    ],
)
def test_a_plan_that_was_edited_has_drifted(small: Path, change: dict[str, object], text: str) -> None:
    """Also where a proof would refuse it."""
    small.write_text(json.dumps(json.loads(small.read_text()) | change))
    done = helixctl("plan", *SMALL, *MEGATRON, "--check", small)
    assert done.status == 1
    assert text in done.err


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("nowhere.plan.json", "HX101"),
        ("tests/invalid/HX102-comma.model.json", "HX102"),
        (SPECS[0], "HX110 is a model; --check takes a plan"),
        ("plans/paper/dense.4x4.dag.json", "HX110 is a dag; --check takes a plan"),
        ("tests/invalid/HX301-unknown-axis.plan.json", "HX301"),
        ("tests/invalid/HX304-version.plan.json", "HX304"),
    ],
)
def test_what_is_no_plan(path: str, code: str) -> None:
    done = helixctl("plan", *SPECS, *PAIR, "--check", path)
    assert (done.status, done.out) == (2, b"")
    assert f"{path}:" in done.err
    assert code in done.err


def test_specs_that_give_no_plan_are_a_no() -> None:
    done = helixctl("plan", *SPECS, *PAIR, "--set", "device.memory=1 MB", "--check", PLAN)
    assert done.status == 1
    assert "HX203" in done.err


@pytest.mark.parametrize("output", [("-o", "-"), ("--dag", "x.dag.json")])
def test_it_writes_nothing_so_nothing_can_be_asked_for(output: tuple[str, str]) -> None:
    done = helixctl("plan", *SPECS, *PAIR, *output, "--check", PLAN)
    assert (done.status, done.out) == (2, b"")
    assert "--check writes nothing" in done.err


def test_the_table_is_there_for_who_asks() -> None:
    done = helixctl("plan", *SPECS, *PAIR, "--check", PLAN, "-v")
    assert done.status == 0
    assert "verdict" in done.said


def test_the_options_are_in_the_plan(tmp_path: Path) -> None:
    path = tmp_path / "x.plan.json"
    sets = ("--set", "layers=2", "--set", "devices_per_host=4", "--batch", "8")
    options = (*sets, "--layout", "tp=2,pp=2", "--objective", "latency")
    assert helixctl("plan", *SMALL, *options, "-q", "-o", path).status == 0
    asked = json.loads(path.read_text())["asked"]
    assert asked == {
        "sets": ["layers=2", "devices_per_host=4", "workload.batch=8"],
        "layout": {"partitions": 2, "pipeline": 2},
        "objective": "latency",
    }
    done = helixctl("plan", *SMALL, "--check", path)
    assert done.status == 0, done.err
    assert done.err == (
        "note: planned again with its options: --set layers=2 --set devices_per_host=4 --set workload.batch=8 "
        "--layout partitions=2,pipeline=2 --objective latency\n"
    )
    other = helixctl("plan", *SMALL, *options[:4], *options[6:], "--check", path)
    assert other.status == 1
    assert "workload.batch 8 -> 16" in " ".join(other.said.split())


def test_options_are_no_part_of_what_was_decided(tmp_path: Path) -> None:
    """Neither digests nor dags have them, and no command but --check sees them."""
    asked, plain = tmp_path / "asked.plan.json", tmp_path / "plain.plan.json"
    assert helixctl("plan", *SMALL, *MEGATRON, "-q", "-o", asked).status == 0
    data = json.loads(asked.read_text())
    assert data.pop("asked")["layout"]
    plain.write_text(json.dumps(data, indent=2) + "\n")
    assert helixctl("diff", asked, plain).status == 0
    dags = [helixctl("visualize", path, "-o", "-", "-f", "json").out for path in (asked, plain)]
    assert dags[0] == dags[1]
    assert b'"asked"' not in dags[0]


def test_no_options_leave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.plan.json"
    cluster = tmp_path / "two.cluster.yaml"
    cluster.write_text(Path(SMALL[1]).read_text().replace("devices_per_host: 16", "devices_per_host: 2"))
    assert helixctl("plan", SMALL[0], cluster, "-q", "-o", path).status == 0
    assert "asked" not in json.loads(path.read_text())
