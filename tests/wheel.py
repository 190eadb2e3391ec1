"""The wheel of this checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.documents import ROOT


def built(folder: Path) -> Path:
    """Build the wheel into a folder, offline; nothing is left in the checkout."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    return wheel
