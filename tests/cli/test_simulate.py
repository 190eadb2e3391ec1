"""helixctl simulate: tables, JSON, traces, and the comparison with a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helixctl.cli.documents import load_dag
from helixctl.dag.retype import retyped
from helixctl.simulate import forecast
from tests.cli.command import helixctl, modules
from tests.documents import PAPER, SMALL, plan_of
from tests.fork import replacing

_OF_MANY = ("helixctl.api", "helixctl.cli.documents", "helixctl.cli.simulate")


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Plan files of this version of helixctl."""
    folder = tmp_path_factory.mktemp("plans")
    made = {
        "small": plan_of(SMALL, 4, 4),
        "slices": plan_of(PAPER, 4, 4),
        "groups": plan_of(PAPER, 4, 4, gather_order="groups_first"),
        "megatron": plan_of(PAPER, 8, 1, combine="reduce", pipeline=2, microbatches=4),
    }
    for name, plan in made.items():
        (folder / f"{name}.plan.json").write_text(plan.to_json())
    return {name: folder / f"{name}.plan.json" for name in made}


@pytest.fixture(scope="module")
def report(plans: dict[str, Path]) -> dict[str, Any]:
    """What a run of the small plan could have reported."""
    dag = load_dag(str(plans["small"]))
    return {
        "report": "helixctl run",
        "plan_digest": dag.plan_digest,
        "dag_digest": dag.digest,
        "dtype": "float32",
        "step_time_ms": {"mean": 2 * forecast(dag).step_s * 1e3, "p50": 1.0},
        "tokens_per_s": 100.0,
        "sync_overhead_per_token_ms": 4.0,
        "kinds": [
            {"level": k.level, "kind": k.kind, "lane": k.lane, "tasks": k.tasks, "busy_ms": 4 * k.busy_s * 1e3,
             "exposed_ms": k.exposed_s * 1e3} for k in forecast(dag).kinds
        ],
    }  # fmt: skip


def row(text: str, start: str) -> list[str]:
    """The cells of the row that begins so; cells stand two blanks apart."""
    line = next(line for line in text.splitlines() if line.startswith(start))
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_plans_side_by_side(plans: dict[str, Path]) -> None:
    done = helixctl("simulate", *(plans[name] for name in ("slices", "groups", "megatron")))
    assert (done.status, done.err) == (0, "")
    assert row(done.said, "predicted") == ["predicted", "slices.plan.json", "groups.plan.json", "megatron.plan.json"]
    assert row(done.said, "layout")[1] == "4 x 4"
    assert len(row(done.said, "step time")) == len(row(done.said, "tokens/s")) == 4
    assert "predicted from datasheet rates and default constants, not measured" in done.said
    assert "paper-dense on h100x16 (16 x NVIDIA H100 80GB HBM3), 1,024 sequences x 1 token in one pass" in done.said


def test_many_plans_have_a_row_each(plans: dict[str, Path]) -> None:
    done = helixctl("simulate", *(plans[name] for name in ("slices", "groups", "megatron", "slices", "groups")))
    assert row(done.said, "megatron.plan.json")[1] == "8 x 1, pipeline 2, microbatches 4, reduce"
    assert len(row(done.said, "slices.plan.json")) == len(row(done.said, "predicted  ")) == 12


def test_groups_first_crosses_hosts_with_a_quarter_of_the_concat(plans: dict[str, Path]) -> None:
    cells = {name: row(helixctl("simulate", "-v", plans[name]).said, "concat")[-2:] for name in ("slices", "groups")}
    assert cells == {"slices": ["62.9 MB", "50.3 MB"], "groups": ["62.9 MB", "12.6 MB"]}


def test_verbose_lists_every_constant_with_its_source(plans: dict[str, Path]) -> None:
    done = helixctl("simulate", "-v", plans["slices"])
    assert "matmul_share 0.832: default: 8192-cube product" in done.said
    assert "within_host.bandwidth 450 GB/s: cluster spec h100x16" in done.said


