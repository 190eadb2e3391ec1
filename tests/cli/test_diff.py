"""helixctl diff: what differs between two plans, and what that is predicted to mean."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from helixctl.cli.diff import _Side
from helixctl.cli.documents import load_dag
from helixctl.dag import Dag
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.plan.compare import Difference, differences
from helixctl.simulate import forecast
from helixctl.verify import verify
from tests.cli.command import helixctl
from tests.documents import PAPER, PAPER_MOE, ROOT, SMALL, plan_of
from tests.runtime.models import real

OURS, THEIRS = "plans/paper/dense.4x4.plan.json", "plans/paper/dense.tp8-pp2.plan.json"
DAG = "plans/paper/dense.4x4.dag.json"


def test_the_axes_of_the_layout_come_first() -> None:
    done = helixctl("diff", OURS, THEIRS)
    assert (done.status, done.err) == (1, "")
    text = done.out.decode()
    lines = [line.split() for line in text.splitlines()]
    start = lines.index(["layout", "A", "B"])
    assert lines[start + 1 : start + 6] == [
        ["groups", "4", "8"],
        ["slices", "4", "1"],
        ["combine", "concat", "reduce"],
        ["pipeline", "1", "2"],
        ["microbatches", "1", "4"],
    ]
    assert "the specs are the same" in text
    assert text.index("predicted  ") > text.index("the specs")
    assert "not measured" in text


def test_the_docs_show_what_is_printed() -> None:
    shown = [line.rstrip() for line in (ROOT / "docs/ci.md").read_text().splitlines()]
    printed = [line.rstrip() for line in helixctl("diff", OURS, THEIRS).out.decode().splitlines()]
    start = shown.index(printed[0])
    assert shown[start : start + len(printed)] == printed


def test_equal_plans() -> None:
    for a, b in ((OURS, OURS), (OURS, DAG), (DAG, DAG)):
        done = helixctl("diff", a, b)
        assert (done.status, done.err) == (0, "")
        assert "the plans are equal" in done.out.decode()
    assert helixctl("diff", OURS, "-", stdin=(ROOT / OURS).read_bytes()).status == 0


def test_numbers_are_those_of_the_simulation() -> None:
    done = helixctl("diff", OURS, THEIRS, "-f", "json")
    assert (done.status, done.err) == (1, "")
    found = json.loads(done.out)
    assert (found["equal"], found["simulated"]) == (False, True)
    assert found["layout"][0] == {"axis": "groups", "a": 4, "b": 8}
    assert found["specs"] == []
    for side, path in (("a", OURS), ("b", THEIRS)):
        want = forecast(load_dag(str(ROOT / path)))
        assert found[side]["file"] == path
        assert found["predicted"]["step_time_ms"][side] == pytest.approx(want.step_s * 1e3)
        assert found["predicted"]["tokens_per_s"][side] == pytest.approx(want.tokens_per_s)
        assert found["predicted"]["memory_nbytes"][side] == want.memory_nbytes
        assert found["predicted"]["received_nbytes_per_rank"][side] == want.received_nbytes
    step = found["predicted"]["step_time_ms"]
    assert step["ratio"] == pytest.approx(step["b"] / step["a"])


def test_specs_that_differ_are_named_by_field() -> None:
    found = json.loads(helixctl("diff", OURS, "plans/paper/moe.4x4.plan.json", "-f", "json").out)
    assert [row["field"] for row in found["specs"]] == [
        "model.name",
        "model.feed_forward.experts.count",
        "model.feed_forward.experts.top_k",
        "model.feed_forward.experts.renormalise",
    ]
    assert found["specs"][1] == {"field": "model.feed_forward.experts.count", "a": None, "b": 8}


def test_other_workloads_are_warned_of(tmp_path: Path) -> None:
    other = tmp_path / "[b].plan.json"
    other.write_text(plan_of(SMALL, 4, 4, "workload.batch=32", "device.name='a [bold] device'").to_json())
    done = helixctl("diff", "plans/small/dense.4x4.plan.json", other)
    assert done.status == 1
    assert "the workloads differ" in done.out.decode()
    assert "a [bold] device" in done.out.decode()
    assert "the layout is the same" in done.out.decode()


def test_dags_of_one_plan_that_are_not_the_same(tmp_path: Path) -> None:
    """Another legal order of one rank's tasks: it does not matter which of q and k is normalised first."""
    dag = real(2, 1)
    (tmp_path / "a.dag.json").write_text(dag.to_json())
    (tmp_path / "b.dag.json").write_text(_reordered(dag).to_json())
    done = helixctl("diff", tmp_path / "a.dag.json", tmp_path / "b.dag.json")
    assert done.status == 1, done.err
    assert "the plans are equal, and the dags differ in their tasks" in done.out.decode()


