"""Ranks: how they start, how far they are, and how a run ends when one of them fails."""

from __future__ import annotations

from helixctl_runtime.ranks.launch import run_ranks
from helixctl_runtime.ranks.progress import Phase, Progress
from helixctl_runtime.ranks.rank import Rank

__all__ = ["Phase", "Progress", "Rank", "run_ranks"]
