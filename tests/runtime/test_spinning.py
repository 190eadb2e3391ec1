"""Threads that wait for each other sleep soon, unless the environment says otherwise."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.command import ENVIRONMENT

SCRIPT = "import os, helixctl_runtime; print(os.environ.get('GOMP_SPINCOUNT'))"
OURS = {name: value for name, value in ENVIRONMENT.items() if name not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}}


@pytest.mark.parametrize(
    ("own", "spins"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_how_often_a_waiting_thread_looks(own: dict[str, str], spins: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, env=OURS | own, check=True, text=True)
    assert done.stdout.strip() == spins
