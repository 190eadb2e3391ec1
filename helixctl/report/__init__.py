"""The report of ``helixctl validate``, in the formats that people, editors and CI systems read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from helixctl.report.as_json import as_json
from helixctl.report.github import as_annotations
from helixctl.report.junit import as_junit
from helixctl.report.outcome import Outcome, ValidationReport
from helixctl.report.sarif import as_sarif
from helixctl.report.text import as_text

Format = Literal["text", "json", "sarif", "github", "junit"]

# Each takes the report and the folder to which the paths that a CI system reads are relative.
FORMATS: Final[dict[Format, Callable[[ValidationReport, Path], str]]] = {
    "text": as_text,
    "json": as_json,
    "sarif": as_sarif,
    "github": as_annotations,
    "junit": as_junit,
}
# The endings of file names that tell a format.
SUFFIXES: Final[dict[str, Format]] = {
    ".sarif.json": "sarif",
    ".sarif": "sarif",
    ".json": "json",
    ".xml": "junit",
    ".txt": "text",
}

__all__ = ["FORMATS", "SUFFIXES", "Format", "Outcome", "ValidationReport", "as_annotations"]
