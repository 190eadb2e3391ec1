"""The spec files of the paper's experiment, and of its small twins: a checkout has them in plans/, a wheel inside."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Literal

Size = Literal["paper", "small"]
_CLUSTERS: dict[Size, str] = {"paper": "h100x16.cluster.yaml", "small": "cpu16.cluster.yaml"}


def specs_of(model: str, size: Size) -> tuple[str, str]:
    """The files of a model, ``dense`` or ``moe``, and of its cluster; as a person in this folder would write them."""
    folder = _folder() / size
    return _written(folder / f"{model}.model.yaml"), _written(folder / _CLUSTERS[size])


@cache
def _folder() -> Path:
    package = Path(__file__).resolve().parent
    inside = package / "specs"
    return inside if inside.is_dir() else package.parent.parent / "plans"


def _written(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
