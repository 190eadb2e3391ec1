"""docs/measurements/gpu.md: what GPUs measured beside what the cost model says of it now."""

from __future__ import annotations

import pytest

from tests.benchmarks.gpus import PAGE, tables


@pytest.mark.sweep
def test_the_tables_are_of_today_s_cost_model() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, table in tables().items():
        assert f"<!-- {name} -->\n\n{table}\n" in page, "run python tests/benchmarks/gpus.py --update"
