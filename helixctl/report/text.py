"""The report for people: a line for every valid file, the diagnostics of the others."""

from __future__ import annotations

from pathlib import Path

from helixctl.report.outcome import Outcome, Report


def lines_of(outcome: Outcome) -> list[str]:
    """What is said of one file."""
    if outcome.valid:
        digest = f", {outcome.digest[:19]}" if outcome.digest else ""
        return [f"{outcome.file}: valid {outcome.summary}{digest}"]
    return [str(finding) for finding in outcome.findings]


def as_text(report: Report, root: Path) -> str:  # noqa: ARG001  paths are those that the user gave
    """All files and, where there are several, how many are what."""
    lines = [line for outcome in report.outcomes for line in lines_of(outcome)]
    if len(report.outcomes) > 1 or report.skipped:
        lines.append(report.counts)
    return "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace").decode()
