"""The numbers of their positions that queries are multiplied by: part of the model's function (docs/formats.md)."""

from __future__ import annotations

import torch

from helixctl.plan import Interval
from helixctl.spec import PositionScalingSpec


def query_scales(scaling: PositionScalingSpec, positions: Interval) -> torch.Tensor:
    """1 + factor ln(1 + floor((p + first) / tokens)) of every position p.

    Args:
        scaling: of the model's attention.
        positions: the first position, and the one after the last.

    Returns:
        float32 of shape (positions,), the numbers nearest to the exact ones.
    """
    steps = (torch.arange(*positions) + scaling.first) // scaling.tokens
    return (1 + scaling.factor * torch.log1p(steps.double())).float()
