"""The pictures as text: svg and dot contain every task, and no text of a document can break out of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree as ET

import networkx as nx
import pytest
from click.testing import CliRunner

from helixctl.cli.main import cli
from helixctl.cli.page import Measured, views_of
from helixctl.dag import Dag, Level
from helixctl.emit import FORMATS, emit
from helixctl.emit.html import html
from helixctl.emit.lanes import Box, Lanes, arrange
from helixctl.emit.svg import COLOURS, OVERHANG, xml_text
from helixctl.emit.text_width import fit, text_width
from helixctl.errors import HelixError
from helixctl.lower import lower
from helixctl.output import write_output
from tests.documents import ROOT, SMALL, dag_of
from tests.emit.examples import LAYOUTS, example, hostile_dag, paper_dag, paper_plan

SVG = "{http://www.w3.org/2000/svg}"
SHAPES = [(4, 4), (1, 1), (16, 1), (1, 4), (8, 2), (4, 1)]

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")


def boxes_by_id(lanes: Lanes) -> dict[str, Box]:
    return {box.task.id: box for box in lanes.boxes}


# Lanes


@pytest.mark.parametrize(("groups", "slices"), SHAPES)
def test_no_two_boxes_overlap(groups: int, slices: int) -> None:
    lanes = arrange(paper_dag(groups, slices))
    for column in lanes.columns:
        stack = sorted((box.y, box.bottom) for box in lanes.boxes if column.rank in box.ranks)
        assert all(upper[1] < lower_[0] for upper, lower_ in pairwise(stack))


@pytest.mark.parametrize(("groups", "slices"), SHAPES)
def test_every_dependency_is_drawn_and_points_down(groups: int, slices: int) -> None:
    dag = paper_dag(groups, slices)
    lanes = arrange(dag)
    drawn = {(lanes.boxes[e.source].task.id, lanes.boxes[e.target].task.id) for e in lanes.edges}
    assert drawn == {(p.id, task.id) for task in dag.tasks for p in dag.predecessors(task)}
    for edge in lanes.edges:
        for line in edge.lines:
            assert line[0][1] == lanes.boxes[edge.source].bottom
            assert line[-1][1] == lanes.boxes[edge.target].y
            assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(line))
            assert all(a[1] <= b[1] for a, b in pairwise(line))


def test_the_same_task_of_all_ranks_is_one_row() -> None:
    boxes = boxes_by_id(arrange(paper_dag(4, 4)))
    for name in ("distribute.norm", "distribute.qkv", "attend", "project.linear", "feed_forward.down"):
        rows = {boxes[f"l1.{name}.g{g}s{s}"].y for g in range(4) for s in range(4)}
        assert len(rows) == 1


def test_the_three_levels_of_the_paper() -> None:
    lanes = arrange(paper_dag(4, 4))
    boxes = boxes_by_id(lanes)
    assert [level.label for level in lanes.levels[:3]] == ["distribute", "attend", "concat"]
    hosts, groups = lanes.heading.brackets
    assert [group.label for group in groups.spans] == [f"group {g}" for g in range(4)]
    assert [group.note for group in groups.spans] == [f"heads {h}:{h + 4}" for h in (0, 4, 8, 12)]
    assert [host.label for host in hosts.spans] == ["host 0", "host 1"]
    assert [column.words for column in lanes.columns] == [(f"GPU {r}", f"slice {r % 4}") for r in range(16)]
    inside = [boxes[f"l0.concat.slices.g{g}"] for g in range(4)]
    assert len({box.y for box in inside}) == 1
    assert all(box.is_bar for box in inside)
    across = [boxes[f"l0.concat.groups.s{s}"] for s in range(4)]
    assert len({box.y for box in across}) == 4
    assert not any(box.is_bar for box in across)
    assert {"q, k, v: 1/16", "attention: 1/16", "attention: 1/4", "attention: whole", "down: partial sum"} <= {
        caption.label for caption in lanes.captions
    }


def test_columns_stand_further_apart_between_groups_and_between_hosts() -> None:
    columns = arrange(paper_dag(4, 4)).columns
    gaps = [b.x - a.right for a, b in pairwise(columns)]
    assert gaps[0] < gaps[3] < gaps[7]


# Every format


@pytest.mark.parametrize("output_format", ["html", "svg", "dot", "graphml", "json"])
def test_the_same_dag_gives_the_same_bytes(output_format: str) -> None:
    fresh = lower(paper_plan(4, 4))
    assert emit(fresh, output_format) == emit(paper_dag(4, 4), output_format)


def test_json_is_the_document() -> None:
    assert emit(paper_dag(1, 4), "json") == paper_dag(1, 4).to_json()


# svg


@pytest.mark.parametrize(("groups", "slices"), SHAPES)
def test_svg_has_one_box_for_every_task(groups: int, slices: int) -> None:
    dag = paper_dag(groups, slices)
    root = ET.fromstring(emit(dag, "svg"))
    tasks = [g for g in root.iter(f"{SVG}g") if (g.get("class") or "").startswith("task ")]
    assert [g.findtext(f"{SVG}title") for g in tasks] == [task.id for task in dag.tasks]
    for group, task in zip(tasks, dag.tasks, strict=True):
        assert (group.get("class") or "").split() == ["task", task.level, task.lane]
        assert all(text.text for text in group.iter(f"{SVG}text"))


def test_svg_names_levels_in_text_and_stays_inside_its_paper() -> None:
    root = ET.fromstring(emit(paper_dag(4, 4), "svg"))
    words = {text.text for text in root.iter(f"{SVG}text")}
    assert {"distribute", "attend", "concat", "project", "feed_forward", "layer 0", "layer 1"} <= words
    lanes = arrange(paper_dag(4, 4))
    assert int(root.get("width", 0)) > lanes.width
    assert int(root.get("height", 0)) > lanes.height


def test_svg_needs_nothing_from_outside() -> None:
    text = str(emit(paper_dag(4, 4), "svg"))
    assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]
    assert "url(" not in text
    assert "@import" not in text


def test_svg_of_one_layer() -> None:
    text = str(emit(paper_dag(4, 4), "svg", 1))
    assert "l1.attend.g0s0" in text
    assert "l0.attend.g0s0" not in text


def test_svg_of_hostile_text() -> None:
    text = emit(hostile_dag(), "svg")
    root = ET.fromstring(text.encode())
    assert not list(root.iter(f"{SVG}script"))
    assert not list(root.iter(f"{SVG}b"))
    assert any("</script>" in (title.text or "") for title in root.iter(f"{SVG}title"))


# dot


def plain(text: str) -> dict[str, tuple[float, float]]:
    """Node name -> position, as the real dot places it."""
    done = subprocess.run(["dot", "-Tplain"], input=text, capture_output=True, text=True, check=True)
    assert not done.stderr
    found = re.findall(r'^node ("(?:[^"\\]|\\.)*"|\S+) (\S+) (\S+)', done.stdout, re.MULTILINE)
    return {name.strip('"'): (float(x), float(y)) for name, x, y in found}


@needs_dot
@pytest.mark.parametrize(("groups", "slices"), SHAPES)
def test_dot_keeps_the_order_of_the_gpus(groups: int, slices: int) -> None:
    dag = paper_dag(groups, slices)
    places = plain(str(emit(dag, "dot")))
    assert {task.id for task in dag.tasks} <= places.keys()
    rows: dict[str, list[str]] = {}
    for task in dag.tasks:
        if not task.is_collective:
            rows.setdefault(task.id.rpartition(".")[0], []).append(task.id)
    for row in rows.values():
        assert len(row) == groups * slices
        xs = [places[task_id][0] for task_id in row]
        assert xs == sorted(set(xs))
        assert len({places[task_id][1] for task_id in row}) == 1


@needs_dot
def test_dot_has_every_dependency_once_and_no_other_edge() -> None:
    dag = paper_dag(4, 4)
    done = subprocess.run(["dot", "-Tplain"], input=emit(dag, "dot"), capture_output=True, text=True, check=True)
    edges = [line.replace('"', "").split()[1:3] for line in done.stdout.splitlines() if line.startswith("edge ")]
    expected = [[p.id, task.id] for task in dag.tasks for p in dag.predecessors(task)]
    assert sorted(edges) == sorted(expected)


@needs_dot
def test_dot_of_hostile_text() -> None:
    dag = hostile_dag()
    text = str(emit(dag, "dot"))
    assert len(plain(text)) > len(dag.tasks)
    done = subprocess.run(["dot", "-Tplain"], input=text, capture_output=True, text=True, check=True)
    edges = [line for line in done.stdout.splitlines() if line.startswith("edge ")]
    assert len(edges) == sum(len(dag.predecessors(task)) for task in dag.tasks)


# graphml


def read_back(text: object) -> nx.DiGraph[str]:
    return nx.read_graphml(BytesIO(str(text).encode()))


def test_graphml_is_the_graph_of_networkx() -> None:
    dag = dag_of(SMALL, 2, 2, "layers=2")
    back, graph = read_back(emit(dag, "graphml")), dag.to_networkx()
    assert list(back.nodes(data=True)) == list(graph.nodes(data=True))
    assert list(back.edges(data=True)) == list(graph.edges(data=True))
    assert {**back.graph} == {**graph.graph, "node_default": {}, "edge_default": {}}


def test_graphml_is_the_same_in_every_process() -> None:
    dag = dag_of(SMALL, 2, 1)
    script = (
        "from helixctl.emit import emit; from tests.documents import ROOT, SMALL, dag_of; import sys; "
        "sys.stdout.write(emit(dag_of(SMALL, 2, 1), 'graphml', 1))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT, env=env)
    assert done.stdout == emit(dag, "graphml", 1)


def test_graphml_of_one_layer() -> None:
    dag = dag_of(SMALL, 2, 1)
    graph = read_back(emit(dag, "graphml", 1))
    assert list(graph) == [task.id for task in dag.tasks if task.layer == 1]
    assert {layer for _, layer in graph.nodes(data="layer")} == {1}


def test_graphml_of_hostile_text() -> None:
    dag = hostile_dag()
    graph = read_back(emit(dag, "graphml"))
    assert list(graph) == [xml_text(task.id) for task in dag.tasks]
    assert graph.graph["model"] == xml_text(dag.plan.model.name)


@needs_dot
@pytest.mark.parametrize(("output_format", "magic"), [("png", b"\x89PNG\r\n"), ("pdf", b"%PDF-")])
def test_png_and_pdf(output_format: str, magic: bytes) -> None:
    data = emit(paper_dag(4, 4), output_format)
    assert isinstance(data, bytes)
    assert data.startswith(magic)
    assert not re.search(rb"/CreationDate \(D:[0-9]*[1-9]", data)


@pytest.mark.parametrize("output_format", ["png", "pdf"])
def test_without_graphviz_there_is_a_way_out(output_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(HelixError) as caught:
        emit(paper_dag(1, 4), output_format)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "HX512"
    assert ".html or .svg" in (diagnostic.hint or "")


# The command


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    path = tmp_path / "x.plan.json"
    path.write_text(paper_plan(4, 4).to_json())
    return path


@pytest.mark.parametrize("output_format", [f for f in FORMATS if f not in {"png", "pdf"}])
def test_the_suffix_tells_the_format(output_format: str, plan_file: Path) -> None:
    target = plan_file.with_name(f"picture.{output_format}")
    result = CliRunner().invoke(cli, ["visualize", str(plan_file), "-o", str(target)])
    assert result.exit_code == 0, result.output
    dag = paper_dag(4, 4)
    views = views_of(dag, None, Measured())  # a page has more than its dag
    assert target.read_text() == (html(dag, views=views) if output_format == "html" else emit(dag, output_format))
    assert result.stdout == ""
    assert re.fullmatch(rf"wrote {re.escape(str(target))}: 341 tasks, [0-9.]+ [kM]B\n", result.stderr)


def test_a_plan_and_its_dag_give_the_same_picture(plan_file: Path) -> None:
    dag_file = plan_file.with_name("x.dag.json")
    dag_file.write_text(paper_dag(4, 4).to_json())
    results = [CliRunner().invoke(cli, ["visualize", str(f), "-f", "svg", "-o", "-"]) for f in (plan_file, dag_file)]
    assert results[0].stdout == results[1].stdout == emit(paper_dag(4, 4), "svg")
    assert results[0].stderr == ""


def test_one_layer(plan_file: Path) -> None:
    target = plan_file.with_name("layer.svg")
    result = CliRunner().invoke(cli, ["visualize", str(plan_file), "-o", str(target), "--layer", "1"])
    assert ": 170 tasks," in result.stderr
    assert target.read_text() == emit(paper_dag(4, 4), "svg", 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "-"], "add -f/--format"),
        (["-o", "picture.bmp"], "add -f/--format"),
        (["-o", "picture"], "add -f/--format"),
        (["-o", "-", "-f", "bmp"], "'bmp'"),
        (["-o", "x.json", "--layer", "0"], "always whole"),
        (["-o", "x.svg", "--layer", "2"], "layers are 0 to 1"),
        ([], "'-o'"),
    ],
)
def test_usage(arguments: list[str], words: str, plan_file: Path) -> None:
    result = CliRunner().invoke(cli, ["visualize", str(plan_file), *arguments])
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_an_output_that_cannot_be_written(plan_file: Path) -> None:
    with pytest.raises(HelixError) as caught:
        write_output(str(plan_file / "below-a-file.svg"), "x")
    assert caught.value.diagnostics[0].code == "HX511"


def test_every_level_has_its_colour_everywhere() -> None:
    css = (files("helixctl.emit") / "page" / "page.css").read_text()
    for level in get_args(Level):
        assert level in COLOURS
        assert f".{level} {{" in css


@pytest.mark.parametrize("name", ["html", "svg", "dot"])
def test_a_pipeline_is_drawn(name: str) -> None:
    dag = dag_of(SMALL, 2, 1, "layers=2", pipeline=2, microbatches=2, data=2)
    text = str(emit(dag, name))
    assert all(task.id in text for task in dag.tasks)


def rows(dag: Dag) -> list[str]:
    """The heading from above: of each row the labels."""
    return [" ".join(span.label for span in row.spans) for row in arrange(dag).heading.brackets]


def test_every_replica_of_every_stage_has_its_own_groups() -> None:
    dag = dag_of(SMALL, 2, 2, pipeline=2, data=2)
    assert rows(dag) == [
        "stage 0 stage 1",
        "replica 0 replica 1 replica 0 replica 1",
        "group 0 group 1 group 0 group 1 group 0 group 1 group 0 group 1",
    ]
    drawn = str(emit(dag, "dot"))
    assert all(f'"cluster {number}"' in drawn for number in range(8))
    assert drawn.count("<B>group 0</B>") == 4


@pytest.mark.parametrize("name", LAYOUTS)
def test_brackets_nest_and_do_not_meet(name: str) -> None:
    lanes = arrange(example(name))
    above = [(0, lanes.width)]
    for row in lanes.heading.brackets:
        spans = [(span.start, span.stop) for span in row.spans]
        assert all(a[1] + 2 * OVERHANG < b[0] for a, b in pairwise(spans))
        assert all(any(left <= start and stop <= right for left, right in above) for start, stop in spans)
        above = spans


@pytest.mark.parametrize(
    ("layout", "brackets", "words"),
    [
        ("Megatron's 8 x 1", ["host 0 host 1", "stage 0 stage 1"], ("GPU 9", "group 1", "heads 2:4")),
        ("16 replicas", ["host 0 host 1"], ("GPU 9", "replica 9")),
        ("16 stages", ["host 0 host 1"], ("GPU 9", "stage 9")),
        ("more groups than KV heads", ["host 0 host 1"], ("GPU 9", "group 9", "heads 18:20")),
        ("a host for each device", ["group 0 group 1"], ("GPU 1", "host 1", "slice 1")),
        ("one device", [], ("rank 0",)),
    ],
)
def test_the_heading_names_what_there_is_several_of(layout: str, brackets: list[str], words: tuple[str, ...]) -> None:
    dag = example(layout)
    assert rows(dag) == brackets
    rank = int(words[0].split()[1])
    assert arrange(dag).columns[rank].words == words


def test_the_longest_label_that_fits_stands_on_a_bar() -> None:
    (send,) = [box for box in arrange(dag_of(SMALL, 1, 1, "layers=2", pipeline=2)).boxes if len(box.ranks) == 2]
    assert send.labels == ("send to rank 1",)
    wide = boxes_by_id(arrange(paper_dag(4, 4)))
    assert wide["l0.concat.slices.g1"].labels == ("gather attention along head_dim",)
    assert wide["l0.concat.groups.s1"].labels == ("gather",) * 4
    narrow = boxes_by_id(arrange(dag_of(SMALL, 2, 2)))
    assert narrow["l0.concat.slices.g1"].labels == ("gather attention",)


def test_a_link_between_stages_says_who_sends() -> None:
    boxes = boxes_by_id(arrange(example("Megatron's 8 x 1")))
    links = [box for box in boxes.values() if box.task.kind == "send_receive"]
    assert links
    assert all(box.labels == ("send", "receive") for box in links)


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("more groups than KV heads", "q: 1/16; k, v: 1/8"),
        ("query, 2 x 4", "q: 1/16; k, v: 1/4"),
        ("Megatron's 8 x 1", "projection: partial sum"),
    ],
)
def test_a_caption_says_each_tensor_s_share(name: str, caption: str) -> None:
    assert caption in {span.label for span in arrange(example(name)).captions}


def test_a_caption_of_uneven_pieces_says_from_where_to_where() -> None:
    captions = {span.label for span in arrange(dag_of(SMALL, 3, 1, "layers=1")).captions}
    assert "attention: 31% to 38%" in captions


def test_a_text_that_is_too_long_ends_in_an_ellipsis() -> None:
    assert fit("norm", 40, 10) == "norm"
    short = fit("a name of many words", 60, 10)
    assert short.endswith("\u2026")
    assert text_width(short, 10) <= 60
    assert fit("norm", 5, 10) == "\u2026"
