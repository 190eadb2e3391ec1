"""From findings to diagnostics: each gets its line in the file, or the ``--set`` text that caused it."""

from __future__ import annotations

from collections.abc import Sequence

from helixctl.errors import Diagnostic
from helixctl.spec.explain import Finding
from helixctl.spec.fields import dotted
from helixctl.spec.origins import Origin
from helixctl.spec.overrides import Override
from helixctl.spec.positions import locate, position
from helixctl.spec.yaml_reader import DocumentPath, Place


def placed(
    findings: Sequence[Finding],
    text: str,
    file: str,
    overrides: Sequence[Override] = (),
    origins: Sequence[Origin] = (),
) -> list[Diagnostic]:
    """The findings as diagnostics, in the order of the file.

    Args:
        findings: what is wrong, by paths of the document.
        text: the file's text.
        file: the file's name in diagnostics.
        overrides: the ``--set`` texts applied, so that an error they caused is not laid at the file's door.
        origins: where the file has another format than the document, the keys that gave the document's fields.
    """
    by_field: dict[DocumentPath, Origin] = {origin.field: origin for origin in origins}
    found = [finding for finding in findings if not finding.last]
    sources = [by_field.get(finding.path) for finding in found]
    keys = [source.key if source else finding.path for source, finding in zip(sources, found, strict=True)]
    places = locate(text, keys)
    diagnostics = [
        _place(finding, source, key, places, file, overrides)
        for finding, source, key in zip(found, sources, keys, strict=True)
    ]
    in_file = sorted(diagnostics, key=lambda d: (d.file is None, d.line or 0, d.col or 0))
    return in_file + [Diagnostic(item.code, item.message, item.hint, file) for item in findings if item.last]


def _place(
    finding: Finding,
    source: Origin | None,
    key: DocumentPath,
    places: dict[DocumentPath, Place],
    file: str,
    overrides: Sequence[Override],
) -> Diagnostic:
    """A finding is the command line's where --set gave the value at fault, or made the mapping at fault."""
    causes = [item for item in overrides if item.path == finding.path]
    if key not in places:
        causes = [item for item in overrides if item.path[: len(finding.path)] == finding.path]
    if causes:
        where = dotted(finding.path) or None
        return Diagnostic(finding.code, f"{causes[-1]}: {finding.message}", finding.hint, path=where)
    message = finding.message + (f" ({source.source})" if source else "") + _in_view_of(finding, overrides)
    line, col = position(places, key, of_key=finding.of_key) or (None, None)
    return Diagnostic(finding.code, message, finding.hint, file, line, col, dotted(key) or None)


def _in_view_of(finding: Finding, overrides: Sequence[Override]) -> str:
    """The --set texts that may have a part in a contradiction between fields."""
    scope = finding.path[:-1]
    parts = [str(item) for item in overrides if finding.code == "HX109" and item.path[: len(scope)] == scope]
    return f" (with {', '.join(parts)})" if parts else ""
