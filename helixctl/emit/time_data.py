"""The timelines of a page as data for its script: nanoseconds as whole numbers, tasks by their place in the drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from helixctl.dag import Dag
from helixctl.dag.span import Span
from helixctl.emit.views import Timeline


def time_data(timelines: Sequence[Timeline], index: Mapping[str, int]) -> list[dict[str, Any]]:
    """The data of each timeline: ``spans``, ``waits`` and ``copies`` as rows of rank, task, begin and duration.

    Args:
        timelines: to show; spans of tasks that are not drawn are left out.
        index: the place of each drawn task.
    """
    return [
        {
            "name": one.name,
            "spans": _rows(one.spans, index),
            "waits": _rows(one.waits, index),
            "copies": _rows(one.copies, index),
        }
        for one in timelines
    ]


def _rows(spans: Sequence[Span], index: Mapping[str, int]) -> list[list[int]]:
    drawn = (span for span in spans if span.task in index)
    ends = ((span, round(span.begin_s * 1e9), round(span.end_s * 1e9)) for span in drawn)
    return [[span.rank, index[span.task], begin, end - begin] for span, begin, end in ends]


def measured_waits(spans: Sequence[Span]) -> list[Span]:
    """When a rank computes nothing while one of its collectives is in flight: of a measured step.

    Args:
        spans: of every task on every rank.
    """
    by_rank: dict[int, tuple[list[Span], list[Span]]] = {}
    for span in spans:
        lanes = by_rank.setdefault(span.rank, ([], []))
        lanes[span.lane == "communication"].append(span)
    found: list[Span] = []
    for computing, moving in by_rank.values():
        busy = sorted(computing, key=lambda span: span.begin_s)
        at = 0.0  # no wait before that is still to be found
        for span in sorted(moving, key=lambda span: span.begin_s):
            at = max(at, span.begin_s)
            for begin, end in _gaps(busy, at, span.end_s):
                found.append(Span(span.task, span.rank, "compute", begin, end))
            at = max(at, span.end_s)
    return found


def _gaps(busy: Sequence[Span], begin: float, end: float) -> list[tuple[float, float]]:
    """The parts of an interval in which nothing runs; ``busy`` is in order."""
    found = []
    for span in busy:
        if span.end_s <= begin:
            continue
        if span.begin_s >= end:
            break
        if span.begin_s > begin:
            found.append((begin, span.begin_s))
        begin = max(begin, span.end_s)
    if begin < end:
        found.append((begin, end))
    return found


def is_alike(dag: Dag, spans: Sequence[Span]) -> bool:
    """Whether spans are of the tasks of a dag, each on all its ranks."""
    ran = sorted((span.rank, span.task) for span in spans)
    return ran == sorted((rank, name) for rank, order in enumerate(dag.order) for name in order)
