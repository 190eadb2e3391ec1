"""The trace: valid JSON, a process per rank, a thread per lane, and spans that never overlap on one of them."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from helixctl.emit.trace import Trace, spans_of_traces, trace_json, traces_json
from helixctl.simulate import simulate
from tests.documents import PAPER, SMALL, dag_of, tiny

DAG = dag_of(SMALL, 2, 2, pipeline=2, data=2, microbatches=2)
SPANS = simulate(DAG).spans


def events(text: str, phase: str) -> list[dict[str, Any]]:
    return [event for event in json.loads(text)["traceEvents"] if event["ph"] == phase]


def test_every_span_is_an_event_on_the_track_of_its_rank_and_lane() -> None:
    text = trace_json(DAG, SPANS, simulated=True, title="a plan")
    found = events(text, "X")
    assert len(found) == len(SPANS) == sum(len(order) for order in DAG.order)
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events(text, "M") if e["name"] == "thread_name"}
    for span, event in zip(SPANS, found, strict=True):
        task = DAG.task[span.task]
        assert (event["name"], event["pid"]) == (span.task, span.rank)
        assert names[event["pid"], event["tid"]] == event["cat"] == span.lane
        assert abs(event["ts"] - span.begin_s * 1e6) < 1e-3
        assert [event["args"][key] for key in ("level", "kind", "layer")] == [task.level, task.kind, task.layer]
        assert event["args"]["nbytes"] == task.nbytes
        assert event["args"].get("flops", 0) == task.flops


def test_no_two_events_of_a_track_overlap() -> None:
    tracks: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in events(trace_json(DAG, SPANS, simulated=True, title="a plan"), "X"):
        tracks.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
    assert len(tracks) == 2 * 16
    for found in tracks.values():
        assert all(a[1] <= b[0] + 1e-6 for a, b in pairwise(sorted(found)))


def test_processes_are_named_for_their_place() -> None:
    def names(text: str) -> dict[int, str]:
        return {e["pid"]: e["args"]["name"] for e in events(text, "M") if e["name"] == "process_name"}

    paper = dag_of(PAPER, 4, 4)
    found = names(trace_json(paper, (), simulated=True, title="x"))
    assert found[3] == "rank 3 (group 0, slice 3)"
    assert found[15] == "rank 15 (group 3, slice 3)"
    assert names(trace_json(DAG, (), simulated=True, title="x"))[13] == (
        "rank 13 (stage 1, replica 1, group 0, slice 1)"
    )


def test_it_says_whether_it_was_measured() -> None:
    for simulated, word in ((True, "simulated"), (False, "measured")):
        assert json.loads(trace_json(DAG, (), simulated=simulated, title="x"))["otherData"]["times"] == word


def test_several_plans_stand_one_under_the_other() -> None:
    one, two = tiny(2, 1), tiny(1, 2)
    traces = [Trace(title, dag, simulate(dag).spans, simulated=True) for title, dag in (("one", one), ("two", two))]
    text = traces_json(traces)
    assert text == traces_json(traces)
    assert {event["pid"] for event in events(text, "X")} == {0, 1, 2, 3}
    names = [e["args"]["name"] for e in events(text, "M") if e["name"] == "process_name"]
    assert names == [f"{title}: rank {r} (group {g}, slice {s})" for title, r, g, s in
                     (("one", 0, 0, 0), ("one", 1, 1, 0), ("two", 0, 0, 0), ("two", 1, 0, 1))]  # fmt: skip
    assert json.loads(text)["otherData"] == {"times": "simulated", "plans": "one; two"}


def test_every_kind_has_one_colour_and_kinds_that_move_data_have_their_own() -> None:
    colours: dict[str, set[str]] = {}
    for event in events(trace_json(DAG, SPANS, simulated=True, title="x"), "X"):
        colours.setdefault(event["args"]["kind"], set()).add(event["cname"])
    assert all(len(found) == 1 for found in colours.values())
    assert colours["linear"] != colours["attention"] != colours["norm"]
    moves = {task.kind for task in DAG.tasks if task.is_collective}
    assert len({next(iter(colours[kind])) for kind in moves}) == len(moves)
    computing = set().union(*(colours[kind] for kind in set(colours) - moves))
    assert computing.isdisjoint(set().union(*(colours[kind] for kind in moves)))


def test_arrows_join_the_lanes_of_a_rank_and_the_ranks_of_a_transfer() -> None:
    text = trace_json(DAG, SPANS, simulated=True, title="x")
    spans = events(text, "X")
    ends = [{event["id"]: event for event in events(text, phase)} for phase in "sf"]

    def bound(event: dict[str, Any]) -> str:
        """The task of the span in which an end of an arrow lies."""
        track = [span for span in spans if (span["pid"], span["tid"]) == (event["pid"], event["tid"])]
        (span,) = [s for s in track if s["ts"] - 1e-6 <= event["ts"] < s["ts"] + s["dur"]]
        return str(span["name"])

    assert ends[0].keys() == ends[1].keys()
    found = set()
    for number, source in ends[0].items():
        target = ends[1][number]
        assert source["ts"] <= target["ts"] + 1e-6
        assert target["bp"] == "e"  # the span around its end, not the next that begins
        found.add((bound(source), source["pid"], bound(target), target["pid"]))
    expected = set()
    for task in DAG.tasks:
        for rank in task.ranks:
            for value in DAG.ends[task.id][rank][0]:
                maker = DAG.producer.get(value)
                if maker is not None and maker.lane != task.lane:
                    expected.add((maker.id, rank, task.id, rank))
        if task.kind == "send_receive":
            expected.add((task.id, task.ranks[0], task.id, task.ranks[1]))
    assert found == expected
    assert any(source[1] != target for *source, _, target in found)


def test_a_trace_is_read_back() -> None:
    one, two = tiny(2, 1), tiny(1, 2)
    traces = [Trace(title, dag, simulate(dag).spans, simulated=False) for title, dag in (("one", one), ("two", two))]
    read = spans_of_traces(traces_json(traces))
    assert read is not None
    for trace, found in zip(traces, read, strict=True):
        for span, again in zip(trace.spans, found, strict=True):
            assert (again.task, again.rank, again.lane) == (span.task, span.rank, span.lane)
            assert again.begin_s == pytest.approx(span.begin_s, abs=1e-9)
            assert again.end_s == pytest.approx(span.end_s, abs=2e-9)
    assert spans_of_traces('{"report": "helixctl run"}') is None
    assert spans_of_traces("x: 1") is None
