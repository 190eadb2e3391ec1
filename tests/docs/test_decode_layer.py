"""docs/decode.md: where the time of a layer goes, and how fast caches are read, are what is predicted now."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.benchmarks.decode_layer import PAGE, cache_rates, layer


@pytest.mark.parametrize(("name", "table"), [("layer", layer), ("cache-rates", cache_rates)])
def test_a_table_of_one_layer(name: str, table: Callable[[], str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert f"<!-- {name} -->\n\n{table()}\n" in page, "run python tests/benchmarks/decode_layer.py --update"
