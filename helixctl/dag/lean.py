"""Seeded numbers under which a router's choice of experts is as uneven as the workload says.

A router is linear, so that numbers around 0 on both sides of its product make no expert wanted by more than half of the
tokens. So what enters the first layer has the same small pattern in every token, +, -, +, - along ``hidden``, and a
router's column for an expert has it too, as strong as the law wants the expert. The model's function is as ever; with
other weights nothing leans. docs/adr/0035-seeded-routers-lean.md has the reasons.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

from helixctl.records import record
from helixctl.spec import ExpertsSpec, ModelSpec, Step
from helixctl.spec.routing import PowerLaw, layer_shares, power_law

# How strong the pattern is in what enters the first layer, in standard deviations of what else there is along it. Were
# it much more, blocks would make of it what all tokens have in common, by which routers choose as well; were it much
# less, what blocks add along it would decide how strong it is in deep layers.
_STRENGTH: Final = 1.5
_DIGITS: Final = 6  # of a lean: alike on machines whose last bits differ
_NEVER: Final = 1e-6  # no share is nearer to none, or to all tokens


@record
class Leans:
    """How the seeded numbers of a model lean.

    Attributes:
        law: that its experts' loads follow.
        hidden_size: of the model.
    """

    law: PowerLaw
    hidden_size: int

    def of_stream(self, scale: float) -> tuple[float, ...]:
        """That of what enters the first layer, whose other numbers are uniform up to ``scale``."""
        return (_rounded(_STRENGTH / math.sqrt(self.hidden_size) * scale / math.sqrt(3)),)

    def of_router(self, layer: int, experts: ExpertsSpec, scale: float) -> tuple[float, ...] | None:
        """That of each column of a router, whose other numbers are uniform up to ``scale``; None: all are chosen.

        A token's logits differ by chance, normally, with the standard deviation sqrt(hidden / 3) * scale of numbers
        whose mean square is 1. An expert that a share p of tokens chooses has a mean of Phi^-1(p) of these more than
        the least logit that is chosen.
        """
        if experts.top_k == experts.count:
            return None
        shares = layer_shares(self.law, layer, experts.count, experts.top_k)
        deviations = [NormalDist().inv_cdf(min(max(share, _NEVER), 1 - _NEVER)) for share in shares]
        return tuple(_rounded(z * scale / math.sqrt(3) / _STRENGTH) for z in deviations)


def leans_of(model: ModelSpec, step: Step) -> Leans | None:
    """How the seeded numbers of a step lean; None where its routing is even, or the model has no experts."""
    law = power_law(step.routing)
    mixed = any(model.alike(kind).feed_forward.experts for kind in model.kinds)
    return Leans(law, model.hidden_size) if law and mixed else None


def _rounded(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")
