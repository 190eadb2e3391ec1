"""The outcome of the validation of one file, and the report of all."""

from __future__ import annotations

from typing import Final

from helixctl.errors import CODES, EXIT_CANNOT_BEGIN, EXIT_NO, Diagnostic
from helixctl.records import record

_VERDICTS: Final = {0: "valid", EXIT_NO: "refused", EXIT_CANNOT_BEGIN: "malformed"}


@record
class Outcome:
    """The outcome of one file.

    Attributes:
        file: the path as it was given, or found in a folder ("-" for standard input).
        kind: model, cluster, plan or dag; None if it is unknown.
        findings: what is wrong with the file; empty if it is valid.
        summary: the kind and the name of a valid document: ``model paper-dense``.
        digest: the digest of a valid plan or dag.
        warnings: sentences about figures of a valid cluster that are likely mistakes, and about measured rates that
            are not used; they are not findings.
    """

    file: str
    kind: str | None
    findings: tuple[Diagnostic, ...] = ()
    summary: str = ""
    digest: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether there are no findings."""
        return not self.findings

    @property
    def status(self) -> int:
        """The exit status for this file alone."""
        return max((CODES[finding.code].exit_status for finding in self.findings), default=0)

    @property
    def verdict(self) -> str:
        """``valid``, ``refused`` (by a proof) or ``malformed`` (also if the file cannot be read)."""
        return _VERDICTS[self.status]


@record
class ValidationReport:
    """The outcomes, in the order of the files, and the files in folders that are not documents of helixctl."""

    outcomes: tuple[Outcome, ...]
    skipped: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        """The exit status of the whole: malformed outranks refused."""
        return max((outcome.status for outcome in self.outcomes), default=0)

    @property
    def findings(self) -> tuple[Diagnostic, ...]:
        """All findings."""
        return tuple(finding for outcome in self.outcomes for finding in outcome.findings)

    @property
    def counts(self) -> str:
        """``24 documents: 22 valid, 1 refused, 1 malformed; 3 other files skipped``."""
        verdicts = [outcome.verdict for outcome in self.outcomes]
        each = [f"{count} {name}" for name in _VERDICTS.values() if (count := verdicts.count(name))]
        text = f"{len(verdicts)} {'document' if len(verdicts) == 1 else 'documents'}: {', '.join(each)}"
        if self.skipped:
            text += f"; {len(self.skipped)} other {'file' if len(self.skipped) == 1 else 'files'} skipped"
        return text
