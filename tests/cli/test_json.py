"""--json of every command: the data follow their schema, and their figures have one name and one unit each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from helixctl.report.figures import no_figures
from tests.cli.command import helixctl
from tests.documents import ROOT, SMALL, TINY, plan_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("json")
    model = folder / "words.model.yaml"
    model.write_text(Path(SMALL[0]).read_text() + "vocabulary: {size: 64, tied: true}\n")
    plans = {
        "a": plan_of(SMALL, 2, 1, *TINY),
        "b": plan_of(SMALL, 1, 2, *TINY, slicing="batch"),
        "g": plan_of((str(model), SMALL[1]), 2, 1, *TINY, "workload.output_len=3"),
        "h": plan_of((str(model), SMALL[1]), 1, 2, *TINY, "workload.output_len=3", slicing="batch"),
    }
    for name, plan in plans.items():
        (folder / f"{name}.plan.json").write_text(plan.to_json())
    return folder


def data(folder: Path, *arguments: str, status: int = 0) -> dict[str, Any]:
    """What standard output holds: the JSON alone, which follows its schema."""
    done = helixctl(*arguments, "--json", "-", cwd=folder)
    assert done.status == status, done.err
    found = json.loads(done.out)
    command = arguments[0]
    schema = json.loads((ROOT / f"schemas/{command}.report.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(found)
    assert str(found["report"]).startswith(f"helixctl {command}")
    assert done.err  # the answer for people
    assert list(without_seconds(found)) == []
    return found  # type: ignore[no-any-return]


def without_seconds(document: Any) -> Iterator[str]:
    """The keys in milliseconds beside which the same does not stand in seconds, at any depth."""
    if isinstance(document, list):
        for item in document:
            yield from without_seconds(item)
    if isinstance(document, dict):
        for key, value in document.items():
            yield from without_seconds(value)
            base = document.get(key.replace("_ms", "_s"))
            if "_ms" in key and base != in_seconds(value):
                yield key


def in_seconds(value: Any) -> Any:
    """A time, or an object of such: statistics, a pair."""
    if isinstance(value, dict):
        return {key: number if key in {"n", "ratio"} else in_seconds(number) for key, number in value.items()}
    return value if value is None else pytest.approx(value / 1e3)


TWO = ("--set", "devices_per_host=2", *(word for text in TINY for word in ("--set", text)))


def test_figures_of_a_step_are_the_same_by_plan_simulate_and_diff(folder: Path) -> None:
    planned = data(folder, "plan", *SMALL, *TWO, "--layout", "groups=2,slices=1", "--plain")["chosen"]
    (simulated,) = data(folder, "simulate", "a.plan.json", "--critical-path")["plans"]
    compared = data(folder, "diff", "a.plan.json", "b.plan.json", status=1)
    for figures in (simulated["figures"], compared["a"]["figures"]):
        assert figures.keys() == no_figures().keys()
        known = {name: number for name, number in figures.items() if number is not None}
        assert {name: planned[name] for name in known} == pytest.approx(known, rel=1e-9)
        assert all(planned[name] is None for name in figures.keys() - known.keys())
    assert simulated["figures"]["step_s"] == pytest.approx(simulated["step_time_ms"] / 1e3)
    assert compared["predicted"]["step_time_ms"]["b"] == pytest.approx(compared["b"]["figures"]["step_s"] * 1e3)
    assert compared["a"]["sources"] == simulated["sources"]


def test_figures_of_a_generation(folder: Path) -> None:
    compared = data(folder, "diff", "g.plan.json", "h.plan.json", status=1)
    figures = compared["a"]["figures"]
    prefill, decode = data(folder, "simulate", "g.plan.json")["plans"]
    assert figures["ttft_s"] == pytest.approx(prefill["figures"]["step_s"])
    assert figures["time_per_output_token_s"] == pytest.approx(decode["figures"]["step_s"])
    assert compared["predicted"]["ttft_ms"]["a"] == pytest.approx(figures["ttft_s"] * 1e3)


def test_of_validate(folder: Path) -> None:
    found = data(folder, "validate", "a.plan.json", str(ROOT / "tests/invalid/HX406-gather-order.dag.json"), status=1)
    valid, refused = found["files"]
    assert valid["summary"].startswith("plan, layout 2 x 1, ")
    assert (refused["verdict"], found["diagnostics"][0]["code"]) == ("refused", "HX406")


def test_json_of_validate_is_a_format_and_a_file() -> None:
    done = helixctl("validate", SMALL[0], "--json", "x.json", "-f", "sarif")
    assert done.status == 2
    assert "leave -f and -o out" in done.err


STEPS = ("--warmup", "1", "--iters", "2")


def test_of_a_run(folder: Path) -> None:
    found = data(folder, "run", "a.plan.json", *STEPS, "--check")
    figures = found["figures"]
    assert figures.keys() == no_figures().keys()
    assert figures["step_s"] == pytest.approx(found["step_time_ms"]["mean"] / 1e3)
    assert figures["tokens_per_s"] == pytest.approx(found["tokens_per_s"])
    assert figures["exposed_s"] == pytest.approx(found["communication"]["exposed_ms"] / 1e3)
    assert figures["memory_nbytes"] == found["memory"]["allocated_nbytes"]
    predicted = data(folder, "simulate", "a.plan.json")["plans"][0]["figures"]
    for name in ("received_nbytes", "weight_nbytes", "memory_nbytes"):
        assert figures[name] == predicted[name], name


def test_of_a_run_of_a_generation(folder: Path) -> None:
    found = data(folder, "run", "g.plan.json")
    figures = found["figures"]
    assert figures["ttft_s"] == pytest.approx(found["ttft_ms"] / 1e3)
    assert figures["time_per_output_token_s"] == pytest.approx(found["time_per_output_token_ms"]["mean"] / 1e3)
    assert figures["cache_nbytes"] == found["cache"]["cache_nbytes_per_rank"]


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("plans", "steps"), [(("a.plan.json", "b.plan.json"), STEPS), (("g.plan.json", "h.plan.json"), ("--warmup", "1"))]
)
def test_of_runs_compared(folder: Path, plans: tuple[str, str], steps: tuple[str, ...]) -> None:
    assert len(data(folder, "run", "--compare", *plans, *steps)["methods"]) == 2


def test_report_is_another_name_of_json(folder: Path, tmp_path: Path) -> None:
    done = helixctl("run", "a.plan.json", *STEPS, "--report", tmp_path / "r.json", cwd=folder)
    assert done.status == 0
    assert f"wrote {tmp_path}/r.json: the report" in done.err
    assert json.loads((tmp_path / "r.json").read_text())["report"] == "helixctl run"


def test_of_a_cluster_whose_hosts_differ(folder: Path) -> None:
    small = tuple(word for text in TINY for word in ("--set", text))
    found = data(folder, "plan", SMALL[0], "h100:1x1+l40s:1x1", *small, "--set", "dtype=float16", "--plain")
    assert [kind["device"] for kind in found["cluster"]["kinds"]] == ["NVIDIA H100 80GB HBM3", "NVIDIA L40S"]


def test_a_run_is_printed_beside_what_simulate_predicts(folder: Path) -> None:
    done = helixctl("run", "a.plan.json", "--warmup", "1", "--iters", "2", cwd=folder)
    assert done.status == 0, done.err
    (due,) = data(folder, "simulate", "a.plan.json")["plans"]
    first, *lines = done.said.splitlines()
    assert re.match(
        r"TP 2 on 2 CPU ranks, measured: [\d.]+ \w+ a step \(predicted [\d.]+ \w+\), [\d,]+ tokens/s, ", first
    )
    shown = {line[:42].strip(): line.split() for line in lines}
    for name, number in (
        ("step time, mean", due["step_time_ms"]),
        ("communication per step, exposed", due["communication"]["exposed_ms"]),
        ("sync + comm overhead per token (the paper's", due["sync_overhead_per_token_ms"]),
    ):
        assert shown[name[:42]][-2:] == [f"{number:.3f}", "ms"]
