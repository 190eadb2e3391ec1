"""Every bad plan and dag is refused with the code in its name, and prints what stands beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from helixctl.documents import load_document
from helixctl.errors import CODES, HelixError
from tests.bad_files import bad_files

INVALID = Path(__file__).parent.parent / "invalid"
FILES = bad_files()


@pytest.mark.parametrize("name", FILES)
def test_bad_file(name: str, monkeypatch: pytest.MonkeyPatch, golden: Callable[[Path, str], None]) -> None:
    monkeypatch.chdir(INVALID)
    golden(INVALID / name, FILES[name])
    with pytest.raises(HelixError) as caught:
        load_document(name)
    code = name.partition("-")[0]
    assert {d.code for d in caught.value.diagnostics} == {code}
    assert caught.value.exit_status == CODES[code].exit_status
    golden(INVALID / f"{name}.txt", f"{caught.value}\n")


def test_every_code_of_plans_and_dags_has_a_bad_file() -> None:
    assert {name[:5] for name in FILES} == {code for code in CODES if code.startswith(("HX3", "HX4"))}
