"""What a run writes beside its answer, and that it says so."""

from __future__ import annotations

import json
from typing import Any

from helixctl.cli.console import wrote
from helixctl.output import write_output


def write_report(path: str | None, report: dict[str, Any], tensors: str | None) -> None:
    """Write the report of a run, if it is asked for.

    Args:
        path: of the report; ``-`` is standard output.
        report: of the run.
        tensors: the file of tensors that the ranks have written; None: none.
    """
    if path:
        write_output(path, json.dumps(report, indent=2) + "\n")
        wrote(path, "the report")
    if tensors:
        wrote(tensors, "the tensors of the output")
