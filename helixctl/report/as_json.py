"""The report as JSON, in the style of ``terraform validate -json``; docs/ci.md describes its fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from helixctl.errors import CODES, Diagnostic
from helixctl.report.outcome import ValidationReport

FORMAT_VERSION: Final = "1.1"


def as_json(report: ValidationReport, root: Path) -> str:  # noqa: ARG001  paths are those that the user gave
    """All outcomes as one JSON object."""
    found = {
        "report": "helixctl validate",
        "format_version": FORMAT_VERSION,
        "valid": report.status == 0,
        "exit_status": report.status,
        "error_count": len(report.findings),
        "files": [
            {
                "file": o.file,
                "kind": o.kind,
                "valid": o.valid,
                "verdict": o.verdict,
                "digest": o.digest,
                "summary": o.summary,
                "warnings": list(o.warnings),
            }
            for o in report.outcomes
        ],
        "skipped": list(report.skipped),
        "diagnostics": [_diagnostic(finding) for finding in report.findings],
    }
    return json.dumps(found, indent=2) + "\n"


def _diagnostic(finding: Diagnostic) -> dict[str, Any]:
    start = {"line": finding.line, "column": finding.col} if finding.line is not None else None
    return {
        "severity": "error",
        "code": finding.code,
        "title": CODES[finding.code].title,
        "summary": finding.message,
        "hint": finding.hint,
        "path": finding.path,
        "range": {"filename": finding.file, "start": start},
    }
