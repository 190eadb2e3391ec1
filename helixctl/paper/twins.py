"""The small twins of the paper's models on CPU ranks of this machine: both methods in one run, a step of each in turn.

CPU figures: they say how the runtime behaves, nothing of GPUs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from helixctl.paper.experiment import METHODS, Case, Way

# The twins' specs have top-2.
TWINS: Final = {"dense": "dense", "MoE top-2": "moe"}
_NAMES: Final[Mapping[Way, str]] = {"base": "tp8-pp2", "helix": "4x4"}


class Ended(Exception):  # noqa: N818  it is no error of ours: the run has said what is wrong
    """A run that did not end well, with its exit status."""

    def __init__(self, status: int) -> None:
        """Keep the status for the command, which ends with it."""
        super().__init__(f"exit status {status}")
        self.status = status


def twin_plans(model: str, folder: Path) -> list[Path]:
    """Write the plans of both methods for the twin of a model, the baseline first."""
    case, found = Case(model, size="small"), []
    for way in METHODS:
        path = folder / f"{case.name}.{_NAMES[way]}.plan.json"
        path.write_text(case.plan(way).to_json(), encoding="utf-8")
        found.append(path)
    return found


def compared(plans: Sequence[Path], warmup: int, iters: int) -> dict[str, Any]:
    """The report of ``helixctl run --compare --check``, which tells on standard error how far it is.

    Args:
        plans: the files.
        warmup: steps of each before measuring.
        iters: measured steps of each.

    Raises:
        Ended: the run failed, or an output is not the model's; it has said so.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        options = ("--warmup", str(warmup), "--iters", str(iters), "--check", "--report", str(path))
        command = [sys.executable, "-m", "helixctl", "run", "--compare", *map(str, plans), *options]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise Ended(done.returncode)
        return dict(json.loads(path.read_text(encoding="utf-8")))
