"""Paths in the form that CI systems read: relative to the root of the repository, with slashes."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote


def relative_path(file: str, root: Path) -> str:
    """The path relative to the root; unchanged if it is not below the root."""
    inside = _inside(file, root)
    return file if inside is None else inside


def relative_uri(file: str, root: Path) -> tuple[str, bool]:
    """The path as a URI, and whether it is relative to the root."""
    inside = _inside(file, root)
    if inside is not None:
        return quote(os.fsencode(inside)), True
    return "file://" + quote(os.fsencode(os.path.abspath(file))), False  # noqa: PTH100  links are kept as they are


def _inside(file: str, root: Path) -> str | None:
    if file == "-":
        return file
    try:
        return Path(os.path.abspath(file)).relative_to(root).as_posix()  # noqa: PTH100
    except ValueError:
        return None
