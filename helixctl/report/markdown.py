"""The report as a Markdown table, for the summary page of a GitHub Actions job."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Final

from helixctl.report.outcome import Outcome, ValidationReport
from helixctl.report.paths import relative_path

_MOST_ROWS: Final = 200  # GitHub refuses a summary of more than 1 MiB
_MOST_FINDINGS: Final = 5
_MOST_LETTERS: Final = 400


def as_markdown(report: ValidationReport, root: Path) -> str:
    """A table with a row for every file; files with findings come first."""
    rows = sorted(report.outcomes, key=lambda outcome: -outcome.status)
    head = "| file | kind | verdict | findings |\n|---|---|---|---|"
    lines = ["### helixctl validate", "", report.counts, "", head]
    lines += [_row(outcome, root) for outcome in rows[:_MOST_ROWS]]
    if len(rows) > _MOST_ROWS:
        lines += ["", f"and {len(rows) - _MOST_ROWS} more"]
    text = "".join(f"{line}\n" for line in lines)
    return text.encode(errors="backslashreplace").decode()


def _row(outcome: Outcome, root: Path) -> str:
    shown = [
        f"{finding.code}{f' line {finding.line}' if finding.line else ''}: {_cell(finding.message)}"
        for finding in outcome.findings[:_MOST_FINDINGS]
    ]
    if more := len(outcome.findings) - len(shown):
        shown.append(f"and {more} more")
    path = _cell(relative_path(outcome.file, root))
    return f"| {path} | {outcome.kind or '?'} | {outcome.verdict} | {'<br>'.join(shown)} |"


def _cell(text: str) -> str:
    """Escape a text, so that it neither ends its cell nor becomes Markdown or HTML."""
    short = text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 3] + "..."
    for sign in "\\`*_[]|":
        short = short.replace(sign, f"\\{sign}")
    return escape(" ".join(short.split()), quote=False)
