"""How tests are dealt to test processes: a file whole, a group whole, and what takes longest first."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from xdist.remote import Producer

from tests.by_file import LONGEST, ByFile
from tests.documents import ROOT


class Process:
    """A test process that runs what it is sent, and says so when it is asked to."""

    gateway = SimpleNamespace(id="gw")
    shutting_down = False

    def __init__(self) -> None:
        self.sent: list[list[int]] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.sent.append(indices)

    def shutdown(self) -> None:
        self.shutting_down = True


def dealt(tests: list[str]) -> list[list[str]]:
    """What two processes are sent, in the order in which they have done with what they had."""
    config: Any = SimpleNamespace(
        getvalue=lambda _: ["popen", "popen"], option=SimpleNamespace(loadscopereorder=True), hook=None
    )
    scheduler = ByFile(config, Producer("by file", enabled=False))
    processes: list[Any] = [Process(), Process()]
    for process in processes:
        scheduler.add_node(process)
    for process in processes:
        scheduler.add_node_collection(process, tests)
    scheduler.schedule()
    done = 0
    found: list[list[str]] = []
    while any(process.sent for process in processes):
        process = next(p for p in processes if p.sent)
        unit = process.sent.pop(0)
        found.append([tests[index] for index in unit])
        for index in unit:
            scheduler.mark_test_complete(process, index)
            done += 1
    assert done == len(tests)
    return found


def test_a_file_and_a_group_are_whole_and_the_longest_is_first() -> None:
    long = LONGEST[1]
    tests = [f"tests/a.py::test[{n}]" for n in range(3)] + ["tests/b.py::Of::test", "tests/b.py::test_b@browser"]
    tests += ["tests/c.py::test@browser", f"{long}::test_1", "tests/a.py::test_last", f"{long}::test_2"]
    found = dealt(tests)
    assert sorted(map(sorted, found)) == sorted(
        sorted(unit)
        for unit in (
            [t for t in tests if t.startswith("tests/a.py")],
            ["tests/b.py::Of::test"],
            ["tests/b.py::test_b@browser", "tests/c.py::test@browser"],
            [t for t in tests if t.startswith(long)],
        )
    )
    assert found[0] == ["tests/b.py::test_b@browser", "tests/c.py::test@browser"]  # both processes get theirs first
    assert found.index([f"{long}::test_1", f"{long}::test_2"]) < found.index(["tests/b.py::Of::test"])


@pytest.mark.parametrize("scope", LONGEST)
def test_what_is_called_long_is_there(scope: str) -> None:
    assert scope == "browser" or (ROOT / scope).is_file()
