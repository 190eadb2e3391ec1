"""The report for people: a line for every valid file, the diagnostics of the others."""

from __future__ import annotations

from pathlib import Path

from helixctl.report.outcome import Outcome, ValidationReport


def outcome_lines(outcome: Outcome) -> list[str]:
    """The lines about one file."""
    if outcome.valid:
        digest = f", {outcome.digest[:19]}" if outcome.digest else ""
        return [f"{outcome.file}: valid {outcome.summary}{digest}"]
    return [str(finding) for finding in outcome.findings]


def as_text(report: ValidationReport, root: Path) -> str:  # noqa: ARG001  paths are those that the user gave
    """The lines about all files and, if there are several, the number of each verdict."""
    lines = [line for outcome in report.outcomes for line in outcome_lines(outcome)]
    if len(report.outcomes) > 1 or report.skipped:
        lines.append(report.counts)
    return "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace").decode()
