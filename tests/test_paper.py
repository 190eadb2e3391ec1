"""The tables of docs/paper.md are what the program predicts."""

from __future__ import annotations

import pytest

from tests.benchmarks.paper import PAGE, QUICK, SLOW
from tests.benchmarks.tables import updated


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.sweep) for name in SLOW)])
def test_a_table_of_the_page(name: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert updated(page, {name: (QUICK | SLOW)[name]()}) == page, "run python tests/benchmarks/paper.py --update"


def test_every_table_has_its_place() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert updated(page, dict.fromkeys([*QUICK, *SLOW], "")) != page
