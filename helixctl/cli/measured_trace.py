"""The trace of a run: a measured step of each dag, one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from helixctl.cli.console import wrote
from helixctl.output import write_output

if TYPE_CHECKING:
    from helixctl.dag import Dag
    from helixctl.dag.span import Span


def write_trace(path: str, dags: Sequence[Dag], names: Sequence[str], spans: Sequence[Sequence[Span]]) -> None:
    """Write a timeline, for ui.perfetto.dev or chrome://tracing.

    Args:
        path: of the file.
        dags: what ran; a step of a plan is named as well.
        names: of the plans, one for each dag.
        spans: of a step of each.
    """
    from helixctl.emit.trace import Trace, traces_json

    traces = []
    for dag, name, its in zip(dags, names, spans, strict=True):
        which = "a measured step" if dag.step == "pass" else f"a measured {dag.step} step"
        traces.append(Trace(f"{dag.plan.model.name}, {name}: {which}", dag, its, simulated=False))
    write_output(path, traces_json(traces))
    wrote(path, "a timeline for https://ui.perfetto.dev or chrome://tracing")
