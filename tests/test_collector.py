"""Pauses of the garbage collector: what is made in one is old when it ends, and what others have frozen stays so."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from helixctl import collector
from tests.documents import ROOT

# In an interpreter where nobody has frozen anything.
OLD = """
import gc
from helixctl import collector
with collector.paused():
    assert not gc.isenabled()
    made = [[] for _ in range(1000)]
young = {id(each) for each in gc.get_objects(generation=0)}
old = {id(each) for each in gc.get_objects(generation=2)}
assert not young & {id(each) for each in made}
assert old >= {id(each) for each in made}
assert gc.isenabled()
assert gc.get_freeze_count() == 0
"""


def test_what_is_made_in_a_pause_is_old_when_it_ends() -> None:
    subprocess.run([sys.executable, "-c", OLD], check=True, cwd=ROOT)


def test_what_others_have_frozen_stays_so_and_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen, counts = gc.get_freeze_count(), []
    assert frozen  # by conftest.py
    monkeypatch.setattr(collector, "_found_frozen", [])
    monkeypatch.setattr(gc, "get_freeze_count", lambda: counts.append(frozen) or frozen)
    for _ in range(3):
        with collector.paused():
            assert not gc.isenabled()
        assert gc.isenabled()
    monkeypatch.undo()
    assert gc.get_freeze_count() > frozen // 2
    assert counts == [frozen]
