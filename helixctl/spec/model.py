"""What the user writes of a model and of the workload, as frozen pydantic models."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from helixctl.spec.attention import AttentionSpec, Positive
from helixctl.spec.base import Contradiction, Count, Dtype, Name, Spec, added
from helixctl.spec.experts import ClampSpec, ExpertsSpec
from helixctl.spec.routing import EVEN, Routing
from helixctl.spec.sampling import SamplingSpec
from helixctl.spec.step import Step
from helixctl.spec.stored import StoredSpec

Activated = Literal["gelu", "relu", "silu", "gelu_tanh", "relu_squared"]


class FeedForwardSpec(Spec):
    """Two matrices with an activation between them; with ``experts``, such a network for each, and a router.

    Attributes:
        intermediate_size: the width of the network, or of one expert.
        activation: gelu with erf, gelu_tanh its approximation, relu_squared relu(x)^2 (So et al. 2021).
        gated: a third matrix; its product, activated, multiplies that of the first (SwiGLU, Shazeer 2020).
        experts: the mixture; None: one network.
        bias: every matrix has a bias; with experts every matrix of each.
        clamp: the bounds and the slope of a clamped activation; None: it is as it is. Of experts alone.
    """

    intermediate_size: Count
    activation: Activated = "gelu"
    gated: Annotated[bool, Field(strict=True)] = False
    experts: ExpertsSpec | None = None
    bias: Annotated[bool, Field(strict=True)] = added(default=False)
    clamp: ClampSpec | None = added(None)

    @model_validator(mode="after")
    def _clamp_is_of_gated_experts(self) -> Self:
        plain = self.experts is None or not self.gated or self.activation != "silu"
        if self.clamp is not None and plain:
            raise Contradiction("a clamped activation is of gated experts with silu", "clamp")
        return self

    @model_validator(mode="after")
    def _shared_expert_is_plain(self) -> Self:
        if self.experts and self.experts.shared and (self.bias or self.clamp):
            field = "bias" if self.bias else "clamp"
            raise Contradiction(f"{field} with a shared expert is not modelled", field)
        return self


class NormSpec(Spec):
    """Normalisation of the residual stream around attention, the feed-forward network and the head.

    Attributes:
        function: rms_norm divides by the root of the mean square; layer_norm subtracts the mean first.
        eps: what is added to the mean square, or to the variance.
        unit_offset: 1 is added to the weight (Gemma).
        bias: a bias is added to what is normalised and weighted.
        place: before: what a block reads is normalised; after: what it makes, before that is added to the residual
            stream (OLMo 2); around: both (Gemma 2). The head reads normalised numbers in each case.
    """

    function: Literal["rms_norm", "layer_norm"] = "rms_norm"
    eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    unit_offset: Annotated[bool, Field(strict=True)] = added(default=False)
    bias: Annotated[bool, Field(strict=True)] = added(default=False)
    place: Literal["before", "after", "around"] = added("before")

    @property
    def before(self) -> bool:
        """Whether what a block reads is normalised."""
        return self.place != "after"

    @property
    def after(self) -> bool:
        """Whether what a block makes is normalised."""
        return self.place != "before"


class MultipliersSpec(Spec):
    """Numbers that tensors are multiplied by, whatever the token.

    Attributes:
        embedding: of what the embedding makes.
        embedding_in_dtype: that multiplier is a number of the model's dtype: rounded to it first (Gemma).
        residual: of what attention and the feed-forward network make, before it is added to the residual stream.
        logits: of the logits; a model that divides them by s has 1 / s.
        logits_cap: c: the logits, multiplied, become c tanh(z / c) (Gemma 2's soft cap); None: they stay as they are.
    """

    embedding: Positive = added(1.0)
    embedding_in_dtype: Annotated[bool, Field(strict=True)] = added(default=False)
    residual: Positive = added(1.0)
    logits: Positive = added(1.0)
    logits_cap: Positive | None = added(None)


class VocabularySpec(Spec):
    """Token ids in, logits out: an embedding, a final norm and a language-model head.

    ``tied``: the head's weight is the embedding's.
    """

    size: Count
    tied: Annotated[bool, Field(strict=True)] = False


MAIN: Final = "main"  # the block of the model's own attention and feed-forward network, in a pattern


class BlockSpec(Spec):
    """What the layers of one kind have of their own, where a model's layers differ.

    Attributes:
        name: as the pattern has it; ``main`` is that of the layers with the model's own parts.
        attention, feed_forward: of these layers; None: the model's own.
        stored: how matrices of these layers are stored; None: as the model says.
    """

    name: Name
    attention: AttentionSpec | None = None
    feed_forward: FeedForwardSpec | None = None
    stored: tuple[StoredSpec, ...] | None = added(None)


class ModelSpec(Spec):
    """A pre-norm transformer: from hidden states to hidden states, or with a ``vocabulary`` from tokens to logits.

    Attributes:
        name, layers, hidden_size, dtype: of the model; the dtype is that of activations, and of weights where
            ``stored`` does not say otherwise. It is computed in it in any case.
        attention, feed_forward, norm: of every layer; where ``blocks`` are given, of those whose block is ``main``.
        vocabulary: tokens in and logits out; None: hidden states.
        multipliers: of embeddings, of what is added to the residual stream, and of logits; None: all of them are 1.
        side_by_side: attention and the feed-forward network read the same normalised numbers, and both results are
            added to the residual stream (Command R); else the network reads what attention has been added to.
        layer_scale: what every layer makes is multiplied by a learned number of its own (Gemma 4).
        max_positions: tokens of the longest sequence that the model was trained for, where that is known; no limit.
        blocks: what layers of other kinds have of their own; None: all layers are alike.
        pattern: the block of each layer, by name: of the first layers, and then from its start again.
        stored: how matrices are stored that are quantised; None: all weights are stored in the model's dtype.
    """

    name: Name
    layers: Annotated[int, Field(strict=True, ge=1, le=4096)]
    hidden_size: Count
    attention: AttentionSpec
    feed_forward: FeedForwardSpec
    norm: NormSpec = NormSpec()
    vocabulary: VocabularySpec | None = None
    dtype: Dtype = "float16"
    max_positions: Count | None = added(None)
    multipliers: MultipliersSpec | None = added(None)
    side_by_side: Annotated[bool, Field(strict=True)] = added(default=False)
    layer_scale: Annotated[bool, Field(strict=True)] = added(default=False)
    blocks: tuple[BlockSpec, ...] | None = added(None)
    pattern: tuple[Name, ...] | None = added(None)
    stored: tuple[StoredSpec, ...] | None = added(None)

    @model_validator(mode="after")
    def _pattern_names_blocks(self) -> Self:
        if (self.blocks is None) != (self.pattern is None) or self.pattern == ():
            raise Contradiction("blocks and pattern go together: which block is each layer of?", "blocks")
        names = [MAIN, *[block.name for block in self.blocks or ()]]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise Contradiction(f"two blocks are named {twice!r}", "blocks")
        pattern = self.pattern or ()
        if unknown := next((name for name in pattern if name not in names), None):
            raise Contradiction(f"no block is named {unknown!r}; there are {', '.join(names)}", "pattern")
        if unused := next((name for name in names[1:] if name not in pattern[: self.layers]), None):
            raise Contradiction(f"no layer is of the block {unused!r}", "pattern")
        return self

    @model_validator(mode="after")
    def _norms_of_projections_are_rms(self) -> Self:
        for attention in (self.attention, *[block.attention for block in self.blocks or ()]):
            over_all = attention is not None and attention.qk_norm and attention.qk_norm_over == "projection"
            if over_all and self.norm.function != "rms_norm":
                raise Contradiction(f"{self.norm.function} of q and k over all heads together is not modelled", "norm")
        return self

    @model_validator(mode="after")
    def _norms_of_experts_are_around(self) -> Self:
        for network in (self.feed_forward, *[block.feed_forward for block in self.blocks or ()]):
            apart = network is not None and network.experts is not None and network.experts.norms == "apart"
            if apart and self.norm.place != "around":
                raise Contradiction("norms of experts apart, in a model whose norms are not around its blocks", "norm")
        return self

    @model_validator(mode="after")
    def _blocks_side_by_side_share_a_norm(self) -> Self:
        if self.side_by_side and self.norm.place != "before":
            raise Contradiction("blocks side by side share one norm, which comes before them", "side_by_side")
        return self

    @model_validator(mode="after")
    def _shared_choices_are_made(self) -> Self:
        """What a layer shares is there: the layer before chooses as many keys, or shares them."""
        sparse = {kind: self.alike(kind).attention.sparse for kind in self.kinds}
        before = None
        for layer in range(self.layers):
            its = sparse[self.kind(layer)]
            if its and its.shared and (before is None or before.top_k != its.top_k):
                what = f"layer {layer} shares a choice of {its.top_k} keys, and the layer before it makes none"
                raise Contradiction(what, "pattern" if self.pattern else "attention")
            before = its
        return self

    @model_validator(mode="after")
    def _blocks_mask_alike(self) -> Self:
        for block in self.blocks or ():
            if block.attention and block.attention.causal != self.attention.causal:
                raise Contradiction(f"block {block.name!r} differs from the model in what is causal", "blocks")
        return self

    @model_validator(mode="after")
    def _each_is_stored_in_one_way(self) -> Self:
        for where, stored in (("stored", self.stored), *(("blocks", block.stored) for block in self.blocks or ())):
            names = [name for spec in stored or () for name in spec.weights]
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise Contradiction(f"{twice} is stored in two ways", where)
            if where == "blocks" and any(spec.of_the_ends for spec in stored or ()):
                raise Contradiction("embedding and w_head are of no block: say under stored how they are", where)
        return self

    def kind(self, layer: int) -> str:
        """The name of a layer's block."""
        return self.pattern[layer % len(self.pattern)] if self.pattern else MAIN

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the blocks that its layers have, each once, in the order in which they come first."""
        return tuple(dict.fromkeys((self.pattern or (MAIN,))[: self.layers]))

    def alike(self, kind: str) -> ModelSpec:
        """The model as if all its layers were of one block."""
        return self if self.blocks is None else _alike(self, kind)


@lru_cache(maxsize=256)
def _alike(model: ModelSpec, kind: str) -> ModelSpec:
    parts: dict[str, object] = {"blocks": None, "pattern": None}
    for block in model.blocks or ():
        if block.name == kind:
            own = {"attention": block.attention, "feed_forward": block.feed_forward}
            parts |= {part: spec for part, spec in own.items() if spec is not None}
            if block.stored is not None:
                ends = [spec for each in model.stored or () if (spec := each.of_the_ends)]
                parts["stored"] = (*block.stored, *ends) or None
    return model.model_copy(update=parts)


class WorkloadSpec(Spec):
    """``batch`` sequences of ``seq_len`` tokens each: one pass without a KV cache, or prompts that go on.

    Attributes:
        batch, seq_len: sequences, and tokens of each; of prompts the longest.
        logits: of a model with a vocabulary, the tokens whose logits are made: all, or the last of each sequence, which
            is what the next token is sampled from. Of a document that does not say it is all; ``helixctl plan`` makes
            it last where the specs do not say.
        output_len: tokens that are generated after each prompt, one a step, with a KV cache; None: one pass.
        prefill_tokens: tokens of all sequences of a replica that go through the model in one step of the prefill, at
            most; always one of each sequence.
        sampling: how the next token is drawn; None: it is the one with the largest logit.
        cache_dtype: what the KV cache is stored in, for planning; None: the model's dtype.
        routing: how evenly tokens go to the experts of a mixture, as predictions take it and the routers of seeded
            weights choose: ``even``, or ``power_law(1.2)``.
    """

    batch: Count = 1
    seq_len: Count = 1
    logits: Literal["all", "last"] = added("all")
    output_len: Count | None = added(None)
    prefill_tokens: Count = added(8192)
    sampling: SamplingSpec | None = added(None)
    cache_dtype: Literal["float8"] | None = added(None)
    routing: Routing = added(EVEN)

    @model_validator(mode="after")
    def _tokens_are_chosen(self) -> Self:
        if self.sampling is not None and self.output_len is None:
            raise Contradiction("sampling is of generated tokens, and there is no output_len", "sampling")
        if self.cache_dtype is not None and self.output_len is None:
            raise Contradiction("cache_dtype is of a KV cache, and without output_len there is none", "cache_dtype")
        return self

    def __str__(self) -> str:
        """``1,024 sequences x 1 token in one pass, no KV cache``."""
        tokens = f"{self.seq_len:,} {'token' if self.seq_len == 1 else 'tokens'}"
        if self.output_len is not None:
            prompts = f"{self.batch:,} {'prompt' if self.batch == 1 else 'prompts'}"
            choice = "" if self.sampling is None else f", {self.sampling}"
            choice += f", KV cache in {self.cache_dtype}" if self.cache_dtype else ""
            choice += "" if self.routing == EVEN else f", routing {self.routing}"
            return f"{prompts} x {tokens}, {self.output_len:,} generated after each{choice}"
        last = ", logits of the last token" if self.logits == "last" else ""
        last += "" if self.routing == EVEN else f", routing {self.routing}"
        sequences = f"{self.batch:,} {'sequence' if self.batch == 1 else 'sequences'}"
        return f"{sequences} x {tokens} in one pass, no KV cache{last}"

    @property
    def tokens(self) -> int:
        """Tokens per step."""
        return self.batch * self.seq_len

    @property
    def positions(self) -> int:
        """Tokens of a sequence in the end, generated ones among them."""
        return self.seq_len + (self.output_len or 0)

    @property
    def in_one_pass(self) -> Step:
        """All of it as one step without a cache."""
        return _one_pass(self.batch, self.seq_len, self.logits, self.routing)


@lru_cache(maxsize=1024)  # a search asks for it many thousand times
def _one_pass(batch: int, seq_len: int, logits: Literal["all", "last"], routing: str) -> Step:
    return Step("pass", batch, seq_len, logits, routing=routing)


def no_logits(model: ModelSpec, workload: WorkloadSpec) -> str | None:
    """Why a model has no logits of the tokens that a step asks for, or None."""
    if model.vocabulary is None and workload.sampling is not None:
        return "sampling of tokens, but the model has no vocabulary"
    if workload.logits == "all" or model.vocabulary is not None:
        return None
    return f"logits: {workload.logits}, but the model has no vocabulary and makes none"


class ModelDocument(ModelSpec):
    """A model file: the model, and the workload it is usually planned for."""

    workload: WorkloadSpec = WorkloadSpec()

    @model_validator(mode="after")
    def _logits_are_there(self) -> Self:
        if message := no_logits(self, self.workload):
            raise Contradiction(message, "workload")
        return self

    @property
    def model(self) -> ModelSpec:
        """The model alone."""
        return ModelSpec(**{name: getattr(self, name) for name in ModelSpec.model_fields})
