"""The model's function as equations over whole tensors: what every dag of that model must compute.

Lowering cuts these equations over ranks, verification holds every task against them, and the reference evaluates them
unpartitioned. Nothing here knows of devices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby
from typing import cast

from helixctl.dag import latent
from helixctl.dag.document import Level, Role, Tensor
from helixctl.dag.lean import leans_of
from helixctl.dag.ops import (
    Activation,
    Add,
    Attention,
    Best,
    Bias,
    CachedAttention,
    CacheWrite,
    Choose,
    Embed,
    Experts,
    LastToken,
    Linear,
    Merge,
    Multiply,
    Norm,
    NormBySums,
    Op,
    PartialAttention,
    Rotate,
    RotateAt,
    Route,
    Sample,
    Scale,
    ScaleBy,
    ScaleQueries,
    SquareSums,
    TokenGate,
    contracted,
)
from helixctl.dag.storage import Storage
from helixctl.plan.layout import full_extents
from helixctl.records import record
from helixctl.spec import (
    ExpertsSpec,
    ModelSpec,
    MultipliersSpec,
    RotarySpec,
    SamplingSpec,
    SharedExpertSpec,
    Step,
    VocabularySpec,
    stored_as,
)

_TOKENS = ("batch", "seq")
_HIDDEN = (*_TOKENS, "hidden")
LENGTH = "length"  # real tokens of every sequence, which come first; in a step with a cache those that it holds
COUNT = "count"  # real new tokens of every sequence in a step with a cache, which come first
SEED = "seed"  # of the random numbers of every sequence, where tokens are drawn
TOKEN = "token"  # noqa: S105  the next of every sequence
_POSITION = ("key_cycle", "key_lane", "key_offset")
# Of an attention: softmax_width, causal, window, chunk, scale and soft_cap.
Scores = tuple[int, bool, int | None, int | None, float | None, float | None, int | None]


@record
class Equation:
    """``outputs = op(inputs)`` over whole tensors of one layer.

    Its tasks are filed under ``level``, and ``name`` is theirs in it (none where the level has one task a rank).
    """

    layer: int
    level: Level
    name: str
    op: Op
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Function:
    """Every tensor of a model under a workload, and the equations between them in the order of evaluation."""

    tensors: dict[str, Tensor]
    equations: tuple[Equation, ...]

    @cached_property
    def layers(self) -> dict[int, tuple[Equation, ...]]:
        """The equations of each layer."""
        return {layer: tuple(found) for layer, found in groupby(self.equations, key=lambda eq: eq.layer)}

    @cached_property
    def defining(self) -> dict[str, Equation]:
        """The equation that defines each tensor; inputs and weights have none."""
        return {name: eq for eq in self.equations for name in eq.outputs}

    @cached_property
    def sums(self) -> frozenset[tuple[str, ...]]:
        """The dims over which equations sum, those of one equation together."""
        return frozenset(contracted(eq.op) for eq in self.equations)

    @cached_property
    def contracted(self) -> dict[str, tuple[str, ...]]:
        """The dims over which a product sums each tensor that it reads, in the tensor's order."""
        return {
            eq.inputs[0]: tuple(dim for dim in self.tensors[eq.inputs[0]].dims if dim in eq.op.contract)
            for eq in self.equations
            if isinstance(eq.op, Linear)
        }


def seeded(fan_in: int) -> tuple[float, float]:
    """The (offset, scale) of a weight's seeded numbers: the power of two nearest to sqrt(3 / fan_in).

    Uniform numbers in [-sqrt(3/k), sqrt(3/k)) keep the variance of a sum of k products; a power of two keeps the
    numbers exact in float32, so that every reader of docs/formats.md gets the same bits.
    """
    return (0.0, 2.0 ** round(math.log2(math.sqrt(3 / fan_in))))


def hidden_states(model: ModelSpec, layer: int) -> str:
    """The tensor that enters a layer; ``layer == model.layers`` gives what leaves the last."""
    if layer == 0:
        return "embedded" if model.vocabulary else "input"
    return "output" if layer == model.layers and not model.vocabulary else f"l{layer - 1}.output"


