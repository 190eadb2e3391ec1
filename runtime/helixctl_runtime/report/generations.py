"""Generations of several plans beside each other: each is compared with the first, its tokens too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from helixctl.dag.span import Span
from helixctl.report.seconds import with_seconds
from helixctl_runtime.generate.margins import Margins
from helixctl_runtime.report.comparison import change


@dataclass(frozen=True, slots=True)
class Generations:
    """What came of a run of one plan with steps, or of several in turn.

    Attributes:
        reports: of each plan.
        margins: of each of several plans; of one none.
        spans: of each plan a traced step of each kind that there was; none where none was asked for.
    """

    reports: list[dict[str, Any]]
    margins: list[Margins]
    spans: list[list[tuple[Span, ...]]]


def comparison_of_generations(names: Sequence[str], found: Generations) -> dict[str, Any]:
    """The report of ``helixctl run --compare`` of generations as JSON-ready data.

    Args:
        names: of the plans, in the order of the reports; the others are compared with the first.
        found: what they made of the same prompts, in turn.
    """
    first = found.reports[0]
    rows = []
    for name, report, margins in zip(names, found.reports, found.margins, strict=True):
        parted = places_parted(first["tokens"], report["tokens"], found.margins[0], margins)
        rows.append(_row(name, report, first) | {"parted": parted})
    return with_seconds(
        {
            "report": "helixctl run --compare",
            "generation": True,
            "format_version": "1.2",
            "simulated": False,
            "comparison": rows,
            "methods": found.reports,
        }
    )


def places_parted(
    tokens: Sequence[Sequence[int]], others: Sequence[Sequence[int]], margins: Margins, other_margins: Margins
) -> list[dict[str, Any]]:
    """Where the tokens of two plans part: of each sequence the first place.

    Args:
        tokens: of the one plan, per sequence; -1 behind the end of one.
        others: of the other.
        margins: of the one plan.
        other_margins: of the other.
    """
    found = []
    for sequence, (mine, theirs) in enumerate(zip(tokens, others, strict=True)):
        pairs = enumerate(zip(mine, theirs, strict=True))
        at = next((step for step, (a, b) in pairs if a != b), None)
        if at is not None:
            both = [its.margin(sequence, at) for its in (margins, other_margins)]
            found.append({"sequence": sequence, "token": at, "chosen": [mine[at], theirs[at]], "margins": both})
    return found


def _row(name: str, report: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    each, before = report["time_per_output_token_ms"], first["time_per_output_token_ms"]
    return {
        "method": name,
        "ttft_ms": report["ttft_ms"],
        "time_per_output_token_ms": each and {key: each[key] for key in ("mean", "p50", "p90", "p99")},
        "output_tokens_per_s": report["output_tokens_per_s"],
        "cache": report["cache"],
        "ttft_change": change(report["ttft_ms"], first["ttft_ms"]),
        "time_per_output_token_change": each and before and change(each["p50"], before["p50"]),
    }
