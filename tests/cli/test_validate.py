"""helixctl validate: exit statuses and streams; the findings themselves are in tests/verify and tests/spec."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import helixctl
from tests.documents import ROOT

SHIPPED = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "plans").rglob("*.*") if p.suffix != ".md")


def test_all_that_is_shipped_is_valid() -> None:
    done = helixctl("validate", *SHIPPED)
    assert (done.status, done.out) == (0, b"")
    assert done.err.count(": valid ") == len(SHIPPED)


@pytest.mark.parametrize(
    ("files", "status"),
    [
        (("HX406-region-moved.dag.json",), 1),
        (("HX302-edited-model.plan.json",), 1),
        (("HX103-unknown-key.model.yaml",), 2),
        (("HX401-no-order.dag.json", "HX406-region-moved.dag.json"), 2),
        (("nothing-here.json",), 2),
    ],
)
def test_exit_status(files: tuple[str, ...], status: int) -> None:
    done = helixctl("validate", *files, SHIPPED[0], cwd=ROOT / "tests/invalid")
    # The shipped file is not at that path from here: only the order of severity is of interest.
    assert done.status in {status, 2}
    done = helixctl("validate", *files, cwd=ROOT / "tests/invalid")
    assert done.status == status
    assert done.err.count("HX") >= len(files)


def test_every_file_is_checked_and_said() -> None:
    done = helixctl("validate", "tests/invalid/HX412-flops.dag.json", "plans/paper/dense.4x4.plan.json")
    assert done.status == 1
    assert "HX412-flops.dag.json:85:1: HX412 task l0.attend.g0s0: declares 1 flops" in done.err
    assert "plans/paper/dense.4x4.plan.json: valid plan, layout 4 x 4" in done.err


def test_standard_input() -> None:
    done = helixctl("validate", "-", stdin=(ROOT / "plans/paper/dense.4x4.dag.json").read_bytes())
    assert done.status == 0
    assert "-: valid dag, layout 4 x 4, 681 tasks proved" in done.err


def test_a_bug_is_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from helixctl.cli import validate
    from helixctl.cli.main import _status

    def broken(_: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(validate, "load_document", broken)
    assert _status(["validate", str(tmp_path)]) == 3
    assert "this is a bug" in capsys.readouterr().err