def test_the_critical_path_adds_up_to_the_step(plans: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    done = helixctl("simulate", plans["slices"], plans["megatron"], "--critical-path", "--json", path)
    assert done.said.count("critical path") == 2
    assert row(done.said, "feed_forward  all_reduce")[2:] == ["4", "1.07 ms", "28.2%"]
    assert row(done.said, "all  ")[1:] == ["57", "3.79 ms", "100.0%"]
    for plan in json.loads(path.read_text())["plans"]:
        found = plan["critical_path"]
        assert found["time_ms"] == pytest.approx(plan["step_time_ms"])
        assert sum(kind["time_ms"] for kind in found["kinds"]) == pytest.approx(found["time_ms"])
        assert sum(kind["share"] for kind in found["kinds"]) == pytest.approx(1)
        assert sum(kind["tasks"] for kind in found["kinds"]) == found["tasks"]


def test_the_critical_path_is_given_where_it_is_asked_for(plans: dict[str, Path]) -> None:
    done = helixctl("simulate", plans["slices"], "--json", "-", "-v")
    assert "critical" not in done.said + done.err


def test_the_critical_path_of_very_many_tasks(plans: dict[str, Path]) -> None:
    """It is found among one rank of every kind, as the forecast is."""
    few = "".join(replacing(f"{module}.MANY_TASKS", 100) for module in _OF_MANY)
    done = helixctl("simulate", plans["slices"], "--critical-path", before=few)
    assert "forecast from one rank of every kind" in done.said
    assert row(done.said, "feed_forward  all_reduce")[2:] == ["4", "1.07 ms", "28.2%"]
    assert row(done.said, "all  ")[1:] == ["57", "3.79 ms", "100.0%"]
    assert done.err == ""


def test_json_is_what_the_table_says(plans: dict[str, Path]) -> None:
    done = helixctl("simulate", plans["small"], plans["slices"], "--json", "-", "-q")
    assert done.err == ""
    result = json.loads(done.out)
    assert result["simulated"]
    small, _ = result["plans"]
    found = forecast(load_dag(str(plans["small"])))
    assert small["step_time_ms"] == pytest.approx(found.step_s * 1e3)
    assert small["tokens_per_s"] == pytest.approx(128 / found.step_s)
    assert small["layout"]["groups"] == 4
    assert sum(k["exposed_ms"] for k in small["kinds"]) == pytest.approx(small["communication"]["exposed_ms"])
    assert any("cluster spec cpu16" in line for line in small["sources"])
    assert helixctl("simulate", plans["small"], plans["slices"], "--json", "-", "-q").out == done.out


def test_a_dag_is_simulated_as_its_plan_is(plans: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "x.dag.json"
    path.write_text(load_dag(str(plans["small"])).to_json())
    one, two = (
        json.loads(helixctl("simulate", p, "--json", "-", "-q").out)["plans"][0] for p in (plans["small"], path)
    )
    assert one | {"file": ""} == two | {"file": ""}


def test_a_trace_of_all_plans(plans: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    done = helixctl("simulate", plans["small"], plans["megatron"], "--trace", path)
    assert done.status == 0
    assert "ui.perfetto.dev" in done.err
    trace = json.loads(path.read_text())
    assert {event["pid"] for event in trace["traceEvents"]} == set(range(32))
    assert trace["otherData"]["times"] == "simulated"


def test_against_a_report(plans: dict[str, Path], report: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    done = helixctl("simulate", plans["small"], "--against", path)
    assert done.status == 0
    assert row(done.said, "step time, mean")[-1] == "0.5"
    assert row(done.said, "feed_forward  all_reduce")[4] == "0.25"
    compared = json.loads(helixctl("simulate", plans["small"], "--against", path, "--json", "-", "-q").out)["against"]
    assert compared["step_time_ms"]["measured"] == pytest.approx(report["step_time_ms"]["mean"])
    assert len(compared["kinds"]) == len(report["kinds"])


def test_a_kind_that_only_one_side_has(plans: dict[str, Path], report: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    other = {"level": "route", "kind": "all_to_all", "lane": "communication", "busy_ms": 1.5, "exposed_ms": 1.25}
    path.write_text(json.dumps(report | {"kinds": [*report["kinds"][1:], other]}))
    done = helixctl("simulate", plans["small"], "--against", path)
    assert row(done.said, "route") == ["route", "all_to_all", "-", "1.5", "-", "-", "1.25"]
    assert row(done.said, "distribute    broadcast")[3:5] == ["-", "-"]


def test_a_run_in_another_dtype_is_held_beside_that_dtype(
    plans: dict[str, Path], report: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    half = retyped(load_dag(str(plans["small"])), "float64")
    path.write_text(json.dumps(report | {"dtype": "float64", "dag_digest": half.digest}))
    done = helixctl("simulate", plans["small"], "--against", path)
    assert done.status == 0
    assert "float64" in done.said


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"dag_digest": "sha256:" + "0" * 64}, 1, "HX113 is of the dag sha256:000000000000..., not of"),
        ({"dtype": "float64"}, 1, "HX113"),
        ({"dtype": "int8"}, 2, "HX105 dtype must be"),
        ({"tokens_per_s": "many"}, 2, "HX105 tokens_per_s must be a number"),
        ({"step_time_ms": {"mean": -1}}, 2, "HX105"),
        ({"step_time_ms": None}, 2, "HX105"),
        ({"kinds": [{"level": "concat"}]}, 2, "HX104 missing key 'busy_ms' in kinds[0]"),
        ({"kinds": 3}, 2, "HX105"),
        ({"report": "helixctl simulate"}, 2, "HX110 is no report of helixctl run"),
        ({"report": ["helixctl run"]}, 2, "HX110"),
    ],
)
def test_a_report_that_does_not_fit(
    change: dict[str, Any], status: int, text: str, plans: dict[str, Path], report: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report | change))
    done = helixctl("simulate", plans["small"], "--against", path)
    assert done.status == status
    assert text in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "a: [1", '{"report": "helixctl run"}', "\x00"])
