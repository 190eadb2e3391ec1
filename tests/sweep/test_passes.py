"""`helixctl sweep` of one pass: step time against what a device gives, in the table, the data and the plots alike."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

import helixctl as api
from helixctl.sweep import Sweep
from helixctl.sweep.charts import charts
from helixctl.units import human_bytes, human_seconds
from tests.cli.command import helixctl
from tests.sweep.swept import Swept
from tests.sweep.test_sweep import FIGURES, plan_json

SMALL = ("Llama-3.1-8B", "h100:1x4", "--set", "layers=1", "--set", "vocabulary.size=4096", "--plain")


@pytest.fixture(scope="module")
def passes(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    folder = tmp_path_factory.mktemp("passes")
    files = ("--json", folder / "x.json", "--csv", folder / "x.csv")
    done = helixctl("sweep", *SMALL, "--batch", "1,8", "--seq-len", "256,1024", "--devices", "2,4", *files)
    assert done.status == 0, done.err
    return Swept(Sweep.model_validate_json((folder / "x.json").read_text()), done.said, folder)


def test_a_point_is_what_plan_gives(passes: Swept) -> None:
    point = next(p for p in passes.sweep.points if (p.batch, p.input_len, p.devices) == (8, 1024, 2))
    where = [f"h100:1x{point.devices}" if text == "h100:1x4" else text for text in SMALL]
    planned = plan_json(*where, "--batch", "8", "--seq-len", "1024")
    assert {name: getattr(point, name) for name in FIGURES} == {name: planned["chosen"][name] for name in FIGURES}
    assert point.plan_digest == planned["plan_digest"]
    assert point.tokens_per_s_per_device == planned["chosen"]["tokens_per_s"] / 2
    assert passes.sweep.output_len is None
    assert point.output_tokens_per_s_per_device is None


def test_the_front_weighs_step_time_against_what_a_device_gives(passes: Swept) -> None:
    for point in passes.sweep.points:
        alike = [p for p in passes.sweep.points if p.input_len == point.input_len]
        beaten = any(
            p.step_s <= point.step_s
            and p.tokens_per_s_per_device >= point.tokens_per_s_per_device
            and p.rates != point.rates
            for p in alike
            if p.step_s and point.step_s and p.tokens_per_s_per_device and point.tokens_per_s_per_device
        )
        assert point.on_front == (not beaten)
    assert 0 < sum(p.on_front for p in passes.sweep.points) < len(passes.sweep.points)


def test_the_table_has_the_figures(passes: Swept) -> None:
    rows = [line for line in passes.said.splitlines() if line[:1] in {"*", " "} and line.endswith(("GB", "MB"))]
    assert len(rows) == len(passes.sweep.points)
    for point, row in zip(passes.sweep.points, rows, strict=True):
        assert row.startswith("*") == point.on_front
        place = (f"{point.input_len:,}", str(point.batch), str(point.devices), point.terms or "")
        figures = (human_seconds(point.step_s or 0), f"{point.tokens_per_s:,.0f}",
                   f"{point.tokens_per_s_per_device:,.1f}", human_seconds(point.exposed_s or 0),
                   human_bytes(point.memory_nbytes or 0))  # fmt: skip
        assert "".join(row[1:].split()) == "".join([*place, *figures]).replace(" ", "")
    assert "one pass over sequences of 256 or 1,024 tokens" in passes.said


def test_csv_has_the_figures_of_the_json(passes: Swept) -> None:
    rows = list(csv.DictReader(io.StringIO((passes.folder / "x.csv").read_text())))
    assert [float(row["tokens_per_s_per_device"]) for row in rows] == [
        p.tokens_per_s_per_device for p in passes.sweep.points
    ]
    assert {row["ttft_s"] for row in rows} == {""}


def titles(found: Any) -> list[str]:
    """The titles of the plots."""
    each = [*found["vconcat"][:1], *found["vconcat"][1]["hconcat"], *found["vconcat"][2:]]
    return [plot["title"]["text"] for plot in each]


def test_the_plots_are_of_a_pass(passes: Swept) -> None:
    found = charts(passes.sweep)
    assert titles(found) == [
        "How long a step takes, and what a device gives",
        "Scaling over devices",
        "Step time",
        "Memory of the fullest device",
    ]
    assert found["vconcat"][0]["layer"][1]["encoding"]["x"]["title"] == "step time, seconds"
    text = json.dumps(found)
    for foreign in ("of a user", "of all users", "TTFT", "first token", "prompt"):
        assert foreign not in text


@pytest.mark.sweep
def test_page_and_picture_are_of_a_pass(passes: Swept) -> None:
    pytest.importorskip("vl_convert", reason="the extra plots is not installed")
    from helixctl.sweep.page import html
    from helixctl.sweep.picture import png

    page = html(passes.sweep)
    heads = ("sequence", "batch", "devices", "layout", "step", "tokens/s of all", "tokens/s of a device")
    assert "".join(f"<th>{head}</th>" for head in heads) in page
    assert "step time, tokens/s of a device" in page
    assert png(passes.sweep).startswith(b"\x89PNG")


@pytest.mark.parametrize(("kept", "by"), [("batch", "batch"), ("input_len", "input_len"), ("devices", "devices")])
def test_plots_go_along_what_is_swept(kept: str, by: str, passes: Swept) -> None:
    """One list of several numbers: batches, lengths or devices."""
    first = passes.sweep.points[0]
    others = [name for name in ("batch", "input_len", "devices") if name != kept]
    points = [p for p in passes.sweep.points if all(getattr(p, name) == getattr(first, name) for name in others)]
    assert len(points) == 2
    found = charts(passes.sweep.model_copy(update={"points": tuple(points)}))
    time = found["vconcat"][1]["hconcat"][1]
    assert time["layer"][0]["encoding"]["x"]["field"] == by
    assert found["vconcat"][2]["spec"]["layer"][0]["encoding"]["x"]["field"] == by
    labels = [row["label"] for row in found["datasets"]["points"] if row["front"]]
    assert labels == [f"{p.terms} · {getattr(p, by):,}" for p in points if p.on_front]


def test_the_function_gives_what_the_command_writes(passes: Swept) -> None:
    model = api.load("Llama-3.1-8B", ["layers=1", "vocabulary.size=4096"])
    cluster = api.load("h100:1x4")
    assert isinstance(model, api.ModelDocument)
    assert isinstance(cluster, api.ClusterSpec)
    seen: list[tuple[int, Any]] = []
    made = api.make_sweep(
        model, cluster, batches=[8], lengths=[256], devices=[2, 4], plain=True, watch=lambda *its: seen.append(its)
    )
    assert made.points == tuple(
        replace_front(p, made) for p in passes.sweep.points if (p.batch, p.input_len) == (8, 256)
    )
    assert [(done, place.devices) for done, place in seen] == [(0, 2), (1, 4)]
    default = api.make_sweep(model, cluster, plain=True).points
    work = model.workload
    assert [(p.batch, p.input_len, p.devices) for p in default] == [(work.batch, work.seq_len, 4)]
    with pytest.raises(ValueError, match="of a generation"):
        api.make_sweep(model, cluster, max_tpot_s=0.01)


def replace_front(point: api.Point, of: api.Sweep) -> api.Point:
    """The point with what the front of fewer points says of it."""
    same = next(p for p in of.points if p.devices == point.devices)
    return point.model_copy(update={"on_front": same.on_front})


@pytest.mark.parametrize("more", [("--max-tpot", "30ms"), ("--max-ttft", "1s"), ("--objective", "ttft")])
def test_what_only_a_generation_has_is_refused(more: tuple[str, str], tmp_path: Path) -> None:
    done = helixctl("sweep", *SMALL, "--batch", "1", *more, cwd=tmp_path)
    assert done.status == 2
    assert f"{more[0]}{' ttft' if more[1] == 'ttft' else ''} is of a generation; give --output-len N" in done.err
