"""Every bad file gives the code in its name, and prints what stands beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from helixctl.errors import HelixError
from helixctl.spec.load import load_cluster, load_model

INVALID = Path(__file__).parent.parent / "invalid"
FILES = sorted(p.name for p in INVALID.glob("HX1*") if p.suffix != ".txt")


@pytest.mark.parametrize("name", FILES)
def test_bad_file(name: str, monkeypatch: pytest.MonkeyPatch, golden: Callable[[Path, str], None]) -> None:
    monkeypatch.chdir(INVALID)
    load = load_cluster if ".cluster." in name else load_model
    with pytest.raises(HelixError) as caught:
        load(name)
    assert {d.code for d in caught.value.diagnostics} == {name.partition("-")[0]}
    assert caught.value.exit_status == 2
    golden(INVALID / f"{name}.txt", f"{caught.value}\n")


def test_every_code_of_loading_has_a_bad_file() -> None:
    """HX108 is the command line's: test_overrides.py."""
    assert {name[:5] for name in FILES} | {"HX108"} == {f"HX1{n:02}" for n in range(1, 13)}
