"""A mixture of experts: its router, the experts, and the shared expert beside them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from helixctl.spec.attention import Positive
from helixctl.spec.base import Contradiction, Count, Spec, added

_Flag = Annotated[bool, Field(strict=True)]
_Least = Annotated[float, Field(strict=True, ge=0, lt=1)]


class ExpertGroupsSpec(Spec):
    """A choice of experts in two steps: the best groups, then the best experts of these.

    Attributes:
        count: groups, of equally many experts that follow each other.
        top_k: groups from which a token's experts are chosen.
        score: what a group is chosen by: the sum of the scores of its two best experts (DeepSeek V3), or the best
            score (DeepSeek V2).
    """

    count: Annotated[int, Field(strict=True, ge=2, le=4096)]
    top_k: Count
    score: Literal["sum_of_two", "best"] = "sum_of_two"

    @model_validator(mode="after")
    def _top_k_are_there(self) -> Self:
        if self.top_k > self.count:
            raise Contradiction(f"top_k {self.top_k} of {self.count} groups", "top_k")
        return self


class RouterSpec(Spec):
    """How a router's logits become gates.

    Attributes:
        scores: of the logits: a softmax over all experts; a sigmoid of each; or the sparse mixer of Phi-3.5-MoE (Liu
            et al. 2024), whose two gates are each a softmax over the logits near the best of those that are left.
        logits_scale: what logits are multiplied by.
        bias: added to the logits then.
        choice_bias: added to the scores where experts are chosen, and not in the gates; kept in float32 or wider.
        groups: the groups of experts from which the choice is made; None: of all experts.
        scale: what every gate is multiplied by in the end.
        gate_scales: every expert has a learned number besides, which its gates are multiplied by (Gemma 4).
        sum_eps: added to the sum of a token's gates where they are renormalised.
        least_sum: the least by which they are then divided.
        jitter: of the sparse mixer: how far a logit may be from the best, in half of its size, to count.
    """

    scores: Literal["softmax", "sigmoid", "sparse_mixer"] = added("softmax")
    bias: _Flag = added(False)  # noqa: FBT003  a value
    choice_bias: _Flag = added(False)  # noqa: FBT003
    groups: ExpertGroupsSpec | None = added(None)
    scale: Positive = added(1.0)
    sum_eps: _Least = added(0.0)
    least_sum: _Least = added(0.0)
    jitter: _Least = added(0.0)
    logits_scale: Positive = added(1.0)
    gate_scales: _Flag = added(False)  # noqa: FBT003

    @model_validator(mode="after")
    def _sparse_mixer_stands_alone(self) -> Self:
        if self.scores != "sparse_mixer" and self.jitter:
            raise Contradiction(f"jitter is of scores sparse_mixer, not of {self.scores}", "jitter")
        if self.scores == "sparse_mixer" and (self.choice_bias or self.groups):
            field = "choice_bias" if self.choice_bias else "groups"
            raise Contradiction(f"{field} with scores sparse_mixer, which chooses by the logits alone", field)
        return self


class SharedExpertSpec(Spec):
    """A network beside the experts that every token goes through, of the experts' form; several are one, as wide.

    Attributes:
        intermediate_size: its width, of several together.
        scored: its result is multiplied by the sigmoid of a product of the token with a vector (Qwen 2 MoE).
    """

    intermediate_size: Count
    scored: _Flag = added(False)  # noqa: FBT003  a value


class ExpertsSpec(Spec):
    """A mixture of experts: a router gives every token the ``top_k`` best of ``count`` experts.

    Attributes:
        count, top_k: experts, and those of a token.
        renormalise: the gates of the ``top_k`` add up to 1 (Mixtral); else they are the scores, such as what a softmax
            over all experts gives them.
        router: how scores and gates are made.
        shared: the shared expert; None: none.
        gates_on: what a gate multiplies: an expert's output, or its input (Llama 4).
        norms: apart: the router, the experts and the shared expert have a norm each of what they read, and experts and
            the shared expert one each of what they make, ahead of their sum (Gemma 4); shared: one of what all read.
    """

    count: Annotated[int, Field(strict=True, ge=2, le=4096)]
    top_k: Count = 2
    renormalise: _Flag = True
    router: RouterSpec = added(RouterSpec())
    shared: SharedExpertSpec | None = added(None)
    gates_on: Literal["output", "input"] = added("output")
    norms: Literal["shared", "apart"] = added("shared")

    @model_validator(mode="after")
    def _top_k_are_there(self) -> Self:
        if self.top_k > self.count:
            raise Contradiction(f"top_k {self.top_k} of {self.count} experts", "top_k")
        if self.router.scores == "sparse_mixer" and (self.top_k != 2 or self.renormalise):  # noqa: PLR2004
            field = "renormalise" if self.renormalise else "top_k"
            message = f"{field} {getattr(self, field)} with scores sparse_mixer, which makes 2 gates that are not"
            raise Contradiction(f"{message} renormalised", field)
        return self

    @model_validator(mode="after")
    def _norms_apart_are_of_two(self) -> Self:
        if self.norms == "apart" and self.shared is None:
            raise Contradiction("norms apart of experts without a shared one", "norms")
        return self

    @model_validator(mode="after")
    def _groups_have_the_experts(self) -> Self:
        groups = self.router.groups
        if groups is None:
            return self
        each = self.count // groups.count
        if self.count % groups.count:
            raise Contradiction(f"{groups.count} groups do not divide {self.count} experts", "router")
        if groups.score == "sum_of_two" and each == 1:
            raise Contradiction("groups of 1 expert are scored by the sum of their two best", "router")
        if self.top_k > groups.top_k * each:
            message = f"top_k {self.top_k} of {groups.top_k} groups of {each} experts"
            raise Contradiction(message, "top_k")
        return self


class ClampSpec(Spec):
    """A gated activation within bounds (gpt-oss).

    With g = min(gate, limit) and u = up between -limit and limit it is g * sigmoid(alpha * g) * (u + 1).
    """

    limit: Positive
    alpha: Positive
