"""Span: one task on one rank in time, predicted or measured. What timelines and traces are made of."""

from __future__ import annotations

from helixctl.dag.document import Lane
from helixctl.records import record


@record
class Span:
    """A task occupies one lane of one rank from ``begin_s`` to ``end_s``, in seconds since the step began."""

    task: str
    rank: int
    lane: Lane
    begin_s: float
    end_s: float
