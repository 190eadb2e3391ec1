"""The model's function as equations over whole tensors: what every dag of that model must compute.

Lowering cuts these equations over ranks, verification holds every task against them, and the reference evaluates them
unpartitioned. Nothing here knows of devices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

from helixctl.dag.document import Role, Tensor
from helixctl.dag.ops import Activation, Add, Attention, Experts, Linear, Norm, Op, Route
from helixctl.plan.layout import full_extents
from helixctl.spec import ModelSpec, WorkloadSpec

_TOKENS = ("batch", "seq")
_HEADS = ("head", "head_dim")


@dataclass(frozen=True, slots=True)
class Equation:
    """``outputs = op(inputs)`` over whole tensors of one layer."""

    layer: int
    op: Op
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Function:
    """Every tensor of a model under a workload, and the equations between them in the order of evaluation."""

    tensors: dict[str, Tensor]
    equations: tuple[Equation, ...]

    @cached_property
    def defining(self) -> dict[str, Equation]:
        """The equation that defines each tensor; inputs and weights have none."""
        return {name: eq for eq in self.equations for name in eq.outputs}


def seeded(fan_in: int) -> tuple[float, float]:
    """The (offset, scale) of a weight's seeded numbers: the power of two nearest to sqrt(3 / fan_in).

    Uniform numbers in [-sqrt(3/k), sqrt(3/k)) keep the variance of a sum of k products; a power of two keeps the
    numbers exact in float32, so that every reader of docs/formats.md gets the same bits.
    """
    return (0.0, 2.0 ** round(math.log2(math.sqrt(3 / fan_in))))


def hidden_states(model: ModelSpec, layer: int) -> str:
    """The tensor that enters a layer; ``layer == model.layers`` gives the model's output."""
    if layer == 0:
        return "input"
    return "output" if layer == model.layers else f"l{layer - 1}.output"


@lru_cache(maxsize=8)
def function_of(model: ModelSpec, workload: WorkloadSpec) -> Function:
    """A pre-norm transformer: per layer attention and a feed-forward network, each behind a norm, each added back.

    The feed-forward network may be a mixture of experts: GShard's (Lepikhin et al. 2020) with the gates of the top k
    renormalised and no token dropped, as in Mixtral (Jiang et al. 2024).
    """
    extents = full_extents(model, workload)
    tensors: dict[str, Tensor] = {}
    equations: list[Equation] = []

    def tensor(name: str, role: Role, dims: tuple[str, ...], init: tuple[float, float] | None = None) -> str:
        tensors[name] = Tensor(name, role, dims, tuple(extents[d] for d in dims), init)
        return name

    def weight(name: str, dims: tuple[str, ...], contract: tuple[str, ...]) -> str:
        return tensor(name, "weight", dims, seeded(math.prod(extents[d] for d in contract)))

    def norm_weight(name: str) -> str:
        return tensor(name, "weight", ("hidden",), (1.0, 0.125))

    def define(layer: int, op: Op, inputs: tuple[str, ...], *outputs: str) -> None:
        equations.append(Equation(layer, op, inputs, outputs))

    norm = Norm(model.norm.function, "hidden", model.norm.eps)
    attention = Attention(model.attention.softmax_width, model.attention.causal)
    experts = model.feed_forward.experts
    each = ("expert",) if experts else ()
    inner = (("gates", "expert"),) if experts else (("up", "ffn"), ("activated", "ffn"))
    hidden = (*_TOKENS, "hidden")
    tensor("input", "input", hidden, (0.0, 1.0))
    for i in range(model.layers):
        p, x, y = f"l{i}.", hidden_states(model, i), hidden_states(model, i + 1)
        # The order of declaration is the order of the document.
        norm_1 = norm_weight(p + "attention_norm")
        qkv_weights = tuple(weight(p + w, ("hidden", *_HEADS), ("hidden",)) for w in ("w_q", "w_k", "w_v"))
        w_o = weight(p + "w_o", (*_HEADS, "hidden"), _HEADS)
        norm_2 = norm_weight(p + "feed_forward_norm")
        router = [weight(p + "w_router", ("hidden", "expert"), ("hidden",))] if experts else []
        w_up = weight(p + "w_up", (*each, "hidden", "ffn"), ("hidden",))
        w_down = weight(p + "w_down", (*each, "ffn", "hidden"), ("ffn",))

        attention_in = tensor(p + "attention_in", "activation", hidden)
        qkv = tuple(tensor(p + name, "activation", (*_TOKENS, *_HEADS)) for name in ("q", "k", "v"))
        attended = tensor(p + "attention", "activation", (*_TOKENS, *_HEADS))
        projection = tensor(p + "projection", "activation", hidden)
        residual = tensor(p + "residual", "activation", hidden)
        feed_forward_in = tensor(p + "feed_forward_in", "activation", hidden)
        between = [tensor(p + name, "activation", (*_TOKENS, dim)) for name, dim in inner]
        down = tensor(p + "down", "activation", hidden)
        tensor(y, "output" if i + 1 == model.layers else "activation", hidden)

        define(i, norm, (x, norm_1), attention_in)
        define(i, Linear(("hidden",)), (attention_in, *qkv_weights), *qkv)
        define(i, attention, qkv, attended)
        define(i, Linear(_HEADS), (attended, w_o), projection)
        define(i, Add(), (x, projection), residual)
        define(i, norm, (residual, norm_2), feed_forward_in)
        if experts:
            define(i, Route(experts.top_k), (feed_forward_in, *router), *between)
            mixture = Experts(model.feed_forward.activation, experts.top_k)
            define(i, mixture, (feed_forward_in, *between, w_up, w_down), down)
        else:
            up, activated = between
            define(i, Linear(("hidden",)), (feed_forward_in, w_up), up)
            define(i, Activation(model.feed_forward.activation), (up,), activated)
            define(i, Linear(("ffn",)), (activated, w_down), down)
        define(i, Add(), (residual, down), y)
    return Function(tensors, tuple(equations))
