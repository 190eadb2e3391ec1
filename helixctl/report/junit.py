"""The report as JUnit XML, which GitLab, Jenkins and others show: a test case for every file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from helixctl.report.outcome import Outcome, ValidationReport
from helixctl.report.paths import relative_path

# Characters that XML 1.0 cannot hold, not even as a reference. Compiled when needed: that takes some milliseconds.
_NO_XML: Final = "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
_SUITE: Final = "helixctl validate"


def as_junit(report: ValidationReport, root: Path) -> str:
    """One suite; a refused document is a failure, a malformed one an error."""
    verdicts = [outcome.verdict for outcome in report.outcomes]
    counts = f'tests="{len(verdicts)}" failures="{verdicts.count("refused")}" errors="{verdicts.count("malformed")}"'
    cases = "".join(_case(outcome, root) for outcome in report.outcomes)
    text = (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<testsuites name="{_SUITE}" {counts}>\n'
        f'  <testsuite name="{_SUITE}" {counts} skipped="0">\n{cases}  </testsuite>\n</testsuites>\n'
    )
    return re.sub(_NO_XML, "\ufffd", text)


def _case(outcome: Outcome, root: Path) -> str:
    from xml.sax.saxutils import escape, quoteattr  # which imports a client of HTTP, and that one of TLS

    path = relative_path(outcome.file, root)
    name = quoteattr(path)
    head = f'    <testcase classname="helixctl.{outcome.kind or "unknown"}" name={name} file={name}'
    if outcome.valid:
        return f"{head}/>\n"
    tag = "failure" if outcome.verdict == "refused" else "error"
    first, *others = outcome.findings
    message = first.message + (f" (and {len(others)} more)" if others else "")
    body = escape("\n".join(str(finding) for finding in outcome.findings))
    # One element for all findings of a file, because GitLab reads only the first.
    return (
        f"{head}>\n      <{tag} type={quoteattr(first.code)} message={quoteattr(message)}>{body}</{tag}>\n"
        "    </testcase>\n"
    )
