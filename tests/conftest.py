"""Options, fixtures and rules for all tests: none depends on what ran before it, or on the machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

# Before anything imports Triton: it decides then whether its functions are compiled or interpreted.
os.environ["TRITON_INTERPRET"] = "1"

from tests import isolation
from tests.environment import outer_variables

# No example is too slow, none is kept from an earlier run, and all are the same in every run.
hypothesis.settings.register_profile(
    "helixctl", deadline=None, database=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("helixctl")

BEGUN = pytest.StashKey[isolation.State]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--update-golden`` writes the golden files anew; read the diff before it is committed."""
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files instead of comparing with them")


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
