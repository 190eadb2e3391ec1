"""The comparison of several plans that were run in turn: each is compared with the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from helixctl.report.seconds import with_seconds


def comparison(names: Sequence[str], reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The report of ``helixctl run --compare`` as JSON-ready data.

    Args:
        names: the names of the methods, in the order of the reports; the others are compared with the first.
        reports: the reports of the methods, whose steps were measured in turn.
    """
    rows = [_row(name, report, reports[0]) for name, report in zip(names, reports, strict=True)]
    return with_seconds(
        {
            "report": "helixctl run --compare",
            "format_version": "1.2",
            "simulated": False,
            "comparison": rows,
            "methods": list(reports),
        }
    )


def _row(name: str, report: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    step = report["step_time_ms"]
    return {
        "method": name,
        "tokens_per_s": report["tokens_per_s"],
        "sync_overhead_per_token_ms": report["sync_overhead_per_token_ms"],
        "step_time_ms": {key: step[key] for key in ("p10", "p50", "p90")},
        "tokens_per_s_change": change(report["tokens_per_s"], first["tokens_per_s"]),
        "sync_overhead_change": change(report["sync_overhead_per_token_ms"], first["sync_overhead_per_token_ms"]),
    }


def change(number: float, before: float) -> float | None:
    """The change as a fraction of the first number; None if that is 0 (a single rank does not communicate)."""
    return number / before - 1 if before else None
