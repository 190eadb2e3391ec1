"""The attention of a model: its heads, what is done to queries and keys, and how its softmax is cut."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from helixctl.spec.base import Contradiction, Count, Spec, added

Positive = Annotated[float, Field(strict=True, gt=0, le=2**60)]


class LinearScaling(Spec):
    """Rotary embedding with every frequency divided by ``factor`` (position interpolation, Chen et al. 2023)."""

    kind: Literal["linear"]
    factor: Positive


class Llama3Scaling(Spec):
    """Llama 3.1's rotary embedding: low frequencies divided by ``factor``, high ones kept, those between blended.

    A frequency is low where fewer than ``low_freq_factor`` of its waves fit the original context, and high where more
    than ``high_freq_factor`` do.
    """

    kind: Literal["llama3"]
    factor: Positive
    low_freq_factor: Positive
    high_freq_factor: Positive
    original_seq_len: Count

    @model_validator(mode="after")
    def _low_is_not_above_high(self) -> Self:
        if self.low_freq_factor > self.high_freq_factor:
            msg = f"low_freq_factor {self.low_freq_factor} is above high_freq_factor {self.high_freq_factor}"
            raise Contradiction(msg, "low_freq_factor")
        return self


class YarnScaling(Spec):
    """YaRN (Peng et al. 2023): low frequencies divided by ``factor``, high ones kept, those between blended.

    Attributes:
        kind: yarn.
        factor: by how much sequences are longer than the original context.
        original_seq_len: tokens of the original context.
        beta_fast, beta_slow: a frequency is high where more than ``beta_fast`` of its waves fit the original context,
            and low where fewer than ``beta_slow`` do.
        truncate: the pairs of dims where the blend begins and ends are whole numbers.
        attention_factor: of cosines and sines.
    """

    kind: Literal["yarn"]
    factor: Positive
    original_seq_len: Count
    beta_fast: Positive = 32.0
    beta_slow: Positive = 1.0
    truncate: Annotated[bool, Field(strict=True)] = True
    attention_factor: Positive = 1.0


class LongRopeScaling(Spec):
    """LongRoPE (Ding et al. 2024): every frequency divided by a factor of its own, which depends on the length.

    Attributes:
        kind: longrope.
        short_factors, long_factors: of every pair of dims: where all sequences of a plan end within the original
            context, and where they may be longer.
        original_seq_len: tokens of the original context.
        attention_factor: of cosines and sines.
    """

    kind: Literal["longrope"]
    short_factors: tuple[Positive, ...]
    long_factors: tuple[Positive, ...]
    original_seq_len: Count
    attention_factor: Positive = 1.0


class DynamicScaling(Spec):
    """Dynamic NTK: where sequences are longer than the original context, the base grows with their length.

    A plan takes the base of its longest sequences, whatever their present length.

    Attributes:
        kind: dynamic.
        factor: of the growth.
        original_seq_len: tokens of the original context.
    """

    kind: Literal["dynamic"]
    factor: Positive
    original_seq_len: Count

    def base(self, theta: float, dims: int, positions: int) -> float:
        """The base of the frequencies of ``dims`` dims, in sequences of ``positions`` tokens."""
        if dims == 2:  # noqa: PLR2004  whatever the base, one pair has the frequency 1
            return theta
        longer = max(positions / self.original_seq_len, 1.0)
        return float(theta * (self.factor * longer - (self.factor - 1)) ** (dims / (dims - 2)))


class ProportionalScaling(Spec):
    """Rotary embedding of the first pairs of a head alone, with the frequencies that they have among all (Gemma 4).

    Attributes:
        kind: proportional.
        pairs: that are turned; all further pairs stay as they are.
        factor: their frequencies are divided by it.
    """

    kind: Literal["proportional"]
    pairs: Count
    factor: Positive


Scaling = Annotated[
    LinearScaling | Llama3Scaling | YarnScaling | LongRopeScaling | DynamicScaling | ProportionalScaling,
    Field(discriminator="kind"),
]


class RotarySpec(Spec):
    """Rotary position embedding of queries and keys (Su et al. 2021).

    Attributes:
        theta: the base of the frequencies.
        scaling: how the frequencies are changed for longer sequences; None: not at all.
        dims: the first dims of a head, which are turned; the others stay as they are. None: all are turned.
        interleaved: dim 2i is turned with dim 2i + 1; else dim i with dim i + dims / 2.
    """

    theta: Positive = 10000.0
    scaling: Scaling | None = None
    dims: Count | None = added(None)
    interleaved: Annotated[bool, Field(strict=True)] = added(default=False)

    @model_validator(mode="after")
    def _pairs_of_dims(self) -> Self:
        if self.dims is not None and self.dims % 2:
            raise Contradiction(f"a rotary embedding turns pairs of dims, not {self.dims} dims", "dims")
        return self

    def resolved(self, dims: int, positions: int) -> RotarySpec:
        """The same for a width and a length of sequences, without a scaling that depends on the length.

        Of longrope, ``is_long`` says which factors these are.
        """
        if not isinstance(self.scaling, DynamicScaling):
            return self
        base = self.scaling.base(self.theta, dims, positions)
        return self.model_copy(update={"theta": base, "scaling": None})

    def is_long(self, positions: int) -> bool:
        """Whether sequences of ``positions`` tokens take the factors for long ones."""
        return isinstance(self.scaling, LongRopeScaling) and positions > self.scaling.original_seq_len


class PositionScalingSpec(Spec):
    """A number that grows with the position p of a query: 1 + factor x ln(1 + floor((p + first) / tokens)).

    Multiplied by it, queries sharpen the softmax over a long context (Llama 4, Ministral 3).

    Attributes:
        factor: of the logarithm.
        tokens: positions of one step of the number: it is 1 for the first step.
        first: what the position of the first token counts as.
    """

    factor: Positive
    tokens: Count
    first: Literal[0, 1] = 0

    def scales(self, positions: int) -> bool:
        """Whether any of the first ``positions`` positions has another number than 1."""
        return positions - 1 + self.first >= self.tokens


class LatentSpec(Spec):
    """Multi-head latent attention (DeepSeek-V2, 2024): what heads attend with is made of two small vectors a token.

    The last ``rope_dim`` dims of a head of queries are rotated; the other ones, ``head_dim - rope_dim``, are not. A
    head's keys are as wide: those that are not rotated are a product of the latent, the rotated ones are of all heads.

    Attributes:
        q_rank: dims of the vector, behind a norm, that queries are made of; None: of the hidden state itself.
        kv_rank: dims of the latent, behind a norm, that keys and values are made of.
        rope_dim: dims of the rotated key, which all heads share.
        norm_eps: of the norms of both vectors.
    """

    q_rank: Count | None = None
    kv_rank: Count
    rope_dim: Count
    norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-6


class SparseSpec(Spec):
    """A sparse choice of keys (DeepSeek Sparse Attention, 2025): an indexer scores them, and the best are attended to.

    The indexer has heads of queries, made of the vector that the queries of a latent are made of, and one head of keys,
    normalised by a layer norm. Of both the first ``rope_dim`` dims of the latent are rotated. A key's score is the sum
    over the heads of relu(q k) times a factor that the token gives each head.

    Attributes:
        heads, head_dim: of the indexer.
        top_k: keys that a token attends to at most.
        interleaved: the rotary embedding turns neighbouring dims, whatever that of the heads does.
        norm_eps: of the norm of the indexer's keys.
        shared: the layer has no indexer and attends to the keys that the layer before has chosen, or shares.
    """

    heads: Count
    head_dim: Count
    top_k: Count
    interleaved: Annotated[bool, Field(strict=True)] = False
    norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-6
    shared: Annotated[bool, Field(strict=True)] = False


class AttentionSpec(Spec):
    """Grouped-query attention; with as many ``kv_heads`` as ``heads``, multi-head attention.

    ``softmax_slices`` is part of the model's function, not of a plan: 1 is the trained transformer (one softmax per
    head, scale 1/sqrt(head_dim)); s > 1 cuts every head's dims in s slices that each normalise alone with scale
    1/sqrt(head_dim/s), which is the function of the paper's m slices (s = 4, head_dim 512: sqrt(128)).

    Attributes:
        heads, kv_heads: of queries; of keys and values, each for ``heads / kv_heads`` of the former (None: as many).
        head_dim: dims of every head; not always hidden_size / heads.
        v_head_dim: dims of every head of values and of what attention makes of them (None: as many as head_dim).
        causal: a token attends to itself and those before it.
        qkv_bias, output_bias: biases of the projections.
        qk_norm: queries and keys are normalised, as the model's norms do it, before they are rotated.
        qk_norm_over: head: every head alone; projection: all heads together (OLMo 2), by rms_norm.
        qk_norm_weight: of norms of heads: shared by all heads; per_head: each head has its own (Command R+); none.
        rotary: the rotary embedding; None: none.
        sliding_window: tokens that a token attends to at most, the last ones, itself among them; None: all before it.
        chunk: a token attends to those of its own chunk of positions, up to itself; None: there are no chunks.
        scale: what products of queries and keys are multiplied with; None: 1/sqrt of the dims of a softmax.
        soft_cap: c, where a score x becomes c tanh(x / c); None: scores stay.
        sinks: every head attends to a learned logit besides, which has no value.
        latent: keys and values are made of a latent (multi-head latent attention), one for all heads,
            so that kv_heads is 1; None: of the hidden state.
        sparse: a token attends to the keys that an indexer chooses; None: to all that are not masked.
        value_scale: what values are multiplied by.
        value_norm: values are normalised, every head alone, as the model's norms do it, without a weight.
        values: own: products with a matrix of their own; keys: the keys, ahead of their norm and rotation (Gemma 4).
        output_gate: what attention makes is multiplied, dim by dim, by the sigmoid of a product of what it reads.
        position_scaling: a number of its position that every query is multiplied by, rotated or not; None: none.
    """

    heads: Count
    kv_heads: Count | None = None
    head_dim: Count
    softmax_slices: Count = 1
    causal: Annotated[bool, Field(strict=True)] = False
    qkv_bias: Annotated[bool, Field(strict=True)] = False
    output_bias: Annotated[bool, Field(strict=True)] = False
    qk_norm: Annotated[bool, Field(strict=True)] = False
    qk_norm_over: Literal["head", "projection"] = added("head")
    qk_norm_weight: Literal["shared", "per_head", "none"] = added("shared")
    rotary: RotarySpec | None = None
    sliding_window: Count | None = None
    v_head_dim: Count | None = added(None)
    chunk: Count | None = added(None)
    scale: Positive | None = added(None)
    soft_cap: Positive | None = added(None)
    sinks: Annotated[bool, Field(strict=True)] = added(default=False)
    latent: LatentSpec | None = added(None)
    sparse: SparseSpec | None = added(None)
    position_scaling: PositionScalingSpec | None = added(None)
    value_scale: Positive = added(1.0)
    value_norm: Annotated[bool, Field(strict=True)] = added(default=False)
    values: Literal["own", "keys"] = added("own")
    output_gate: Annotated[bool, Field(strict=True)] = added(default=False)

    @model_validator(mode="after")
    def _what_is_masked_is_causal(self) -> Self:
        for field, value in (("sliding_window", self.sliding_window), ("chunk", self.chunk)):
            if value is not None and not self.causal:
                raise Contradiction(f"{field} {value} of attention that is not causal", field)
        if self.sliding_window is not None and self.chunk is not None:
            raise Contradiction(f"sliding_window {self.sliding_window} and chunk {self.chunk}: give one", "chunk")
        return self

    @model_validator(mode="after")
    def _a_sink_is_in_one_softmax(self) -> Self:
        if self.sinks and self.softmax_slices > 1:
            raise Contradiction(f"sinks of heads with softmax_slices {self.softmax_slices}", "sinks")
        return self

    @model_validator(mode="after")
    def _softmax_slices_divide_the_head(self) -> Self:
        if self.head_dim % self.softmax_slices:
            msg = f"softmax_slices {self.softmax_slices} does not divide head_dim {self.head_dim}"
            raise Contradiction(msg, "softmax_slices")
        return self

    @model_validator(mode="after")
    def _one_softmax_for_values_of_another_width(self) -> Self:
        if self.value_dim != self.head_dim and self.softmax_slices > 1:
            msg = f"softmax_slices {self.softmax_slices} of heads whose values have {self.value_dim} dims"
            raise Contradiction(msg, "softmax_slices")
        return self

    @model_validator(mode="after")
    def _key_heads_divide_the_heads(self) -> Self:
        if self.heads % self.key_heads:
            raise Contradiction(f"{self.kv_heads} kv_heads do not divide {self.heads} heads", "kv_heads")
        return self

    @model_validator(mode="after")
    def _norms_of_projections_have_a_weight(self) -> Self:
        if self.qk_norm_over == "projection" and self.qk_norm_weight != "shared":
            raise Contradiction("a norm over all heads together has one weight, of all dims", "qk_norm_weight")
        return self

    @model_validator(mode="after")
    def _rotary_pairs_dims(self) -> Self:
        if self.rotary is None or self.latent:
            return self
        if self.rotary.dims is None and self.head_dim % 2:
            raise Contradiction(f"a rotary embedding turns pairs of dims; head_dim is {self.head_dim}", "head_dim")
        turned = self.rotary.dims or self.head_dim
        if turned > self.head_dim:
            raise Contradiction(f"a rotary embedding of {turned} dims; head_dim is {self.head_dim}", "rotary")
        scaling = self.rotary.scaling
        if isinstance(scaling, ProportionalScaling) and scaling.pairs > turned // 2:
            raise Contradiction(f"{scaling.pairs} pairs of {turned} dims", "rotary")
        if isinstance(scaling, LongRopeScaling):
            counts = {len(scaling.short_factors), len(scaling.long_factors)}
            if counts != {turned // 2}:
                raise Contradiction(f"{turned // 2} pairs of dims are turned, each by a factor of its own", "rotary")
        return self

    @model_validator(mode="after")
    def _keys_are_values_behind_a_norm(self) -> Self:
        if self.values == "own":
            return self
        if self.latent or not self.value_norm or self.value_dim != self.head_dim:
            raise Contradiction("values that are the keys, and not normalised as wide as they are", "values")
        if self.qk_norm and self.qk_norm_over == "projection":
            raise Contradiction("values that are the keys, which are normalised over all heads together", "values")
        return self

    @model_validator(mode="after")
    def _latent_is_of_all_heads(self) -> Self:
        if self.latent is None:
            return self
        if self.key_heads != 1:
            raise Contradiction(f"a latent is of all heads, so that kv_heads is 1, not {self.key_heads}", "kv_heads")
        if self.softmax_slices != 1:
            raise Contradiction(f"softmax_slices {self.softmax_slices} would cut a latent", "softmax_slices")
        rope = self.latent.rope_dim
        if rope % 2 or rope >= self.head_dim:
            msg = f"latent.rope_dim {rope} is no even number below head_dim {self.head_dim}"
            raise Contradiction(msg, "latent")
        unknown = [name for name in ("qkv_bias", "qk_norm", "value_norm", "output_gate") if getattr(self, name)]
        unknown += ["value_scale"] if self.value_scale != 1 else []
        if unknown:
            raise Contradiction(f"{unknown[0]}: what is made of a latent has none", unknown[0])
        if self.rotary is None:
            raise Contradiction("a latent has a rotated key, and there is no rotary embedding", "latent")
        return self

    @model_validator(mode="after")
    def _an_indexer_reads_a_latent(self) -> Self:
        if self.sparse is None:
            return self
        if self.latent is None or self.latent.q_rank is None:
            raise Contradiction("a sparse choice of keys is of a latent with a q_rank", "sparse")
        if self.latent.rope_dim > self.sparse.head_dim:
            message = f"sparse.head_dim {self.sparse.head_dim} is less than latent.rope_dim {self.latent.rope_dim}"
            raise Contradiction(message, "sparse")
        return self

    @property
    def softmax_width(self) -> int:
        """Dims of a head that share one softmax."""
        return self.head_dim // self.softmax_slices

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def value_dim(self) -> int:
        """Dims of a head of values."""
        return self.v_head_dim or self.head_dim

    @property
    def value_dim_name(self) -> Literal["head_dim", "v_dim"]:
        """The dim of tensors that these are: one of its own where they are not as many as those of keys."""
        return "head_dim" if self.value_dim == self.head_dim else "v_dim"

    @property
    def unrotated_dim(self) -> int:
        """Dims of a head that are not rotated, which come first."""
        return self.head_dim - self.latent.rope_dim if self.latent else 0

    @property
    def queries_per_key(self) -> int:
        """Heads of queries that share one head of keys and values."""
        return self.heads // self.key_heads
