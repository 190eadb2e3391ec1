"""Margins: how far the best two logits of every token were apart, from the shares of the vocabulary of all ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from helixctl_runtime.generate.loop import Stage


class Margins:
    """The best two logits that each token was chosen by, as far as the ranks of a process have them.

    Attributes:
        logits: float64 (batch, new, 2), the larger first; -inf where there is none.
        tokens: int64 (batch, new, 2), whose they are; -1 where there is none.
    """

    def __init__(self, batch: int, new: int) -> None:
        """Know of none yet."""
        self.logits = torch.full((batch, new, 2), -torch.inf, dtype=torch.float64)
        self.tokens = torch.full((batch, new, 2), -1, dtype=torch.int64)

    def keep(self, stage: Stage, step: int, sequences: torch.Tensor) -> None:
        """Take the best two of a step's logits: for ``turns``."""
        for (batch, vocab), numbers in stage.logits():
            best = numbers.topk(min(2, numbers.shape[-1]))
            mine = sequences[batch].nonzero()[:, 0]
            rows = mine + batch.start
            logits, tokens = best.values.cpu().double()[mine], best.indices.cpu()[mine] + vocab.start
            self._add(rows, step, logits, tokens)

    def add(self, other: Margins) -> None:
        """Take what another rank has kept."""
        batch, new, _ = self.logits.shape
        rows = torch.arange(batch)
        for step in range(new):
            self._add(rows, step, other.logits[:, step], other.tokens[:, step])

    def margin(self, sequence: int, step: int) -> float:
        """By how much the best logit of a token is above the second."""
        first, second = self.logits[sequence, step].tolist()
        return float(first - second)

    def _add(self, rows: torch.Tensor, step: int, logits: torch.Tensor, tokens: torch.Tensor) -> None:
        """Merge more candidates, (rows, 1 or 2), into those of a step; several ranks may have the same."""
        have, whose = self.logits[rows, step], self.tokens[rows, step]
        again = (tokens[:, :, None] == whose[:, None, :]).any(-1)
        logits = torch.cat([have, logits.masked_fill(again, -torch.inf)], 1)
        best = logits.topk(2)
        self.logits[rows, step] = best.values
        self.tokens[rows, step] = torch.cat([whose, tokens], 1).gather(1, best.indices)


def merged(each: Sequence[Margins]) -> Margins:
    """What all ranks have kept together."""
    first, *others = each
    for other in others:
        first.add(other)
    return first
