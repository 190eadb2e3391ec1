"""The results of runs on gloo ranks: spans, what the report says of them, and dags side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from helixctl.cli.measurements import different_work
from helixctl.cli.run import _names
from helixctl.dag import Attention, Dag
from helixctl.errors import HelixError
from helixctl_runtime import kernels
from helixctl_runtime.run import Options, Result, run
from tests.cli.command import helixctl
from tests.documents import SMALL, dag_of

QUICK = Options(warmup=1, iters=3, trace_steps=1)
LAYERS = "layers=2"


def run_here(dags: Sequence[Dag], options: Options = QUICK) -> list[Result]:
    results = run(dags, [str(d.plan.layout) for d in dags], options, device="cpu", timeout=30)
    assert results is not None
    return results


@pytest.fixture(scope="module")
def dag() -> Dag:
    """Stages, microbatches, sums: rank 0 sends while it computes."""
    return dag_of(SMALL, 2, 1, LAYERS, pipeline=2, microbatches=2, combine="reduce")


@pytest.fixture(scope="module")
def ran(dag: Dag) -> Result:
    return run_here([dag])[0]


def test_every_task_has_a_span_on_each_of_its_ranks(dag: Dag, ran: Result) -> None:
    assert [(s.task, s.rank) for s in ran.spans] == [(n, r) for r, order in enumerate(dag.order) for n in order]
    assert all(s.lane == dag.task[s.task].lane for s in ran.spans)
    assert all(0 <= s.begin_s <= s.end_s for s in ran.spans)


def test_a_rank_computes_one_task_at_a_time(dag: Dag, ran: Result) -> None:
    for rank in range(len(dag.order)):
        computing = [s for s in ran.spans if s.rank == rank and s.lane == "compute"]
        assert all(a.end_s <= b.begin_s for a, b in pairwise(computing))


def test_a_task_begins_when_its_inputs_are_there(dag: Dag, ran: Result) -> None:
    """All ranks are of one host and have one clock."""
    span = {(s.task, s.rank): s for s in ran.spans}
    for task in dag.tasks:
        for before in dag.predecessors(task) if not task.is_collective else ():
            assert span[before.id, task.ranks[0]].end_s <= span[task.id, task.ranks[0]].begin_s


def test_the_report_is_of_the_spans(dag: Dag, ran: Result) -> None:
    """Of one traced step, sums over spans are what the report says."""
    report, ranks = ran.report, len(dag.order)
    for row in report["kinds"]:
        mine = [s for s in ran.spans if (dag.task[s.task].level, dag.task[s.task].kind) == (row["level"], row["kind"])]
        assert row["busy_ms"] == pytest.approx(sum(s.end_s - s.begin_s for s in mine) / ranks * 1e3)
        assert row["tasks"] == len({s.task for s in mine})
        assert {row["lane"]} == {s.lane for s in mine}
        assert (row["exposed_ms"] > 0) == (row["lane"] == "communication")
    assert sum(row["tasks"] for row in report["kinds"]) == len(dag.tasks)
    on_their_way = sum(row["busy_ms"] for row in report["kinds"] if row["lane"] == "communication")
    assert 0 < report["communication"]["hidden_ms"] < on_their_way
    assert 0 < report["busy_share"] < 1
    assert (report["iters"], report["trace_steps"]) == (3, 1)


def test_dags_side_by_side() -> None:
    """Every plan's groups and programs on the same ranks: each one's output is checked, also where groups differ."""
    dags = [dag_of(SMALL, 4, 1, LAYERS), dag_of(SMALL, 2, 2, LAYERS)]
    results = run_here(dags, Options(warmup=1, iters=2, check=True))
    for dag, result in zip(dags, results, strict=True):
        assert result.report["dag_digest"] == dag.digest
        assert result.report["check"]["passed"]
        assert result.report["step_time_ms"]["n"] == 2
        assert result.report["trace_steps"] == 2
        assert {s.task for s in result.spans} == dag.task.keys()


def test_a_failure_names_the_task_and_its_dag(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = kernels.attention

    def attention(
        op: Attention, qkv: Sequence[torch.Tensor], start: int, out: torch.Tensor, *more: Any
    ) -> kernels.Step:
        run, narrow = plain(op, qkv, start, out, *more), out.shape[-1] < 32

        def step() -> None:
            if narrow:
                raise ValueError("narrow")
            run()

        return step

    monkeypatch.setattr(kernels, "attention", attention)
    with pytest.raises(HelixError, match=r"HX510 rank 0 .* l0\.attend\.g0s0 \(1 x 2\) of step 0: ValueError: narrow"):
        run_here([dag_of(SMALL, 2, 1, LAYERS), dag_of(SMALL, 1, 2, LAYERS)])


def write(path: Path, *axes: int, **more: int) -> Path:
    path.write_text(dag_of(SMALL, *axes, LAYERS, **more).to_json())
    return path


def test_compare(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.dag.json", 4, 1), write(tmp_path / "b.dag.json", 2, 2)
    done = helixctl("run", "--compare", one, other, "--warmup", "1", "--iters", "3", "--check", "--report", "-")
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert report["report"] == "helixctl run --compare"
    first, second = report["comparison"]
    assert [first["method"], second["method"]] == ["4 x 1", "2 x 2"]
    assert (first["tokens_per_s_change"], first["sync_overhead_change"]) == (0, 0)
    assert [m["layout"]["groups"] for m in report["methods"]] == [4, 2]
    for row, method in zip(report["comparison"], report["methods"], strict=True):
        assert row["tokens_per_s"] == method["tokens_per_s"]
        assert row["step_time_ms"]["p10"] <= row["step_time_ms"]["p50"] <= row["step_time_ms"]["p90"]
    change = second["tokens_per_s"] / first["tokens_per_s"] - 1
    assert second["tokens_per_s_change"] == pytest.approx(change)
    assert f"{change:+.1%} TPS" in done.err
    assert "4 x 1: check passed" in done.err
    assert "2 x 2: check passed" in done.err
    assert "not the same" not in done.err


def test_dags_fordifferent_work_ranks_are_not_compared(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.dag.json", 2, 1), write(tmp_path / "b.dag.json", 1, 1)
    done = helixctl("run", "--compare", one, other)
    assert done.status == 2
    assert f"HX509 {one} is for 2 ranks, {other} for 1" in done.err
    assert "running" not in done.err


def test_other_work_is_named() -> None:
    one = dag_of(SMALL, 2, 1, LAYERS)
    assert different_work([one, dag_of(SMALL, 1, 2, LAYERS)]) == ""
    assert different_work([one, dag_of(SMALL, 2, 1, "layers=1")]) == "model"
    assert different_work([one, one, dag_of(SMALL, 2, 1, "layers=1", "workload.batch=4")]) == "model and workload"


def test_dags_are_told_apart_by_layout_or_file() -> None:
    one, other = dag_of(SMALL, 2, 1, LAYERS), dag_of(SMALL, 1, 2, LAYERS)
    assert _names(["a", "b"], [one, other]) == ["2 x 1", "1 x 2"]
    assert _names(["a", "b"], [one, dag_of(SMALL, 2, 1)]) == ["a", "b"]


def test_the_trace(tmp_path: Path) -> None:
    """Chrome's trace format: for every rank a thread that computes and one that communicates."""
    path = write(tmp_path / "x.dag.json", 2, 1)
    done = helixctl("run", path, "--warmup", "1", "--iters", "3", "--trace", tmp_path / "t.json")
    assert done.status == 0, done.err
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    lanes = {(e["pid"], e["tid"]) for e in events if e["ph"] == "X"}
    assert len(lanes) == 2 * 2
    assert sum(e["ph"] == "X" for e in events) == sum(map(len, dag_of(SMALL, 2, 1, LAYERS).order))
