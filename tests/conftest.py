"""Options, fixtures and rules for all tests: none depends on what ran before it, or on the machine."""

from __future__ import annotations

import gc
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Before anything imports Triton: it decides then whether its functions are compiled or interpreted.
os.environ["TRITON_INTERPRET"] = "1"
# How long a command takes here is no part of what it prints.
os.environ["HELIXCTL_PROGRESS"] = "off"

# What Python compiles is kept, also where the environment says otherwise, as in many containers: tests start many
# processes, and each would compile all modules anew.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    sys.dont_write_bytecode = False

from tests import isolation
from tests.environment import outer_variables

# No example is too slow, none is kept from an earlier run, and all are the same in every run.
hypothesis.settings.register_profile(
    "helixctl", deadline=None, database=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("helixctl")

BEGUN = pytest.StashKey[isolation.State]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--update-golden`` writes the golden files anew: read the diff. ``--part`` runs some of the tests."""
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files instead of comparing with them")
    parser.addoption("--part", metavar="I/N", help="only the tests of part I of N; every test is in one of them")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Which part a test is in follows from its name, so that all workers and runs deal them alike."""
    if part := config.getoption("--part"):
        number, parts = (int(text) for text in str(part).split("/"))
        dealt: list[list[pytest.Item]] = [[], []]
        for item in items:
            dealt[zlib.crc32(item.nodeid.encode()) % parts == number % parts].append(item)
        others, items[:] = dealt
        config.hook.pytest_deselected(items=others)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """By file, but where the tests are shuffled: then also what runs beside each other is left to chance."""
    if config.getoption("dist") != "loadgroup" or config.getoption("random_order_bucket", None) == "global":
        return None
    from tests.by_file import ByFile

    return ByFile(config, log)


def pytest_collection_finish() -> None:
    """The garbage collector leaves alone what is loaded by now: to visit torch and all tests takes it a second."""
    gc.collect()
    gc.freeze()


def pytest_configure() -> None:
    """The launcher or CI system that runs the tests is no part of them."""
    for name in outer_variables():
        del os.environ[name]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Before all fixtures."""
    item.stash[BEGUN] = isolation.begin()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """After all fixtures: a test that leaves the process changed fails, not the one that would find it so."""
    result = yield
    if left := isolation.changed(item.stash[BEGUN]):
        pytest.fail("the test has changed and not put back " + "; ".join(left), pytrace=False)
    return result


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """``golden(path, text)``: the text must be the file's, byte for byte."""
    update = bool(request.config.getoption("--update-golden"))

    def compare(path: Path, text: str) -> None:
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        assert path.exists(), f"{path} does not exist; run pytest with --update-golden to write it"
        assert text == path.read_bytes().decode(), f"differs from {path}; if it should, run pytest with --update-golden"

    return compare
