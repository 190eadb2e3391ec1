"""Runs with a fault end soon, with one clear line, and leave nothing behind; `make faults` has all on 16 ranks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.faults.faults import FAULTS, Fault, Setting, wrong
from tests.speed import slowness

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# On four ranks. kill -9 and SIGSTOP of a local rank are in tests/runtime/test_run.py.
SAMPLE = (
    "kill -9 of a rank that generates",
    "exception in a task",
    "no room for a rank's process",
    "weight file cut short while ranks load",
    "NaN in a weight, --check",
    "NaN in a weight, no --check",
    "Ctrl-C",
    "SIGTERM to the launcher",
    "no room for the report",
    "outer launcher: kill -9 of a rank",
    "outer launcher: SIGSTOP of a rank",
    "outer launcher: SIGTERM to all ranks",
    "outer launcher: exception in a task",
    "outer launcher: a rank is never started",
    "outer launcher: port in use",
    "outer launcher: another dag on a rank",
)
TIMEOUT = 5  # seconds; ranks of a busy machine are ready at different times
# Seconds that other tests on the machine may add. All three are seconds of the machine of tests/speed.py.
BUSY = 5


# Ranks of an outer launcher wait for each other's reports, so these take longest; another fault of every other kind
# stays in every run.
LONG = (
    "NaN in a weight, no --check",
    "weight file cut short while ranks load",
    "no room for the report",
    "outer launcher: SIGSTOP of a rank",
    "outer launcher: SIGTERM to all ranks",
    "outer launcher: a rank is never started",
    "outer launcher: exception in a task",
)
CASES = [
    pytest.param(fault, id=fault.name, marks=[pytest.mark.sweep] if fault.name in LONG else [])
    for fault in FAULTS
    if fault.name in SAMPLE
]


@pytest.mark.parametrize("fault", CASES)
def test_a_run_that_meets_a_fault(fault: Fault, tmp_path: Path) -> None:
    slow = slowness()
    setting = Setting(4, tmp_path, TIMEOUT * slow)
    ended = fault.make(setting)
    assert wrong(fault, setting, ended) == [], ended.text
    busy = BUSY * max(slow, slowness())
    assert ended.seconds < fault.limit(setting) + busy + (busy if fault.there_before else 0)


def test_the_sample_names_faults() -> None:
    assert set(SAMPLE) <= {fault.name for fault in FAULTS}
