"""Sampling: from which tokens the next one is drawn, and how evenly."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from helixctl.spec.attention import Positive
from helixctl.spec.base import Count, Spec

Share = Annotated[float, Field(strict=True, gt=0, le=1)]

WHOLE: Final = 1.0  # a top_p that leaves nothing out


class SamplingSpec(Spec):
    """The next token is drawn: with the softmax of the logits as probabilities, of the tokens that are kept.

    Attributes:
        temperature: the logits are divided by it: below 1 likely tokens become likelier.
        top_k: only this many of the likeliest tokens are kept; None: all.
        top_p: of these only as many of the likeliest as have this share of their probability together.
    """

    temperature: Positive = 1.0
    top_k: Count | None = None
    top_p: Share = WHOLE

    def leaves_out(self, vocabulary: int) -> bool:
        """Whether there are tokens of a vocabulary of this size that are never drawn."""
        return (self.top_k or vocabulary) < vocabulary or self.top_p < WHOLE

    def __str__(self) -> str:
        """``temperature 0.7, top_k 50, top_p 0.9``."""
        texts = [f"temperature {self.temperature:g}"]
        texts += [] if self.top_k is None else [f"top_k {self.top_k:,}"]
        texts += [] if self.top_p == WHOLE else [f"top_p {self.top_p:g}"]
        return ", ".join(texts)