def test_a_report_that_is_none(text: str, plans: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    done = helixctl("simulate", plans["small"], "--against", path)
    assert done.status == 2
    assert "report.json" in done.err
    assert "HX1" in done.err
    assert "Traceback" not in done.err


def test_a_report_without_kinds(plans: dict[str, Path], report: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({key: value for key, value in report.items() if key != "kinds"}))
    done = helixctl("simulate", plans["small"], "--against", path)
    assert done.status == 0
    assert "no times by kind of task" in done.said


@pytest.mark.parametrize(
    ("args", "status", "text"),
    [
        ((), 2, "Missing argument"),
        (("nowhere.json",), 2, "HX101"),
        ((SMALL[0],), 2, "HX110 is a model; a plan or a dag is needed"),
        (("a", "b", "--against", "c"), 2, "--against takes one plan"),
        (("a", "--json", "-", "--trace", "-"), 2, "cannot go to the same place"),
        (("a", "--json", "/nowhere/x"), 2, "HX511"),
    ],
)
def test_exit_status(args: tuple[str, ...], status: int, text: str) -> None:
    done = helixctl("simulate", *args)
    assert done.status == status
    assert text in done.err


def test_simulating_imports_nothing_heavy(plans: dict[str, Path]) -> None:
    loaded = modules(f"from helixctl.cli.main import _status\n_status(['simulate', {str(plans['small'])!r}, '-q'])")
    assert not {"torch", "numpy", "networkx", "simpy"} & loaded


def test_a_trace_of_both_steps_of_a_generation(tmp_path: Path) -> None:
    plan, path = tmp_path / "x.plan.json", tmp_path / "t.json"
    sizes = ("--input-len", "6", "--output-len", "5", "--batch", "2", "--layout", "groups=4,slices=1")
    sets = ("--set", "vocabulary.size=97", "--set", "layers=2", "--set", "devices_per_host=4")
    assert helixctl("plan", *SMALL, *sizes, *sets, "-o", plan).status == 0
    assert helixctl("simulate", plan, "--trace", path).status == 0
    found = json.loads(path.read_text())
    assert found["otherData"] == {"times": "simulated", "plans": "x.plan.json, prefill; x.plan.json, decode"}
    assert {event["pid"] for event in found["traceEvents"]} == set(range(8))
