"""Margins: how far the best two of every choice were apart, from the shares of the vocabulary of all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from helixctl.spec import SamplingSpec
from helixctl_runtime.generate.loop import Stage
from helixctl_runtime.kernels.sampling import scored
from helixctl_runtime.splitmix64 import signed


@dataclass(frozen=True, slots=True)
class Draw:
    """How the tokens of a generation are drawn.

    Attributes:
        sampling: temperature, top_k and top_p.
        seed: of the run.
        lengths: int64 (batch), of the prompts.
        vocabulary: how many tokens there are.
    """

    sampling: SamplingSpec
    seed: int
    lengths: torch.Tensor
    vocabulary: int

    def best_two(self, logits: torch.Tensor, first: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The two largest scores and their tokens, each (rows, at most 2).

        Args:
            logits: (rows, vocab), the whole vocabulary.
            first: the place of the first row in the whole batch.
            step: the number of the token, from 0.
        """
        rows = torch.arange(first, first + len(logits), device=logits.device)
        position = (self.lengths + step)[first : first + len(logits)].to(logits.device)
        scores, tokens = scored(self.sampling, logits, torch.full_like(rows, signed(self.seed)), rows, position)
        best = scores.topk(min(2, scores.shape[-1]))
        return best.values, tokens.gather(1, best.indices)


class Margins:
    """The best two that each token was chosen among, as far as the ranks of a process have them.

    Of greedy tokens these are logits, of drawn ones scores: scaled logits with their random numbers.

    Attributes:
        logits: float64 (batch, new, 2), the larger first; -inf where there is none.
        tokens: int64 (batch, new, 2), whose they are; -1 where there is none.
    """

    def __init__(self, batch: int, new: int, draw: Draw | None = None) -> None:
        """Know of none yet.

        Args:
            batch: sequences.
            new: tokens of each, at most.
            draw: how tokens are drawn; None: the largest logit is taken.
        """
        self._draw = draw
        self.logits = torch.full((batch, new, 2), -torch.inf, dtype=torch.float64)
        self.tokens = torch.full((batch, new, 2), -1, dtype=torch.int64)

    def keep(self, stage: Stage, step: int, sequences: torch.Tensor) -> None:
        """Take the best two of a step's logits: for ``turns``."""
        for (batch, vocab), numbers in stage.logits():
            if self._draw is None:
                best = numbers.topk(min(2, numbers.shape[-1]))
                values, indices = best.values, best.indices + vocab.start
            elif numbers.shape[-1] == self._draw.vocabulary:
                values, indices = self._draw.best_two(numbers, batch.start, step)
            else:
                continue  # a rank that draws has all logits too, and its own share of them besides
            mine = sequences[batch].nonzero()[:, 0]
            self._add(mine + batch.start, step, values.cpu().double()[mine], indices.cpu()[mine])

    def add(self, other: Margins) -> None:
        """Take what another rank has kept."""
        batch, new, _ = self.logits.shape
        rows = torch.arange(batch)
        for step in range(new):
            self._add(rows, step, other.logits[:, step], other.tokens[:, step])

    def margin(self, sequence: int, step: int) -> float | None:
        """By how much the best logit, or score, of a token is above the second; None where only one may be taken."""
        first, second = self.logits[sequence, step].tolist()
        return None if second == -torch.inf else float(first - second)

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