def _reordered(dag: Dag) -> Dag:
    first = list(dag.order[0])
    for i in range(len(first) - 1):
        order = (*first[:i], first[i + 1], first[i], *first[i + 2 :])
        other = replace(dag, order=(tuple(order), *dag.order[1:]))
        if not verify(other):
            return other
    raise AssertionError


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("nowhere.json", "HX101"),
        ("plans/paper/dense.model.yaml", "HX110"),
        ("tests/invalid/HX302-edited-model.plan.json", "HX302"),
        ("tests/invalid/HX406-region-moved.dag.json", "HX406"),
    ],
)
@pytest.mark.parametrize("output_format", ["text", "json"])
def test_trouble_is_2_whatever_the_code(path: str, code: str, output_format: str) -> None:
    done = helixctl("diff", OURS, path, "-f", output_format)
    assert (done.status, done.out) == (2, b"")
    assert code in done.err
    both = helixctl("diff", path, "nothing.json")
    assert both.status == 2
    assert code in both.err
    assert "nothing.json: HX101" in both.err


def test_quiet_and_usage() -> None:
    done = helixctl("diff", OURS, THEIRS, "-q")
    assert (done.status, done.out, done.err) == (1, b"", "")
    assert helixctl("diff", "-", "-").status == 2
    assert helixctl("diff", OURS).status == 2


def test_compare_names_fields_that_only_one_plan_has() -> None:
    dense, moe = plan_of(PAPER, 4, 4), plan_of(PAPER_MOE, 4, 4)
    found = {f"{d.part}.{d.field}": d.texts for d in differences(dense, moe)}
    assert found["model.feed_forward.experts.count"] == ("-", "8")
    back = {f"{d.part}.{d.field}": d.texts for d in differences(moe, dense)}
    assert back == {field: (b, a) for field, (a, b) in found.items()}
    assert differences(dense, dense) == []


def test_compare_tells_long_lists_apart() -> None:
    assert Difference("cluster", "x", ([1] * 50, [2] * 50)).texts == ("50 items", "50 items, others")
    assert Difference("cluster", "x", ([1, 2], True)).texts == ("[1, 2]", "true")


def test_compare_names_digests_only_where_the_specs_are_equal() -> None:
    plan = plan_of(SMALL, 4, 4)
    digests = {"digests": {"model": "x", "cluster": "y", "workload": "z"}}
    edited = Plan.model_validate(plan.model_dump(by_alias=True, mode="json") | digests)
    assert [f"{d.part}.{d.field}" for d in differences(plan, edited)] == [
        "digests.model",
        "digests.cluster",
        "digests.workload",
    ]
    assert [d.field for d in differences(plan, plan_of(SMALL, 4, 4, "norm.eps=1e-6"))] == ["norm.eps"]


@pytest.mark.parametrize("axes", [{"pipeline": 2, "groups": 8}, {"groups": 4, "slices": 4}, {"data": 4, "groups": 4}])
def test_a_plan_is_priced_as_its_dag_is(axes: dict[str, int]) -> None:
    layout = Layout.model_validate({"slices": 1} | axes)
    others = {k: v for k, v in axes.items() if k not in {"groups", "slices"}}
    plan = plan_of(PAPER, layout.groups, layout.slices, **others)
    assert _Side("x", plan).forecast.step_s == pytest.approx(forecast(lower(plan)).step_s)
    assert _Side("x", plan).forecast.memory_nbytes == forecast(lower(plan)).memory_nbytes
