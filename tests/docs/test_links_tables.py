"""docs/clusters.md: what the search says of links inside hosts, and the links that are fitted to 8 L40S."""

from __future__ import annotations

import pytest

from tests.benchmarks.links import CASES, PAGE, fitted_links, order_row

TEXT = PAGE.read_text(encoding="utf-8")
STALE = "run python tests/benchmarks/links.py --update"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "a100x4" else pytest.mark.sweep) for name in CASES]
)
def test_a_row_of_orders(name: str) -> None:
    assert f"\n{order_row(name)}\n" in TEXT, STALE


def test_the_rates_of_fitted_links() -> None:
    assert f"<!-- fitted-links -->\n\n{fitted_links()}\n" in TEXT, STALE
