"""Limits on a generation: what its first tokens, and every further one, may take."""

from __future__ import annotations

from typing import NamedTuple

from helixctl.simulate import Forecast
from helixctl.solve.bound import Bound
from helixctl.units import human_seconds


class Limits(NamedTuple):
    """The most seconds that a layout may take to be chosen; None: no limit.

    Attributes:
        ttft_s: until every sequence has its first token.
        tpot_s: from one token of a sequence to its next.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None

    def __str__(self) -> str:
        """``a time to first token of at most 500 ms and ...``; empty without limits."""
        texts = []
        if self.ttft_s is not None:
            texts.append(f"a time to first token of at most {human_seconds(self.ttft_s)}")
        if self.tpot_s is not None:
            texts.append(f"a time per output token of at most {human_seconds(self.tpot_s)}")
        return " and ".join(texts)

    def exceeded(self, forecast: Forecast) -> str | None:
        """What a forecast takes beyond a limit, or None."""
        its = forecast.generation
        if its is None:
            return None
        found = []
        if self.ttft_s is not None and its.ttft_s > self.ttft_s:
            found.append(f"first token after {human_seconds(its.ttft_s)}, over {human_seconds(self.ttft_s)}")
        if self.tpot_s is not None and its.time_per_output_token_s > self.tpot_s:
            found.append(f"{human_seconds(its.time_per_output_token_s)} a token, over {human_seconds(self.tpot_s)}")
        return "; ".join(found) or None

    def exclude(self, bound: Bound) -> bool:
        """Whether no forecast with this bound keeps within the limits."""
        if self.ttft_s is not None and bound.ttft_s * (1 - 1e-9) > self.ttft_s:
            return True
        return self.tpot_s is not None and bound.time_per_output_token_s * (1 - 1e-9) > self.tpot_s
