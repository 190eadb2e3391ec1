"""The best two logits of a token: whatever shares of the vocabulary, and copies of them, the ranks have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from helixctl.spec import SamplingSpec
from helixctl_runtime.check.choice import chosen as drawn
from helixctl_runtime.generate.loop import in_turns
from helixctl_runtime.generate.margins import Draw, Margins, merged
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


@pytest.mark.parametrize("how", [{}, {"temperature": 0.3, "top_k": 7}, {"top_p": 0.8}], ids=str)
def test_draws(how: dict[str, Any]) -> None:
    """The best two scores, the first of the token that is drawn; a share of the vocabulary says nothing of them."""
    torch.manual_seed(1)
    whole, seed, lengths = torch.randn(BATCH, VOCAB), -3, torch.tensor([4, 1, 7, 2, 3])
    sampling = SamplingSpec(**how)
    ranks = [
        [(slice(0, 3), slice(0, 7)), (slice(0, 3), slice(0, VOCAB))],
        [(slice(3, BATCH), slice(0, VOCAB)), (slice(3, BATCH), slice(7, VOCAB))],
    ]
    each = [Margins(BATCH, 3, Draw(sampling, seed, lengths, VOCAB)) for _ in ranks]
    for margins, regions in zip(each, ranks, strict=True):
        margins.keep(Step(whole, *regions), 2, torch.ones(BATCH, dtype=torch.bool))  # type: ignore[arg-type]
    found = merged(each)
    for b in range(BATCH):
        at = {"seed": seed, "sequence": b, "position": int(lengths[b]) + 2}
        first, second = found.tokens[b, 2].tolist()
        assert first == drawn(whole[b].double(), sampling, **at)
        without = whole[b].double().index_fill(0, torch.tensor([first]), -torch.inf)
        if not how:  # the kept ones are others without it
            assert second == drawn(without, sampling, **at)
        assert (found.margin(b, 2) or 0) > 0


def test_where_one_token_is_kept_there_is_no_second() -> None:
    draw = Draw(SamplingSpec(top_k=1), 0, torch.ones(BATCH, dtype=torch.int64), VOCAB)
    margins = Margins(BATCH, 1, draw)
    whole = torch.randn(BATCH, VOCAB)
    step: Any = Step(whole, (slice(0, BATCH), slice(0, VOCAB)))
    margins.keep(step, 0, torch.ones(BATCH, dtype=torch.bool))
    assert margins.tokens[:, 0, 0].tolist() == whole.argmax(1).tolist()
    assert margins.margin(2, 0) is None


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
