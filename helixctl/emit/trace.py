"""A timeline as a trace: the Chrome trace event format, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

One process per rank, with a thread per lane; one complete event ("X") per span, in microseconds since the step began,
in a colour of its kind. Arrows (flow events, "s" and "f") go from a task to one in the other lane of its rank that
reads what it makes, and from the rank that sends to the one that receives.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from helixctl.dag import Dag, Lane, SendReceive
from helixctl.dag.ops import wire_kind
from helixctl.dag.span import Span
from helixctl.emit.heading import team_words
from helixctl.records import record

# The names of colours that the format has, by kind of task: products, attention, experts, what moves between devices.
_COLOURS: Final = {
    "linear": "thread_state_running",
    "head_linear": "thread_state_running",
    "experts": "rail_animation",
    "attention": "rail_response",
    "cached_attention": "rail_response",
    "partial_attention": "rail_response",
    "cache_write": "rail_load",
    "all_reduce": "terrible",
    "reduce_scatter": "bad",
    "all_gather": "olive",
    "all_to_all": "yellow",
    "broadcast": "good",
    "send_receive": "black",
}
_OTHERS: Final = "generic_work"  # one element after the other: norms, sums, activations
_THREADS: Final[dict[Lane, int]] = {"compute": 1, "communication": 2}


@record
class Trace:
    """The spans of one dag, predicted or measured, under a title."""

    title: str
    dag: Dag
    spans: Iterable[Span]
    simulated: bool


def trace_json(dag: Dag, spans: Iterable[Span], *, simulated: bool, title: str) -> str:
    """The text of a trace file with one trace.

    Args:
        dag: the dag.
        spans: the spans of a step.
        simulated: the times are predicted, not measured.
        title: the title of the trace.
    """
    return traces_json([Trace(title, dag, spans, simulated)])


def traces_json(traces: Sequence[Trace]) -> str:
    """The text of a trace file with several traces, one below the other on one time axis; same input, same bytes."""
    times = sorted({"simulated" if trace.simulated else "measured" for trace in traces})
    other = {"times": " and ".join(times), "plans": "; ".join(trace.title for trace in traces)}
    events = ",\n".join(_text(event) for event in _events(traces))
    return f'{{"displayTimeUnit":"ms","otherData":{_text(other)},"traceEvents":[\n{events}\n]}}\n'


def spans_of_traces(text: str) -> list[list[Span]] | None:
    """The spans of each trace in a file that ``traces_json`` made of measured times; None: it is no trace.

    Args:
        text: of the file.
    """
    try:
        events = json.loads(text)["traceEvents"]
        names = {e["pid"]: e["args"]["name"] for e in events if (e["ph"], e["name"]) == ("M", "process_name")}
        complete = [event for event in events if event["ph"] == "X"]
        titles = {process: name.rpartition("rank ")[0] for process, name in names.items()}
        first = {title: min(p for p, its in titles.items() if its == title) for title in titles.values()}
        found: dict[str, list[Span]] = {title: [] for title in first}
        for event in complete:
            process, begin = event["pid"], event["ts"] / 1e6
            lane: Lane = "communication" if event["tid"] == _THREADS["communication"] else "compute"
            title = titles[process]
            span = Span(str(event["name"]), process - first[title], lane, begin, begin + event["dur"] / 1e6)
            found[title].append(span)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return list(found.values())


def _text(event: dict[str, Any]) -> str:
    return json.dumps(event, separators=(",", ":"))


def _events(traces: Sequence[Trace]) -> Iterator[dict[str, Any]]:
    first = 0  # process of a trace's rank 0
    arrow = 0
    for trace in traces:
        prefix = f"{trace.title}: " if len(traces) > 1 else ""
        for rank in range(len(trace.dag.order)):
            process = first + rank
            yield _named("process_name", process, {"name": prefix + _rank_name(trace.dag, rank)})
            yield _named("process_sort_index", process, {"sort_index": process})
            for lane, thread in _THREADS.items():
                yield _named("thread_name", process, {"name": lane}) | {"tid": thread}
                yield _named("thread_sort_index", process, {"sort_index": thread}) | {"tid": thread}
        spans = tuple(trace.spans)
        for span in spans:
            yield _complete(trace.dag, span, first + span.rank)
        for source, target in _flows(trace.dag, spans):
            arrow += 1
            yield from _arrow(arrow, source, target, first)
        first += len(trace.dag.order)


def _flows(dag: Dag, spans: Sequence[Span]) -> Iterator[tuple[Span, Span]]:
    """The spans that an arrow joins: of two lanes of a rank, or of the two ranks of a transfer."""
    at = {(span.task, span.rank): span for span in spans}
    for target in spans:
        task = dag.task[target.task]
        inputs = dag.ends[task.id][target.rank][0]
        makers = dict.fromkeys(dag.producer[value].id for value in inputs if value in dag.producer)
        for maker in makers:
            source = at.get((maker, target.rank))
            if source is not None and source.lane != target.lane:
                yield source, target
        if isinstance(task.op, SendReceive) and target.rank == task.ranks[1] and (task.id, task.ranks[0]) in at:
            yield at[task.id, task.ranks[0]], target


def _arrow(number: int, source: Span, target: Span, first: int) -> Iterator[dict[str, Any]]:
    """The two ends of an arrow. The format binds each to the span around its time; a span's end is not in it."""
    begin, end = round(source.begin_s * 1e9), round(source.end_s * 1e9)
    arrives = round(target.begin_s * 1e9)
    if source.task == target.task:  # data that passes from rank to rank does so while both have the task
        leaves, last = begin, round(target.end_s * 1e9) - 1
        arrives = max(arrives, min(begin, last))
    else:
        leaves = max(begin, end - 1)
    for phase, span, ns in (("s", source, leaves), ("f", target, arrives)):
        yield {
            "ph": phase,
            **({"bp": "e"} if phase == "f" else {}),
            "id": number,
            "name": source.task,
            "cat": "dependency",
            "pid": first + span.rank,
            "tid": _THREADS[span.lane],
            "ts": ns / 1000,
        }


def _named(what: str, process: int, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": process, "tid": 0, "args": args}


def _complete(dag: Dag, span: Span, process: int) -> dict[str, Any]:
    task = dag.task[span.task]
    # Both ends are rounded to the nanosecond, so that a span still ends where the next begins.
    begin, end = (round(s * 1e6, 3) for s in (span.begin_s, span.end_s))
    args: dict[str, Any] = {"level": task.level, "kind": task.kind, "layer": task.layer}
    args |= {"ranks": list(task.ranks)} if task.is_collective else {"flops": task.flops}
    return {
        "ph": "X",
        "name": task.id,
        "cat": span.lane,
        "pid": process,
        "tid": _THREADS[span.lane],
        "ts": begin,
        "dur": round(end - begin, 3),
        "cname": _COLOURS.get(wire_kind(task.op), _OTHERS),
        "args": args | {"nbytes": task.nbytes},
    }


def _rank_name(dag: Dag, rank: int) -> str:
    """``rank 3 (group 0, slice 3)``, with the stage and the replica if there are several."""
    layout = dag.plan.layout
    parts = [*team_words(layout, rank), f"group {layout.group_of(rank)}", f"slice {layout.slice_of(rank)}"]
    return f"rank {rank} ({', '.join(parts)})"
