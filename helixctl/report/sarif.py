"""The report as SARIF 2.1.0, which GitHub's code scanning and editors read."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

from helixctl import __version__
from helixctl.errors import CODES, Diagnostic
from helixctl.report.outcome import Outcome, ValidationReport
from helixctl.report.paths import relative_path, relative_uri
from helixctl.report.rules import REMEDIES

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_ROOT: Final = "%SRCROOT%"
# Numbers in a message that change when lines or items are added before it: "first on line 3", "tasks[5].op".
_MOVES: Final = re.compile(r"(?<=\bline )\d+|(?<=\[)\d+(?=\])")


def as_sarif(report: ValidationReport, root: Path) -> str:
    """One run with every rule, every file and every finding."""
    codes = list(dict.fromkeys((*REMEDIES, *(finding.code for finding in report.findings))))
    run = {
        "tool": {"driver": {"name": "helixctl", "semanticVersion": __version__, "rules": [_rule(c) for c in codes]}},
        "invocations": [{"executionSuccessful": True, "exitCode": report.status}],
        "columnKind": "unicodeCodePoints",
        # Without a URI: the folder's place on one machine is no part of the report.
        "originalUriBaseIds": {_ROOT: {"description": {"text": "The root of the repository."}}},
        "artifacts": [{"location": _artifact(o.file, root), "roles": ["analysisTarget"]} for o in report.outcomes],
        "results": [
            _result(finding, print_, codes, root)
            for outcome in report.outcomes
            for finding, print_ in zip(outcome.findings, _fingerprints(outcome, root), strict=True)
        ],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(code: str) -> dict[str, Any]:
    title = CODES[code].title
    remedy = f"Way out: {REMEDIES[code]}\n\n" if code in REMEDIES else ""
    more = f"docs/errors.md of helixctl has an example of {code}."
    return {
        "id": code,
        "shortDescription": {"text": title},
        "fullDescription": {"text": f"{title[0].upper()}{title[1:]}."},
        "help": {"text": f"{remedy}{more}", "markdown": f"{remedy}{more}"},
        "defaultConfiguration": {"level": "error"},
        "properties": {"exitStatus": CODES[code].exit_status},
    }


def _result(finding: Diagnostic, fingerprint: str, codes: list[str], root: Path) -> dict[str, Any]:
    place: dict[str, Any] = {"physicalLocation": {"artifactLocation": _artifact(finding.file or "-", root)}}
    if finding.line is not None:
        place["physicalLocation"]["region"] = {"startLine": finding.line, "startColumn": finding.col or 1}
    if finding.path:
        place["logicalLocations"] = [{"fullyQualifiedName": finding.path}]
    hint = f"\nhint: {finding.hint}" if finding.hint else ""
    return {
        "ruleId": finding.code,
        "ruleIndex": codes.index(finding.code),
        "level": "error",
        "message": {"text": finding.message + hint},
        "locations": [place],
        "partialFingerprints": {"findingHash/v1": fingerprint},
    }


def _artifact(file: str, root: Path) -> dict[str, str]:
    uri, relative = relative_uri(file, root)
    return {"uri": uri, "uriBaseId": _ROOT} if relative else {"uri": uri}


def _fingerprints(outcome: Outcome, root: Path) -> list[str]:
    """A hash of each finding without its position, so that a finding keeps its hash when lines move."""
    file, seen, found = relative_path(outcome.file, root), Counter[str](), []
    for finding in outcome.findings:
        text = _MOVES.sub("", "\n".join((file, finding.code, finding.path or "", finding.message)))
        seen[text] += 1
        text += f"\n{seen[text]}"
        found.append(hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:32])
    return found
