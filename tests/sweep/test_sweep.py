"""`helixctl sweep`: its points are what `plan` gives, in the table, the JSON and the CSV alike."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from helixctl.report.figures import no_figures
from helixctl.sweep import Sweep
from helixctl.sweep.csv_text import csv_text
from helixctl.units import human_bytes, human_seconds
from tests.cli.command import helixctl
from tests.documents import ROOT
from tests.sweep.swept import ASKED, LIMIT_S, LLAMA, Swept

FIGURES = (*no_figures(), "name", "layout")


def plan_json(*args: str | Path) -> dict[str, Any]:
    done = helixctl("plan", *args, "--json", "-")
    assert done.status == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


@pytest.mark.parametrize(("batch", "devices"), [(8, 4), (8, 1)])
def test_a_point_is_what_plan_gives(swept: Swept, batch: int, devices: int) -> None:
    """On a part of the cluster too, whose name is that of the part; and over the limit what is nearest to it."""
    point = next(p for p in swept.sweep.points if (p.batch, p.devices) == (batch, devices))
    ways = ASKED if point.state == "planned" else (*ASKED[:-2], "--objective", "tpot")
    where = [f"h100:1x{devices}" if text == "h100:1x4" else text for text in ways]
    planned = plan_json(*where, "--batch", str(batch), "--input-len", "256")
    assert {name: getattr(point, name) for name in FIGURES} == {name: planned["chosen"][name] for name in FIGURES}
    assert point.plan_digest == planned["plan_digest"]
    assert swept.sweep.model.digest == planned["model"]["digest"]
    assert point.output_tokens_per_s_per_device == planned["chosen"]["output_tokens_per_s"] / devices
    assert set(planned["sources"]) <= set(swept.sweep.sources)


def test_a_point_without_a_plan_has_the_error_of_plan(swept: Swept) -> None:
    point = next(p for p in swept.sweep.points if (p.batch, p.devices) == (64, 1))
    where = ["h100:1" if text == "h100:1x4" else text for text in ASKED]
    done = helixctl("plan", *where, "--batch", "64", "--input-len", "256")
    assert done.status == 1
    assert (point.state, point.layout, point.memory_nbytes) == ("refused", None, None)
    assert f"\n{point.code} {point.reason}\n" in done.err
    assert f"batch 64 on 1 device: {point.code} {point.reason}" in swept.said


def test_every_state_is_there_and_limits_are_kept(swept: Swept) -> None:
    points = swept.sweep.points
    by_state = {state: [p for p in points if p.state == state] for state in ("planned", "over_limit", "refused")}
    assert all(by_state.values())
    assert all((p.time_per_output_token_s or 1) <= LIMIT_S for p in by_state["planned"])
    assert all((p.time_per_output_token_s or 0) > LIMIT_S for p in by_state["over_limit"])
    assert {p.state for p in points if p.on_front} == {"planned"}


def test_the_table_has_the_figures(swept: Swept) -> None:
    lines = [line for line in swept.said.splitlines() if line[:1] in {"*", "!", " "}]
    rows = [line for line in lines if line.endswith(("GB", "MB", "-"))]
    assert len(rows) == len(swept.sweep.points)
    for point, row in zip(swept.sweep.points, rows, strict=True):
        assert row[1:].split()[:2] == [str(point.batch), str(point.devices)]
        assert row.startswith("*") == point.on_front
        assert row.startswith("!") == (point.state == "over_limit")
        if point.memory_nbytes is not None:
            assert point.terms is not None
            figures = (human_seconds(point.time_per_output_token_s or 0), f"{point.tokens_per_s_per_user:,.1f}",
                       f"{point.output_tokens_per_s_per_device:,.1f}", human_seconds(point.ttft_s or 0),
                       human_bytes(point.memory_nbytes))  # fmt: skip
            assert "".join(row.split()).endswith("".join([point.terms, *figures]).replace(" ", ""))
    assert all(len(line) <= 80 for line in rows)
    assert "not measured" in swept.said


def test_csv_has_the_figures_of_the_json(swept: Swept) -> None:
    text = (swept.folder / "x.csv").read_bytes().decode()
    assert text == csv_text(swept.sweep)
    rows = list(csv.DictReader(io.StringIO(text)))
    for point, row in zip(json.loads((swept.folder / "x.json").read_text())["points"], rows, strict=True):
        assert set(point) - {"layout"} == set(row)
        assert all(text == ("" if point[name] is None else str(point[name])) for name, text in row.items())


def test_it_can_be_read_back(swept: Swept) -> None:
    sweep = swept.sweep
    assert Sweep.model_validate_json(sweep.to_json()) == sweep
    schema = json.loads((ROOT / "schemas/sweep.report.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads(sweep.to_json()))
    assert (sweep.report, sweep.format_version, sweep.simulated) == ("helixctl sweep", "1.1", True)
    of_1_0 = json.loads(sweep.to_json()) | {"format_version": "1.0"}
    of_1_0["points"] = [{k: v for k, v in p.items() if k != "tokens_per_s_per_device"} for p in of_1_0["points"]]
    assert [p.on_front for p in Sweep.model_validate(of_1_0).points] == [p.on_front for p in sweep.points]
    assert sweep.provenance.sets == ("layers=2", "device.memory=1.6 GB", "vocabulary.size=4096")
    assert (sweep.provenance.model, sweep.provenance.plain) == ("Llama-3.1-8B", True)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--devices", "1-8"), "1-8 is no list: write 1,2,3,...,8"),
        (("--devices", "6"), "6 devices are no whole hosts of h100-2x4, whose hosts have 4: write 4 or 8"),
        (("--devices", "16"), "16 devices: h100-2x4 has 8"),
        (("-o", "x.svg"), "'x.svg': end the name with .html or .png"),
        (("--json", "-", "--csv", "-"), "--json and --csv cannot go to the same place"),
        (("--max-tpot", "30"), "has no unit"),
    ],
)
def test_what_is_refused(more: tuple[str, ...], said: str) -> None:
    done = helixctl("sweep", "Llama-3.1-8B", "h100:2x4", "--batch", "1", "--input-len", "8", "--output-len", "8", *more)
    assert done.status == 2
    assert said in done.err


def test_the_way_out_without_the_library(tmp_path: Path) -> None:
    """Before anything is planned; data need no library."""
    before = "import sys; sys.modules['vl_convert'] = None"
    args = ("sweep", *LLAMA, "--batch", "1", "--input-len", "8", "--output-len", "8")
    done = helixctl(*args, "-o", tmp_path / "x.html", before=before)
    assert (done.status, done.out) == (2, b"")
    assert "HX603 plots need the package vl-convert-python, which is not installed" in done.err
    assert "pip install 'helixctl[plots]'" in done.err
    done = helixctl(*args, "--csv", "-", "-q", before=before)
    assert done.status == 0
    assert done.out.startswith(b"batch,input_len,devices,")