def entering(function: Function, model: ModelSpec, layer: int) -> tuple[str, ...]:
    """What a layer reads of those before it: the residual stream, and a choice of keys that it shares."""
    names = [name for equation in function.layers[layer] for name in equation.inputs]
    made = [name for name in names if name in function.defining and function.defining[name].layer < layer]
    return tuple(dict.fromkeys([hidden_states(model, layer), *made]))


def input_of(model: ModelSpec) -> str:
    """The tensor that enters the first layer, or its embedding; a step may be given ``length`` besides."""
    return "input_ids" if model.vocabulary else "input"


def output_of(model: ModelSpec) -> str:
    """The tensor that a step makes."""
    return "logits" if model.vocabulary else "output"


def head_weight(vocabulary: VocabularySpec) -> str:
    """The weight of the language-model head: its own, or the embedding's."""
    return "embedding" if vocabulary.tied else "w_head"


@lru_cache(maxsize=64)
def function_of(model: ModelSpec, step: Step) -> Function:
    """A pre-norm transformer: per layer attention and a feed-forward network, each behind a norm, each added back.

    Layers may be of several kinds, each with equations and sizes of its own (``model.alike``).

    The feed-forward network may be a mixture of experts: GShard's (Lepikhin et al. 2020) with no token dropped, its
    gates renormalised or not. With a vocabulary the layers stand between an embedding and a language-model head, which
    makes the logits of all tokens, or of the last of every sequence. With a cache new tokens attend to the tokens that
    it holds as well, and the logits give the next token of every sequence.
    """
    f = _Equations(model, step)
    if model.vocabulary:
        f.embedding(model.vocabulary)
    else:
        f.tensor("input", "input", _HIDDEN, (0.0, 1.0), lean=f.leans.of_stream(1.0) if f.leans else None)
    if step.cached is not None:
        f.count(LENGTH, step.cached)
        f.count(COUNT, step.seq_len)
    for layer in range(model.layers):
        f.layer(layer)
    if model.vocabulary:
        f.head(model.vocabulary)
    return Function(f.tensors, tuple(f.equations))


