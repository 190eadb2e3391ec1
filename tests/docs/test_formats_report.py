"""docs/formats.md, "Report" and "Prediction", name every key that `run` and `simulate` write, and no others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from helixctl.report.figures import no_figures
from helixctl_runtime.generate.margins import Margins
from helixctl_runtime.report.comparison import comparison
from helixctl_runtime.report.generations import Generations, comparison_of_generations
from helixctl_runtime.tensors.seeded import seeded_numbers
from tests.cli.command import helixctl
from tests.documents import ROOT, SMALL, TINY, plan_of, tiny

TEXT = (ROOT / "docs/formats.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
# Of layouts and workloads "Plan" has the keys, of figures "Figures".
ELSEWHERE = {"layout", "workload", "figures"}


def keys(document: Any) -> Iterator[str]:
    """Every key of a document, at any depth."""
    if isinstance(document, list):
        for item in document:
            yield from keys(item)
    if isinstance(document, dict):
        yield from document
        for name, value in document.items():
            if name not in ELSEWHERE:
                yield from keys(value)


def named(section: str) -> set[str]:
    """The words that a section sets as code; beside a key in milliseconds stands the same in seconds."""
    words = {part for word in re.findall(r"`([\w.]+)`", section) for part in word.split(".")}
    return words | {re.sub(r"_ms(?=_|$)", "_s", word) for word in words}


def rows(section: str, table: int) -> set[str]:
    """The keys that the first column of a section's table names."""
    first = [re.findall(r"^\| (`[^|]*) \|", part, re.MULTILINE) for part in section.split("| key | what |")[1:]]
    return {key.partition(".")[0] for cell in first[table] for key in re.findall(r"`([\w.]+)`", cell)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks with weights of a file, checked; and its prediction."""
    folder, dag = tmp_path_factory.mktemp("reports"), tiny(2, 1)
    (folder / "x.dag.json").write_text(dag.to_json())
    weights = [tensor for tensor in dag.tensors if tensor.role == "weight"]
    save_file({t.name: seeded_numbers(t, t.full, 0, torch.float32) for t in weights}, folder / "w.safetensors")
    run = ("run", "x.dag.json", "--check", "--warmup", "1", "--iters", "2", "--weights", "w.safetensors")
    simulate = ("simulate", "x.dag.json", "--against", "r.json", "--critical-path", "--json", "p.json")
    for command in ((*run, "--report", "r.json"), simulate):
        done = helixctl(*command, cwd=folder)
        assert done.status == 0, done.err
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "r.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def prediction(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "p.json").read_text())  # type: ignore[no-any-return]


def test_every_figure_is_named() -> None:
    assert rows(SECTIONS["Figures"], 0) == no_figures().keys()


def test_every_key_of_a_report_is_named(report: dict[str, Any]) -> None:
    assert report["check"]["passed"]
    assert report["weights"]
    assert set(keys(report)) - named(SECTIONS["Report"]) == set()
    assert report.keys() == rows(SECTIONS["Report"], 0)


def test_every_key_of_a_comparison_is_named(report: dict[str, Any]) -> None:
    both = comparison(["a", "b"], [report, report])
    assert set(keys(both)) - named(SECTIONS["Report"]) == set()
    assert both.keys() == rows(SECTIONS["Report"], 1) | {"report", "format_version", "simulated"}


def test_every_key_of_a_generation_is_named(tmp_path: Path) -> None:
    plan = plan_of(SMALL, 2, 1, *TINY, "vocabulary.size=16", "workload.output_len=3")
    (tmp_path / "x.plan.json").write_text(plan.to_json())
    done = helixctl("run", "x.plan.json", "--warmup", "0", "--report", "r.json", cwd=tmp_path)
    assert done.status == 0, done.err
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["time_per_output_token_ms"]
    assert set(keys(report)) - named(SECTIONS["Report"]) == set()
    assert report.keys() | {"text"} == rows(SECTIONS["Report"], 2)
    both = comparison_of_generations(["a", "b"], Generations([report, other_tokens(report)], [Margins(4, 3)] * 2, []))
    assert both["comparison"][1]["parted"]
    assert set(keys(both)) - named(SECTIONS["Report"]) == set()
    assert both.keys() == rows(SECTIONS["Report"], 3)


def other_tokens(report: dict[str, Any]) -> dict[str, Any]:
    """The report of a plan that makes another last token in every sequence."""
    return report | {"tokens": [[*row[:-1], row[-1] + 1] for row in report["tokens"]]}


def test_every_key_of_a_sweep_is_named() -> None:
    schema = json.loads((ROOT / "schemas/sweep.report.schema.json").read_text())
    objects = [schema, *schema["$defs"].values()]
    assert {key for each in objects for key in each["properties"]} - named(SECTIONS["Report of a sweep"]) - named(
        SECTIONS["Figures"]
    ) == set()


def test_every_key_of_a_prediction_is_named(prediction: dict[str, Any]) -> None:
    assert set(keys(prediction)) - named(SECTIONS["Prediction"]) - named(SECTIONS["Report"]) == set()
    assert prediction["plans"][0].keys() == rows(SECTIONS["Prediction"], 0) | {"critical_path"}
