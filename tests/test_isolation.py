"""A test that leaves the process changed fails itself; what is random is the same in every test."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import isolation
from tests.documents import ROOT

CHANGES: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "the environment": lambda patch: patch.setenv("LEFT", "1"),
    "the working folder": lambda patch: patch.chdir("/"),
    "sys.path": lambda patch: patch.syspath_prepend("/nowhere"),
    "modules that cannot be imported": lambda patch: patch.setitem(sys.modules, "left", None),
    "the folder of temporary files": lambda patch: patch.setattr("tempfile.tempdir", "/nowhere"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_left_changed_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = isolation.begin()
    assert isolation.changed(before) == []
    with monkeypatch.context() as patch:
        CHANGES[name](patch)
        found = isolation.changed(before)
    assert [line.partition(":")[0] for line in found] == [name]
    assert isolation.changed(before) == []


def test_what_torch_is_left_with() -> None:
    torch = pytest.importorskip("torch")
    before = isolation.begin()
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    try:
        assert isolation.changed(before) == [
            "torch's threads: was 1, is 2",
            "torch's default dtype: was torch.float32, is torch.float64",
        ]
    finally:
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float32)


def test_chance_is_the_same_in_every_test() -> None:
    isolation.begin()
    drawn = random.random()
    random.random()
    isolation.begin()
    assert random.random() == drawn


TESTS = """
import os, random, pytest

@pytest.fixture
def put_back(monkeypatch):
    monkeypatch.setenv("LEFT", "1")

def test_leaves():
    os.environ["LEFT"] = "1"

def test_puts_back(put_back):
    del os.environ["LEFT"]

def test_finds_no_launcher():
    assert not {"RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"} & os.environ.keys()

@pytest.mark.parametrize("time", range(2))
def test_draws(time):
    print("drawn", random.random())
"""


def test_the_test_that_leaves_something_fails(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", str(ROOT / "pyproject.toml"), "-s"]
    outer = {"RANK": "0", "SLURM_PROCID": "0", "OMPI_COMM_WORLD_RANK": "0"}
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, **outer},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "5 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "not put back the environment: LEFT was None, is '1'" in done.stdout
    drawn = [line.split("drawn ")[1].rstrip(".") for line in done.stdout.splitlines() if "drawn" in line]
    assert len(drawn) == 2
    assert len(set(drawn)) == 1
