"""Findings as workflow commands of GitHub Actions, which shows each at its line of the pull request."""

from __future__ import annotations

from pathlib import Path

from helixctl.errors import CODES, Diagnostic
from helixctl.report.outcome import ValidationReport
from helixctl.report.paths import relative_path


def as_annotations(report: ValidationReport, root: Path) -> str:
    """An ``::error`` line for every finding."""
    lines = [_annotation(finding, root) for finding in report.findings]
    return "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace").decode()


def _annotation(finding: Diagnostic, root: Path) -> str:
    properties: dict[str, object] = {"title": f"{finding.code} {CODES[finding.code].title}"}
    if finding.file not in {None, "-"}:
        properties |= {"file": relative_path(str(finding.file), root), "line": finding.line, "col": finding.col}
    shown = ",".join(f"{name}={_property(str(value))}" for name, value in properties.items() if value is not None)
    hint = f"\nhint: {finding.hint}" if finding.hint else ""
    return f"::error {shown}::{_data(finding.message + hint)}"


def _data(text: str) -> str:
    """Escape the message of a command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Escape a property of a command, which a comma or a colon would end."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
