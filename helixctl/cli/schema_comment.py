"""The first line of a yaml that we write: where its JSON Schema is, for editors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import helixctl

_SCHEMA: Final = Path(helixctl.__file__).resolve().parents[1] / "schemas" / "cluster.schema.json"


def schema_comment(output: str) -> list[str]:
    """The comment of a cluster file that is written to a path, ``-`` for standard output; none outside a checkout."""
    if not _SCHEMA.exists():
        return []
    folder = Path.cwd() if output == "-" else Path(output).resolve().parent
    return [f"# yaml-language-server: $schema={Path(os.path.relpath(_SCHEMA, folder)).as_posix()}"]
