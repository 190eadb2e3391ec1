"""Some documents of every malformation are refused (`make fuzz` tries many more), and the checks of this can fail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fuzz import bounded_run
from tests.fuzz.bounded_run import CommandEnd, run
from tests.fuzz.fuzz import COMMANDS, MALFORMATIONS, Case, cases, kind_of, tried
from tests.fuzz.malformation import Malformation, good

SMALL = 2**21  # bytes: what is larger takes long to make


@pytest.mark.parametrize("malformation", MALFORMATIONS, ids=lambda malformation: malformation.name)
def test_malformed_documents_are_refused(malformation: Malformation) -> None:
    """A document that is accepted all the same is planned without a search, which takes seconds; the sweep has one."""
    for case in cases(2, 1, [malformation], SMALL):
        _, ended = tried(case, searched=False)
        assert not ended.problems, (case.number, ended.problems, ended.said[:2000])


@pytest.mark.sweep
@pytest.mark.parametrize("malformation", MALFORMATIONS, ids=lambda malformation: malformation.name)
def test_many_malformed_documents_are_refused(malformation: Malformation) -> None:
    """Those above among them, and larger ones."""
    for case in (*cases(9, 1, [malformation], SMALL), *cases(40, 2, [malformation], 4 * SMALL)):
        _, ended = tried(case)
        assert not ended.problems, (case.number, ended.problems, ended.said[:2000])


def test_every_kind_is_malformed() -> None:
    assert {kind_of(name) for name in good()} == COMMANDS.keys()
    assert len({malformation.name for malformation in MALFORMATIONS}) == len(MALFORMATIONS)


@pytest.mark.parametrize("name", good())
def test_what_is_malformed_is_good(name: str, tmp_path: Path) -> None:
    if name != "report":
        (tmp_path / name.replace("/", "-")).write_text(good()[name])
        assert run(["validate", str(tmp_path / name.replace("/", "-"))]).accepted


def test_a_case_is_made_again_from_its_number() -> None:
    case = Case(MALFORMATIONS[0], 3, 5, SMALL)
    assert case.document() == case.document() != Case(MALFORMATIONS[0], 3, 6, SMALL).document()


def beside_time(ended: CommandEnd) -> list[str]:
    """The problems other than time, which exceeds its bound on a slow machine in these tests."""
    return [problem for problem in ended.problems if not re.fullmatch(r"[0-9.]+ s", problem)]


class TestTheRules:
    """Every rule of ``CommandEnd.problems`` finds what breaks it."""

    FILE = str(Path(__file__).parent / "calibrated.cluster.yaml")
    # In the process of the command: what it reads a file with does something else.
    READS = "import os, signal, helixctl.documents as module\nmodule.read_text = lambda *_, **__: "

    def test_a_traceback(self) -> None:
        ended = run(["validate", self.FILE], self.READS + "1 / 0")
        assert beside_time(ended) == ["exit status 3", "a traceback"]

    def test_a_line_of_its_own(self) -> None:
        same = "import helixctl.errors as module\nmodule.one_line = lambda text, *_: text"
        assert "a line that is no diagnostic" in run(["validate", "no\nsuch.yaml"], same).problems

    def test_a_signal(self) -> None:
        ended = run(["validate", self.FILE], self.READS + "os.kill(os.getpid(), signal.SIGKILL)")
        assert beside_time(ended) == ["exit status -9"]

    def test_memory(self) -> None:
        ended = run(["validate", self.FILE], self.READS + "bytearray(b'x' * 500_000_000) and 'a: 1'")
        (problem,) = beside_time(ended)
        assert problem.endswith(" MB")

    def test_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bounded_run, "MOST_GOOD_S", 0.0)
        ended = run(["validate", self.FILE])
        assert len(ended.problems) == 1
        assert not beside_time(ended)

    def test_no_diagnostic(self) -> None:
        assert CommandEnd(2, "", 0.1, 1).problems == ["no diagnostic"]
        assert CommandEnd(1, "sorry\n", 0.1, 1).problems == ["no diagnostic", "a line that is no diagnostic"]
        assert CommandEnd(1, "x.yaml:1:2: HX105 wrong\n  hint: write it right\n", 0.1, 1).problems == []
