"""docs/hugging-face.md: the layouts chosen for published models, without the last column, seconds of the command."""

from __future__ import annotations

import pytest

from tests.benchmarks.models import DOC, HOSTS, MODELS, chosen, table


@pytest.mark.sweep
@pytest.mark.parametrize("hosts", HOSTS)
@pytest.mark.parametrize("model", MODELS)
def test_a_row_of_published_models(model: str, hosts: int) -> None:
    row = table([chosen(model, hosts) | {"plan_s": 0.0}]).splitlines()[-1].removesuffix("0.0 s |")
    assert f"\n{row}" in DOC.read_text(encoding="utf-8"), "run python tests/benchmarks/models.py --update"