class _Equations:
    """The equations under construction. The order of declaration is the order of the document."""

    def __init__(self, model: ModelSpec, step: Step) -> None:
        self.model, self.step = model, step
        self.block = model.alike(model.kind(0))  # of the layer that is added
        self.extents = full_extents(self.block, step)
        self.logits = step.logits
        self.leans = leans_of(model, step)
        self.norm = Norm(model.norm.function, "hidden", model.norm.eps, model.norm.unit_offset)
        self.multipliers = model.multipliers or MultipliersSpec()
        self.tensors: dict[str, Tensor] = {}
        self.equations: list[Equation] = []

    def tensor(
        self,
        name: str,
        role: Role,
        dims: tuple[str, ...],
        init: tuple[float, float] | None = None,
        following: str | None = None,
        inputs: tuple[str, ...] = (),
        storage: Storage | None = None,
        lean: tuple[float, ...] | None = None,
    ) -> str:
        """Declare a tensor; ``inputs``: of a matrix, the dims over which a product sums."""
        spec = stored_as(self.block.stored, name.rpartition(".")[2]) if inputs else None
        storage = Storage.of(spec, inputs) if spec else storage
        shape = tuple(self.extents[d] for d in dims)
        self.tensors[name] = Tensor(name, role, dims, shape, init, following, storage, lean)
        return name

    def activation(self, name: str, *dims: str) -> str:
        return self.tensor(name, "activation", (*_TOKENS, *dims))

    def weight(self, name: str, dims: tuple[str, ...], contract: tuple[str, ...]) -> str:
        return self.tensor(name, "weight", dims, seeded(math.prod(self.extents[d] for d in contract)), inputs=contract)

    def weight_into_stream(self, name: str, dims: tuple[str, ...], contract: tuple[str, ...]) -> str:
        """A matrix whose product is added to the residual stream.

        Where routing leans its numbers are smaller, as GPT-2's are: then what all blocks add together is no more than
        what enters the first, so that deep routers see as much of the lean as the first does.
        """
        offset, scale = seeded(math.prod(self.extents[d] for d in contract))
        if self.leans:
            scale *= 2.0 ** -round(math.log2(2 * self.model.layers) / 2)
        return self.tensor(name, "weight", dims, (offset, scale), inputs=contract)

    def norm_weight(self, name: str, *dims: str) -> str:
        around = 0.0 if self.model.norm.unit_offset else 1.0
        return self.tensor(name, "weight", dims, (around, 0.125))

    def norm_weights(self, name: str) -> tuple[str, ...]:
        """The weight of a norm of the residual stream, and its bias."""
        weight = self.norm_weight(name, "hidden")
        if not self.model.norm.bias:
            return (weight,)
        return (weight, self.tensor(name + "_bias", "weight", ("hidden",), (0.0, 0.125)))

    def define(self, layer: int, task: str, op: Op, inputs: tuple[str, ...], *outputs: str) -> None:
        """Add an equation; ``task``: level and name of its tasks, as in their ids."""
        level, _, name = task.partition(".")
        self.equations.append(Equation(layer, cast("Level", level), name, op, inputs, outputs))

    @property
    def qkv(self) -> dict[str, tuple[str, str]]:
        """The dims of queries, keys and values beside those of tokens."""
        names = "qkv" if self.block.attention.values == "own" else "qk"
        return {n: ("head" if n == "q" else "kv_head", "head_dim" if n != "v" else self.heads[1]) for n in names}

    @property
    def value(self) -> tuple[str, str]:
        """The dims of values."""
        return ("kv_head", self.heads[1])

    @property
    def heads(self) -> tuple[str, str]:
        """Those of what attention makes."""
        return ("head", self.block.attention.value_dim_name)

    @property
    def attended(self) -> str:
        """The name of what attention makes."""
        return "attention_ungated" if self.block.attention.output_gate else "attention"

    @property
    def held(self) -> tuple[str, ...]:
        """With a cache, how many tokens of every sequence it holds."""
        return (LENGTH,) if self.cached else ()

    @property
    def lengths(self) -> tuple[str, str]:
        """How many tokens of every sequence the cache holds, and how many are new."""
        return (LENGTH, COUNT)

    def rotation(self, rotary: RotarySpec, last: int | None = None) -> Rotate | RotateAt:
        """A rotation of the step; ``last``: the number of dims, the last of every head, that turn."""
        positions = self.step.positions if self.cached else self.step.seq_len
        dims = rotary.dims or last or self.block.attention.head_dim
        op = RotateAt if self.cached else Rotate
        return op(rotary.resolved(dims, positions), rotary.is_long(positions), last)

    @property
    def scores(self) -> Scores:
        """The attributes of the attention of a layer; what masks no key of any sequence is none of them."""
        spec, positions = self.block.attention, max(self.step.seq_len, self.step.positions)
        window, chunk = (n if n is not None and n < positions else None for n in (spec.sliding_window, spec.chunk))
        return spec.softmax_width, spec.causal, window, chunk, spec.scale, spec.soft_cap, self.top_k

    @property
    def top_k(self) -> int | None:
        """The size of a sparse choice of keys: no more than there are positions; None where there is none."""
        return self.extents["choice"] if self.block.attention.sparse else None

    @property
    def cached(self) -> bool:
        """Whether new tokens attend to a cache."""
        return self.step.cached is not None

    @property
    def kept(self) -> Storage | None:
        """How a cache is stored, where that is not in the model's dtype."""
        return Storage(self.step.cache_dtype, ()) if self.step.cache_dtype else None

    def count(self, name: str, number: int) -> str:
        """An input with a number of every sequence, which it is where no other numbers are given."""
        return self.tensor(name, "input", ("batch",), (float(number), 0.0))

    def embedding(self, vocabulary: VocabularySpec) -> None:
        ids = self.tensor("input_ids", "input", _TOKENS, (0.0, float(vocabulary.size)))
        init = seeded(self.model.hidden_size) if vocabulary.tied else (0.0, 1.0)
        lean = self.leans.of_stream(init[1]) if self.leans else None
        table = self.tensor("embedding", "weight", ("vocab", "hidden"), init, inputs=("hidden",), lean=lean)
        op = Embed(self.multipliers.embedding, self.multipliers.embedding_in_dtype)
        self.define(0, "embed.lookup", op, (ids, table), self.activation("embedded", "hidden"))

    def head(self, vocabulary: VocabularySpec) -> None:
        last = self.model.layers - 1
        x = hidden_states(self.model, last + 1)
        tokens: tuple[str, ...] = _TOKENS
        if self.logits == "last":
            tokens = ("batch",)
            length = COUNT if self.cached else self.count(LENGTH, self.extents["seq"])
            every, x = x, self.tensor("last_hidden", "activation", ("batch", "hidden"))
            self.define(last, "head.last", LastToken(), (every, length), x)
        norm = self.norm_weights("final_norm")
        if not vocabulary.tied:
            self.weight("w_head", ("hidden", "vocab"), ("hidden",))
        normed = self.tensor("normed", "activation", (*tokens, "hidden"))
        logits = self.tensor("logits", "output", (*tokens, "vocab"))
        self.define(last, "head.norm", self.norm, (x, *norm), normed)
        scale = Scale(self.multipliers.logits, self.multipliers.logits_cap)
        made = logits if scale == Scale() else self.tensor("unscaled_logits", "activation", (*tokens, "vocab"))
        self.define(last, "head.logits", Linear(("hidden",)), (normed, head_weight(vocabulary)), made)
        if made != logits:
            self.define(last, "head.scale", scale, (made,), logits)
        if self.cached:
            self.token(last, logits, self.step.sampling)

    def token(self, layer: int, logits: str, sampling: SamplingSpec | None) -> None:
        """The next token of every sequence: drawn from all logits, or the best of the best of each share."""
        if sampling is not None:
            inputs = (logits, self.count(SEED, 0), LENGTH, COUNT)
            self.define(layer, "head.sample", Sample(sampling), inputs, self.tensor(TOKEN, "output", ("batch",)))
            return
        logit, best = (self.tensor(f"best_{n}", "activation", ("batch", "vocab_share")) for n in ("logit", "token"))
        self.define(layer, "head.best", Best(), (logits,), logit, best)
        self.define(layer, "head.choose", Choose(), (logit, best), self.tensor(TOKEN, "output", ("batch",)))

    def layer(self, i: int) -> None:
        p, model = f"l{i}.", self.model
        self.block = model.alike(model.kind(i))
        self.extents = full_extents(self.block, self.step)
        x, y = hidden_states(model, i), hidden_states(model, i + 1)
        read, projection = self.attention(i, p, x)
        residual = self.activation(p + "residual", "hidden")
        self.define(i, "project.add", Add(self.multipliers.residual), (x, projection), residual)
        down = self.feed_forward(i, p, read if model.side_by_side else residual)
        self.tensor(y, "output" if y == output_of(model) else "activation", _HIDDEN)
        made = self.activation(p + "unscaled_output", "hidden") if model.layer_scale else y
        self.define(i, "feed_forward.add", Add(self.multipliers.residual), (residual, down), made)
        if made != y:
            scale = self.tensor(p + "w_layer_scale", "weight", ("one",), (1.0, 0.125))
            self.define(i, "feed_forward.scale", ScaleBy(), (made, scale), y)

    def normed_before(self, i: int, task: str, x: str, norm: tuple[str, ...], out: str) -> str:
        """What a block reads: normalised, or as it is where no norm comes before the block."""
        if not norm:
            return x
        self.define(i, task, self.norm, (x, *norm), self.activation(out, "hidden"))
        return out

    def normed_after(self, i: int, task: str, x: str, name: str) -> str:
        """What a block makes: normalised where the model's norms come after the blocks or around them."""
        if not self.model.norm.after:
            return x
        norm = self.norm_weights(name)
        out = self.activation(x.removesuffix("_biased") + "_normed", "hidden")
        self.define(i, task, self.norm, (x, *norm), out)
        return out

    def attention(self, i: int, p: str, x: str) -> tuple[str, str]:
        """What attention reads, and what it makes."""
        spec = self.block.attention
        norm = self.norm_weights(p + "attention_norm") if self.model.norm.before else ()
        weights: tuple[str, ...] = ()
        if spec.latent:
            latent.add_weights(self, p, spec.latent)
        else:
            weights = tuple(self.weight(p + f"w_{n}", ("hidden", *dims), ("hidden",)) for n, dims in self.qkv.items())
        biases = tuple(self.weight(p + f"b_{n}", dims, ("hidden",)) for n, dims in self.qkv.items() if spec.qkv_bias)
        shared = spec.qk_norm_over == "head" and spec.qk_norm_weight == "shared"
        weighted = spec.qk_norm and spec.qk_norm_weight != "none"
        norms = [
            self.norm_weight(p + f"{n}_norm", *(("head_dim",) if shared else self.qkv[n])) for n in "qk" if weighted
        ]
        if spec.output_gate:
            weights = (*weights, self.weight(p + "w_output_gate", ("hidden", *self.heads), ("hidden",)))
        w_o = self.weight_into_stream(p + "w_o", (*self.heads, "hidden"), self.heads)
        b_o = [self.weight(p + "b_o", ("hidden",), self.heads)] if spec.output_bias else []
        sinks = (self.tensor(p + "sinks", "weight", ("head",), (0.0, 1.0)),) if spec.sinks else ()

        normed = self.normed_before(i, "distribute.norm", x, norm, p + "attention_in")
        if spec.latent:
            attention = latent.attend(self, i, p, normed, spec.latent)
        else:
            attention = self.attend(i, p, normed, weights, biases, norms, sinks)
        projection = self.activation(p + "projection", "hidden")
        self.define(i, "project.linear", Linear(self.heads), (attention, w_o), projection)
        for bias in b_o:
            unbiased_projection, projection = projection, self.activation(p + "projection_biased", "hidden")
            self.define(i, "project.bias", Bias(), (unbiased_projection, bias), projection)
        return normed, self.normed_after(i, "project.norm", projection, p + "attention_post_norm")

    def attend(
        self,
        i: int,
        p: str,
        normed: str,
        weights: tuple[str, ...],
        biases: tuple[str, ...],
        norms: list[str],
        sinks: tuple[str, ...],
    ) -> str:
        """What attention makes of what it reads, with keys and values that are products of it."""
        spec = self.block.attention
        made = [self.activation(p + n, *dims) for n, dims in self.qkv.items()]
        gate = [self.activation(p + "output_gate", *self.heads)] if spec.output_gate else []
        self.define(i, "distribute.qkv", Linear(("hidden",)), (normed, *weights), *made, *gate)
        if biases:
            unbiased, made = made, [self.activation(f"{p}{n}_biased", *dims) for n, dims in self.qkv.items()]
            self.define(i, "distribute.bias", Bias(), (*unbiased, *biases), *made)
        q, k, v = made[0], made[1], made[-1]  # where values are the keys there is no third
        if spec.value_norm:
            raw, v = v, self.activation(p + "v_normed", *self.value)
            norm = Norm(self.model.norm.function, self.heads[1], self.model.norm.eps)
            self.define(i, "attend.v_norm", norm, (raw,), v)
        if spec.qk_norm:
            q, k = self.normed_heads(i, p, q, k, norms)
        if spec.rotary:
            op = self.rotation(spec.rotary)
            unrotated = (q, k, *self.held)
            q, k = (self.activation(f"{p}{n}_rotated", *self.qkv[n]) for n in "qk")
            self.define(i, "attend.rotate", op, unrotated, q, k)
        q = self.scaled_queries(i, p, q)
        if spec.value_scale != 1:
            unscaled, v = v, self.activation(p + "v_scaled", *self.value)
            self.define(i, "attend.value_scale", Scale(spec.value_scale), (unscaled,), v)
        if self.cached:
            attention = self.cached_attention(i, p, (q, k, v), sinks)
        else:
            attention = self.activation(p + self.attended, *self.heads)
            self.define(i, "attend", Attention(*self.scores), (q, k, v, *sinks), attention)
        return self.gated(i, p, attention, gate[0]) if gate else attention

    def gated(self, i: int, p: str, attention: str, gate: str) -> str:
        """What attention makes, times the sigmoid of its gate."""
        sigmoid, out = (self.activation(p + n, *self.heads) for n in ("output_gate_sigmoid", "attention"))
        self.define(i, "attend.sigmoid", Activation("sigmoid"), (gate,), sigmoid)
        self.define(i, "attend.gate", Multiply(), (attention, sigmoid), out)
        return out

    def scaled_queries(self, i: int, p: str, q: str) -> str:
        """Queries times the numbers of their positions, where any of them is not 1."""
        scaling = self.block.attention.position_scaling
        if scaling is None or not scaling.scales(max(self.step.seq_len, self.step.positions)):
            return q
        scaled = self.activation(p + "q_scaled", *self.qkv["q"])
        self.define(i, "attend.scale", ScaleQueries(scaling), (q, *self.held), scaled)
        return scaled

    def normed_heads(self, i: int, p: str, q: str, k: str, weights: list[str]) -> tuple[str, str]:
        """Queries and keys, normalised: every head alone, or all heads together."""
        spec, norm = self.block.attention, self.model.norm
        targets = tuple(self.activation(f"{p}{n}_normed", *self.qkv[n]) for n in "qk")
        if spec.qk_norm_over == "projection":
            sums = self.activation(p + "qk_squares", "qk")
            self.define(i, "distribute.squares", SquareSums(), (q, k), sums)
            self.define(
                i, "distribute.qk_norm", NormBySums(norm.eps, norm.unit_offset), (q, k, sums, *weights), *targets
            )
        else:
            per_head = Norm(norm.function, "head_dim", norm.eps, norm.unit_offset and bool(weights))
            for n, source, target in zip("qk", (q, k), targets, strict=True):
                own = [weight for weight in weights if weight.endswith(f"{n}_norm")]
                self.define(i, f"attend.{n}_norm", per_head, (source, *own), target)
        return targets[0], targets[1]

    def cached_attention(self, i: int, p: str, qkv: tuple[str, str, str], sinks: tuple[str, ...]) -> str:
        """Keys and values go into the cache, and queries attend to it; to each lane alone where there are several."""
        q, k, v = qkv
        inputs = (q, *self.add_cache(i, p, {"k": (k, self.qkv["k"]), "v": (v, self.value)}), *self.lengths)
        return self.attend_cache(i, p, inputs, self.scores, sinks)

    def attend_cache(self, i: int, p: str, inputs: tuple[str, ...], scores: Scores, sinks: tuple[str, ...] = ()) -> str:
        """Attention of queries over keys and values of all positions, or of each lane alone."""
        spec = self.block.attention
        if not self.step.attends_to_lanes:
            attention = self.activation(p + self.attended, *self.heads)
            self.define(i, "attend", CachedAttention(*scores), (*inputs, *sinks), attention)
            return attention
        part, lse = (
            self.of_lanes(p + f"attention_{n}", last) for n, last in (("part", self.heads[1]), ("lse", "softmax"))
        )
        self.define(i, "attend", PartialAttention(*scores), inputs, part, lse)
        attention = self.activation(p + self.attended, *self.heads)
        self.define(i, "attend.merge", Merge(spec.value_dim // spec.softmax_slices), (part, lse, *sinks), attention)
        return attention

    def add_cache(self, i: int, p: str, kept: dict[str, tuple[str, tuple[str, ...]]]) -> tuple[str, ...]:
        """What a layer leaves in its cache, by name: what is put in, and the dims of it that are kept."""
        caches, cached = [], []
        for name, (_, dims) in kept.items():
            where = ("batch", *_POSITION, *dims)
            following = f"{p}{name}_cached"
            caches.append(self.tensor(f"{p}{name}_cache", "state", where, (0.0, 1.0), following, storage=self.kept))
        for name, (_, dims) in kept.items():
            where = ("batch", *_POSITION, *dims)
            cached.append(self.tensor(f"{p}{name}_cached", "activation", where, storage=self.kept))
        news = [new for new, _ in kept.values()]
        self.define(i, "attend.cache", CacheWrite(), (*news, *caches, *self.lengths), *cached)
        return tuple(cached)

    def of_positions(self, name: str, *dims: str) -> str:
        """What there is of every position of the cache."""
        return self.tensor(name, "activation", ("batch", *_POSITION, *dims))

    def of_lanes(self, name: str, last: str) -> str:
        """What attention over the keys of one lane makes."""
        return self.tensor(name, "activation", ("batch", "key_lane", "seq", "head", last))

    def feed_forward(self, i: int, p: str, x: str) -> str:
        """What the feed-forward network makes of what it reads."""
        experts = self.block.feed_forward.experts
        own_norm = self.model.norm.before and not self.model.side_by_side
        norm = self.norm_weights(p + "feed_forward_norm") if own_norm else ()
        if experts:
            down = self.mixture(i, p, experts, x, norm)
        else:
            weights = self.network_weights(p)
            x = self.normed_before(i, "feed_forward.norm", x, norm, p + "feed_forward_in")
            down = self.network(i, p, x, weights)
        return self.normed_after(i, "feed_forward.post_norm", down, p + "feed_forward_post_norm")

    def network_weights(self, p: str, ffn: str = "ffn", of: str = "") -> tuple[list[str], str, str]:
        """The weights of a network: the gate's, if it is gated, up, and down."""
        gate = [self.weight(f"{p}w_{of}gate", ("hidden", ffn), ("hidden",))] if self.block.feed_forward.gated else []
        up = self.weight(f"{p}w_{of}up", ("hidden", ffn), ("hidden",))
        return gate, up, self.weight_into_stream(f"{p}w_{of}down", (ffn, "hidden"), (ffn,))

    def network(
        self,
        i: int,
        p: str,
        x: str,
        weights: tuple[list[str], str, str],
        shared: SharedExpertSpec | None = None,
        score: Sequence[str] = (),
    ) -> str:
        """A network for all tokens: that of a layer, or its shared expert, with what scores a token."""
        spec, of = self.block.feed_forward, "shared_" if shared else ""
        ffn, (w_gate, w_up, w_down) = of + "ffn", weights
        gate = [self.activation(f"{p}{of}gate", ffn)] if spec.gated else []
        up, activated = self.activation(f"{p}{of}up", ffn), self.activation(f"{p}{of}activated", ffn)
        self.define(i, f"feed_forward.{of}up", Linear(("hidden",)), (x, *w_gate, w_up), *gate, up)
        if spec.bias:
            unbiased = (*gate, up)
            biases = [self.weight(p + f"b_{n}", ("ffn",), ("hidden",)) for n in ("gate", "up")[2 - len(unbiased) :]]
            *gate, up = (self.activation(name + "_biased", "ffn") for name in unbiased)
            self.define(i, "feed_forward.bias", Bias(), (*unbiased, *biases), *gate, up)
        self.define(i, f"feed_forward.{of}activation", Activation(spec.activation), (*gate, up)[:1], activated)
        inner = activated
        if spec.gated:
            inner = self.activation(f"{p}{of}inner", ffn)
            self.define(i, f"feed_forward.{of}multiply", Multiply(), (activated, up), inner)
        if score:
            unscored, inner = inner, self.activation(f"{p}{of}scored", ffn)
            self.define(i, f"feed_forward.{of}score", TokenGate(), (unscored, x, *score), inner)
        down = self.activation(f"{p}{of}down", "hidden")
        self.define(i, f"feed_forward.{of}down", Linear((ffn,)), (inner, w_down), down)
        if spec.bias:
            b_down = self.weight(p + "b_down", ("hidden",), ("ffn",))
            unbiased_down, down = down, self.activation(p + "down_biased", "hidden")
            self.define(i, "feed_forward.down_bias", Bias(), (unbiased_down, b_down), down)
        return down

    def mixture(self, i: int, p: str, experts: ExpertsSpec, x: str, norm: tuple[str, ...]) -> str:
        """A mixture of experts, of the stream behind a norm if there is one; a shared expert is added to it."""
        spec, router = self.block.feed_forward, experts.router
        init = seeded(self.model.hidden_size)
        lean = self.leans.of_router(i, experts, init[1]) if self.leans else None
        w_router = self.tensor(p + "w_router", "weight", ("hidden", "expert"), init, inputs=("hidden",), lean=lean)
        b_router = [self.weight(p + "b_router", ("expert",), ("hidden",))] if router.bias else []
        b_choice = [self.tensor(p + "b_choice", "weight", ("expert",), (0.0, 0.125))] if router.choice_bias else []
        w_gate = [self.weight(p + "w_gate", ("expert", "hidden", "ffn"), ("hidden",))] if spec.gated else []
        w_up = self.weight(p + "w_up", ("expert", "hidden", "ffn"), ("hidden",))
        w_down = self.weight_into_stream(p + "w_down", ("expert", "ffn", "hidden"), ("ffn",))
        biases = []
        if spec.bias:
            its = {"b_up": "ffn", "b_down": "hidden", **({"b_gate": "ffn"} if spec.gated else {})}
            biases = [self.weight(p + name, ("expert", dim), ("hidden",)) for name, dim in its.items()]
        shared = experts.shared
        shared_weights = self.network_weights(p, "shared_ffn", "shared_") if shared else None
        scored = shared is not None and shared.scored
        score = [self.weight(p + "w_shared_score", ("hidden",), ("hidden",))] if scored else []
        scales = [self.tensor(p + "w_gate_scales", "weight", ("expert",), (1.0, 0.125))] if router.gate_scales else []
        apart = experts.norms == "apart"
        own = {n: self.norm_weights(f"{p}{n}_norm") for n in ("router", "experts") if apart}

        stream, x = x, self.normed_before(i, "feed_forward.norm", x, norm, p + "feed_forward_in")
        read = {n: self.normed_before(i, f"feed_forward.{n}_norm", stream, w, f"{p}{n}_in") for n, w in own.items()}
        routed, mixed = read.get("router", x), read.get("experts", x)
        gates = self.activation(p + "gates", "expert")
        route = Route(experts.top_k, experts.renormalise, router)
        self.define(i, "feed_forward.route", route, (routed, w_router, *b_router, *b_choice, *scales), gates)
        made = self.activation(p + ("routed" if shared else "down"), "hidden")
        mixture = Experts(spec.activation, experts.top_k, spec.clamp, experts.gates_on)
        self.define(i, "feed_forward.experts", mixture, (mixed, gates, w_up, w_down, *w_gate, *biases), made)
        if shared is None or shared_weights is None:
            return made
        beside = self.network(i, p, x, shared_weights, shared, score)
        if apart:
            made = self.normed_after(i, "feed_forward.routed_norm", made, p + "experts_post_norm")
            beside = self.normed_after(i, "feed_forward.shared_norm", beside, p + "shared_post_norm")
        down = self.activation(p + "down", "hidden")
        self.define(i, "feed_forward.together", Add(), (made, beside), down)
        return down
