"""`logits: last` gives only the logits of the last real token of every sequence, in every layout, on every rank."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helixctl.verify import verify
from tests.runtime.models import EXPERTS, real
from tests.runtime.together import run_together

LENGTHS = torch.tensor([8, 1, 5, 3, 8, 2, 7])
LAYOUTS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "one device": (1, 1, {}),
    "groups": (3, 1, {}),
    "by query": (2, 2, {"slicing": "query"}),
    "by batch, stages, microbatches": (1, 2, {"slicing": "batch", "pipeline": 2, "microbatches": 3}),
    "reduce, in turn": (3, 2, {"slicing": "query", "combine": "reduce", "microbatches": 2, "interleave": 2}),
    "replicas": (2, 1, {"data": 3, "pipeline": 2}),
}


@pytest.mark.parametrize("changes", [{}, {"vocabulary": {"tied": True}}, {"feed_forward": EXPERTS}], ids=str)
@pytest.mark.parametrize("name", LAYOUTS)
def test_they_are_those_of_the_last_real_tokens(name: str, changes: dict[str, Any]) -> None:
    groups, slices, axes = LAYOUTS[name]
    dag = real(groups, slices, changes, logits="last", **axes)
    assert not verify(dag)
    ids = torch.randint(53, (7, 8), generator=torch.Generator().manual_seed(3))
    given = {"input_ids": ids, "length": LENGTHS}
    ran = run_together(dag, given=given)
    assert ran.error <= 2 * ran.unpartitioned
    every = run_together(real(1, 1, changes), given={"input_ids": ids}).outputs[0]
    expected = every[torch.arange(7), LENGTHS - 1]
    for program, rank in zip(ran.programs, range(len(dag.order)), strict=True):
        for value_id, buffer in program.outputs.items():
            value = dag.value[value_id]
            assert value.rank == rank
            rows, columns = (slice(*interval) for interval in value.region)
            assert torch.allclose(buffer.data, expected[rows, columns], rtol=1e-4, atol=1e-5)


def test_without_lengths_it_is_the_last_token_of_all() -> None:
    every, last = run_together(real(1, 1)).outputs[0], run_together(real(1, 1, logits="last")).outputs[0]
    assert last.shape == (7, 53)
    assert torch.equal(every[:, -1], last)


def test_only_the_rows_of_the_last_tokens_go_through_the_head() -> None:
    every, last = (
        {t.id: t.flops for t in real(2, 1, logits=logits).tasks if t.level == "head"} for logits in ("all", "last")
    )
    assert {f"{name}": flops // 8 for name, flops in every.items()} == {n: f for n, f in last.items() if f}
