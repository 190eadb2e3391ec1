"""The best two logits of a token: whatever shares of the vocabulary, and copies of them, the ranks have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from helixctl_runtime.generate.loop import in_turns
from helixctl_runtime.generate.margins import Margins, merged
from helixctl_runtime.report.generations import places_parted

BATCH, VOCAB = 5, 12


class Step:
    """A step of a rank that has some regions of the logits."""

    def __init__(self, whole: torch.Tensor, *regions: tuple[slice, slice]) -> None:
        self.parts = [(region, whole[region]) for region in regions]

    def logits(self) -> Iterator[Any]:
        return iter(self.parts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shares_and_copies(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    whole = torch.randn(BATCH, VOCAB).to(dtype)
    every = slice(0, BATCH)
    ranks = [
        [(every, slice(0, 1)), (slice(0, 3), slice(0, 7))],
        [(every, slice(1, 7))],
        [(slice(0, 2), slice(7, VOCAB)), (slice(2, BATCH), slice(7, VOCAB))],
        [(every, slice(0, VOCAB))],
    ]
    chosen = torch.tensor([True, False, True, True, True])
    for some in (ranks, ranks[:3], ranks[3:]):
        each = [Margins(BATCH, 2) for _ in some]
        for margins, regions in zip(each, some, strict=True):
            margins.keep(Step(whole, *regions), 1, chosen)  # type: ignore[arg-type]
        found, best = merged(each), whole.double().topk(2)
        assert torch.equal(found.logits[chosen, 1], best.values[chosen])
        assert torch.equal(found.tokens[chosen, 1, 0], best.indices[chosen, 0])
        assert (found.tokens[1] == -1).all()
        assert (found.tokens[:, 0] == -1).all()
        assert found.margin(4, 1) == best.values[4, 0] - best.values[4, 1]


def test_the_first_place_of_each_sequence() -> None:
    margins, others = Margins(3, 3), Margins(3, 3)
    margins.logits[1, 2], others.logits[1, 2] = torch.tensor([5.0, 4.5]), torch.tensor([4.0, 3.75])
    tokens, theirs = [[1, 2, 3], [4, 5, 6], [7, 8, -1]], [[1, 2, 3], [4, 5, 9], [7, 8, -1]]
    assert places_parted(tokens, tokens, margins, others) == []
    parted = {"sequence": 1, "token": 2, "chosen": [6, 9], "margins": [0.5, 0.25]}
    assert places_parted(tokens, theirs, margins, others) == [parted]


def test_runs_take_turns_and_ranks_as_many_of_them() -> None:
    """Whoever is done earlier still meets the others."""
    done: list[str] = []

    def run(name: str, steps: int) -> Any:
        for _ in range(steps):
            done.append(name)
            yield
        return name

    found: Any = in_turns([run("a", 1), run("b", 3)], lambda which: done.append(str(which)), rounds=5)
    assert found == ["a", "b"]
    assert "".join(done) == "0a1b" + "01b" * 2 + "01" * 2
