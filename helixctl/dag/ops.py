"""The closed vocabulary of what a task does. docs/formats.md gives each op's formula in the same order."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Annotated, Any, Final, Literal, TypeVar, dataclass_transform

from pydantic import ConfigDict, FailFast, Field, with_config

from helixctl.records import record
from helixctl.spec import ClampSpec, Dtype, PositionScalingSpec, RotarySpec, RouterSpec, SamplingSpec, accumulator

T = TypeVar("T")


def _unless(default: float | bool | None) -> Any:  # noqa: FBT001  a value
    """An attribute that came to an op after documents were written; while it has its default they leave it out."""
    return Field(strict=True, exclude_if=lambda value: value == default)


Flag = Annotated[bool, _unless(default=False)]
Factor = Annotated[float, _unless(1.0)]
LaterCount = Annotated[int | None, Field(ge=1), _unless(None)]
LaterNumber = Annotated[float | None, Field(gt=0), _unless(None)]
Function = Literal["gelu", "relu", "silu", "gelu_tanh", "relu_squared", "sigmoid"]


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def _op(cls: type[T]) -> type[T]:
    """An op: an immutable record that refuses keys it does not know; ``kind`` is its tag in documents."""
    return with_config(ConfigDict(extra="forbid"))(record(cls))


class _Scores:
    """What all kinds of attention have in common."""

    __slots__ = ()
    softmax_width: int
    scale: float | None

    @property
    def factor(self) -> float:
        """What products of queries and keys are multiplied with: a scale of its own, or that of a softmax's width."""
        return 1 / math.sqrt(self.softmax_width) if self.scale is None else self.scale


@_op
class Broadcast:
    """Copy one value from the first rank to every rank."""

    kind: Literal["broadcast"] = field(default="broadcast", kw_only=True)


@_op
class Embed:
    """The row of every token in a table, times ``multiplier``; zero where this rank's rows do not hold the token.

    Inputs: ids (batch, seq), int64, and table (vocab, hidden). With a part of the vocabulary it makes a partial sum,
    in the model's dtype: of its terms one alone is not zero, so that no sum is rounded. ``in_dtype``: the multiplier is
    rounded to the dtype of the output first.
    """

    kind: Literal["embed"] = field(default="embed", kw_only=True)
    multiplier: Factor = 1.0
    in_dtype: Flag = False


@_op
class Norm:
    """Normalisation over ``dim``, the last dim of x, then a product with a weight and the sum with a bias.

    rms_norm: x / sqrt(mean(x^2) + eps); layer_norm: (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps). Inputs: x, and
    there may be a weight, and behind it a bias; their dims are the last of x. ``unit_offset``: the factor is
    1 + weight.
    """

    kind: Literal["norm"] = field(default="norm", kw_only=True)
    function: Literal["rms_norm", "layer_norm"]
    dim: str
    eps: Annotated[float, Field(strict=True)]
    unit_offset: Flag = False


@_op
class SquareSums:
    """The sums of the squares of queries and of keys, over all heads together: the statistics of their norms.

    Inputs: q (batch, seq, head, head_dim), k (batch, seq, kv_head, head_dim), the heads of keys being those of q's
    heads. Output: (batch, seq, qk), the sum of queries first. A head of keys counts once, whatever the number of ranks
    that hold it: each rank counts its share of the heads of queries that attend with it. With a part of the heads, or
    of head_dim, it makes a partial sum, in the accumulator's dtype.
    """

    kind: Literal["square_sums"] = field(default="square_sums", kw_only=True)


@_op
class NormBySums:
    """rms_norm of queries and keys over all heads together, by sums that are known.

    Inputs: q, k, sums (batch, seq, qk), and the weights of q (head, head_dim) and of k (kv_head, head_dim). Outputs: of
    each of the two x / sqrt(sum / N + eps) * weight, N being the elements of the whole weight. ``unit_offset``: as of
    a norm.
    """

    kind: Literal["norm_by_sums"] = field(default="norm_by_sums", kw_only=True)
    eps: Annotated[float, Field(strict=True)]
    unit_offset: Flag = False


@_op
class Linear:
    """Products of one input with one or more weights, summed over the dims in ``contract``.

    Inputs: x, w_1, ..., w_k. Outputs: y_1, ..., y_k. The dims of y are those of x, then those of w, less ``contract``.
    ``wide``: the result is kept in the accumulator's dtype, as what decides on a choice is.
    """

    kind: Literal["linear"] = field(default="linear", kw_only=True)
    contract: Annotated[tuple[str, ...], FailFast()]
    wide: Flag = False


@_op
class HeadLinear:
    """A product in every head alone, with the head's part of a weight.

    Inputs: x, whose last two dims are head and another, d; w, which has the dims head, ``contract`` and a third. Of d
    the first dims, as many as w has along ``contract``, are summed with these; what is left of d follows the product
    (``rest``), or else is left out. The output has the dims of x except the last. x is rounded to the
    model's dtype first. ``parts``: x is of a part of the keys, so that the product is one of those that are merged.
    """

    kind: Literal["head_linear"] = field(default="head_linear", kw_only=True)
    contract: str
    rest: Annotated[bool, Field(strict=True)] = False
    parts: Annotated[bool, Field(strict=True)] = False


@_op
class Join:
    """Each head's dims of two inputs, those of the second behind those of the first.

    Inputs: a (batch, seq, head, A), or (batch, seq, A) which is of all heads; b (batch, seq, kv_head, B) of one head,
    which is of all heads. Output: (batch, seq, head, A + B), or with kv_head where a has no heads.
    """

    kind: Literal["join"] = field(default="join", kw_only=True)


@_op
class Bias:
    """Adds to each input its own vector (or matrix), the same at all tokens.

    Inputs: x_1, ..., x_k, b_1, ..., b_k; the dims of b are the last of x. Outputs: y_1, ..., y_k.
    """

    kind: Literal["bias"] = field(default="bias", kw_only=True)


@_op
class Rotate:
    """The rotary embedding of each input, with a token's place in its sequence as position.

    Inputs: x_1, ..., x_k, each (batch, seq, heads, head_dim) with all of head_dim. Outputs: y_1, ..., y_k. ``long``: of
    a rotary embedding with factors for short and for long sequences, the latter.
    Of a head the last ``last`` dims are turned, as if they were all; None: all are.
    """

    kind: Literal["rotate"] = field(default="rotate", kw_only=True)
    rotary: RotarySpec
    long: Flag = False
    last: LaterCount = None


@_op
class Attention(_Scores):
    """softmax(Q K^T / sqrt(softmax_width)) V, alone in every head and every ``softmax_width`` dims of it.

    Inputs: q (batch, seq, head, head_dim), k and v (batch, seq, kv_head, head_dim); there may be a fourth, sinks
    (head). Of H heads and G kv_heads, head h attends with kv_head h // (H / G). Where the heads of values have a width
    of their own, v and the output have a dim v_dim instead of head_dim. With ``top_k`` a fourth is selected (batch,
    seq, choice), and there are no sinks.

    Attributes:
        softmax_width: dims of a softmax.
        causal: a token attends to itself and those before it.
        window: causal alone; tokens that a token attends to at most, the last ones, itself among them.
        chunk: causal alone; a token attends to those of its own chunk of ``chunk`` positions: p // chunk is the same.
        scale: what products are multiplied with; None: 1 / sqrt(softmax_width).
        soft_cap: c, where scores x become c tanh(x / c), ahead of the mask; None: they stay.
        top_k: the size of choice: a token attends to the positions that selected names alone; None: to all of those.
    """

    kind: Literal["attention"] = field(default="attention", kw_only=True)
    softmax_width: Annotated[int, Field(strict=True, ge=1)]
    causal: Annotated[bool, Field(strict=True)]
    window: LaterCount = None
    chunk: LaterCount = None
    scale: LaterNumber = None
    soft_cap: LaterNumber = None
    top_k: LaterCount = None


@_op
class Select:
    """The keys that each token attends to, chosen by an indexer: those of the ``top_k`` largest scores.

    Inputs: q (batch, seq, index_head, index_dim), k (batch, seq, kv_head, index_dim) of one kv_head, factor (batch,
    seq, index_head). Output: selected (batch, seq, choice), int64: positions, the best first, of equal scores the lower
    one; -1 where there are no more. ``choice`` has ``top_k`` places. The score of a key is the sum over the heads of
    factor * relu(scale * q k). ``causal``: only tokens up to the query's own are chosen among.
    """

    kind: Literal["select"] = field(default="select", kw_only=True)
    top_k: Annotated[int, Field(strict=True, ge=1)]
    causal: Annotated[bool, Field(strict=True)]
    scale: Annotated[float, Field(strict=True, gt=0)]


@_op
class RotateAt:
    """The rotary embedding of each input, with a token's place behind what the cache holds as position.

    Inputs: x_1, ..., x_k, each (batch, seq, heads, head_dim) with all of head_dim, and length (batch) int64. Outputs:
    y_1, ..., y_k. Token t of sequence b has position length[b] + t. ``last``: as ``rotate`` has it.
    """

    kind: Literal["rotate_at"] = field(default="rotate_at", kw_only=True)
    rotary: RotarySpec
    long: Flag = False
    last: LaterCount = None


@_op
class ScaleQueries:
    """Every query times a number of its position p: 1 + factor ln(1 + floor((p + first) / tokens)).

    Inputs: q (batch, seq, head, head_dim), and in a step with a cache length (batch) int64. Output: as q. A token's
    position is its place in its sequence, behind the length[b] tokens that the cache holds.
    """

    kind: Literal["scale_queries"] = field(default="scale_queries", kw_only=True)
    scaling: PositionScalingSpec


@_op
class CacheWrite:
    """Put the new keys and values into the cache, behind what it holds.

    Inputs: k and v (batch, seq, kv_head, head_dim); k_cache and v_cache (batch, key_cycle, key_lane, key_offset,
    kv_head, head_dim); length and count (batch) int64. Outputs: k_cached and v_cached, the cache afterwards. There may
    be one tensor and its cache alone, whose heads are both keys and values. Token t of
    sequence b, where t < count[b], goes to position length[b] + t = (key_cycle x lanes + key_lane) x block +
    key_offset; all other positions keep what they have.
    """

    kind: Literal["cache_write"] = field(default="cache_write", kw_only=True)


@_op
class Expand:
    """Keys and values of every head from the latents of a cache, for attention of many new tokens over it.

    Inputs: latent_cached (batch, key_cycle, key_lane, key_offset, kv_head, latent), one head, which is of all heads;
    w_k (kv_rank, head, nope_dim) and w_v (kv_rank, head, v_dim); length and count (batch) int64. Outputs: k (batch,
    key_cycle, key_lane, key_offset, head, head_dim) and v (the same, v_dim). The first kv_rank elements of a latent are
    multiplied with both; those behind them, the rotated key, stand behind a head's product with w_k. At positions from
    length[b] + count[b] on, which no token attends to, anything may be.
    """

    kind: Literal["expand"] = field(default="expand", kw_only=True)


@_op
class CachedAttention(_Scores):
    """As ``attention``, of new queries over the keys and values of a cache.

    Inputs: q (batch, seq, head, head_dim); k_cached and v_cached (batch, key_cycle, key_lane, key_offset, kv_head,
    head_dim), all positions; length and count (batch) int64. Output: (batch, seq, head, head_dim). Token t of sequence
    b attends to the positions below length[b] + count[b]; causal, also up to length[b] + t alone. A token that attends
    to none makes 0. With ``top_k`` a sixth input is selected, as ``attention`` has it.
    """

    kind: Literal["cached_attention"] = field(default="cached_attention", kw_only=True)
    softmax_width: Annotated[int, Field(strict=True, ge=1)]
    causal: Annotated[bool, Field(strict=True)]
    window: LaterCount = None
    chunk: LaterCount = None
    scale: LaterNumber = None
    soft_cap: LaterNumber = None
    top_k: LaterCount = None


@_op
class PartialAttention(_Scores):
    """As ``cached_attention``, over the positions of one lane alone.

    Inputs: those of ``cached_attention``, the cache of one key_lane. Outputs: part (batch, key_lane, seq, head,
    head_dim), the attention over the lane's positions, and lse (batch, key_lane, seq, head, softmax), the logarithm of
    the sum of the exponentials of its scores, minus infinity where a token attends to none of them.
    """

    kind: Literal["partial_attention"] = field(default="partial_attention", kw_only=True)
    softmax_width: Annotated[int, Field(strict=True, ge=1)]
    causal: Annotated[bool, Field(strict=True)]
    window: LaterCount = None
    chunk: LaterCount = None
    scale: LaterNumber = None
    soft_cap: LaterNumber = None
    top_k: LaterCount = None


@_op
class CachedSelect:
    """As ``select``, of new queries over the indexer's keys of a cache.

    Inputs: q (batch, seq, index_head, index_dim); k_cached (batch, key_cycle, key_lane, key_offset, kv_head,
    index_dim), all positions; factor (batch, seq, index_head); length and count (batch) int64. Output: selected (batch,
    seq, choice), int64. Token t of sequence b chooses among the positions below length[b] + count[b]; causal, also up
    to length[b] + t alone.
    """

    kind: Literal["cached_select"] = field(default="cached_select", kw_only=True)
    top_k: Annotated[int, Field(strict=True, ge=1)]
    causal: Annotated[bool, Field(strict=True)]
    scale: Annotated[float, Field(strict=True, gt=0)]


@_op
class PartialSelect:
    """As ``cached_select``, among the positions of one lane alone.

    Inputs: those of ``cached_select``, the cache of one key_lane. Outputs: best_score and best_key (int64), each
    (batch, key_lane, seq, choice): the lane's ``top_k`` best positions, and their scores; where there are no more, -1
    and minus infinity.
    """

    kind: Literal["partial_select"] = field(default="partial_select", kw_only=True)
    top_k: Annotated[int, Field(strict=True, ge=1)]
    causal: Annotated[bool, Field(strict=True)]
    scale: Annotated[float, Field(strict=True, gt=0)]


@_op
class MergeSelect:
    """The best keys of all lanes, of the best of each.

    Inputs: best_score and best_key (batch, key_lane, seq, choice), all lanes. Output: selected (batch, seq, choice), as
    ``select`` makes it.
    """

    kind: Literal["merge_select"] = field(default="merge_select", kw_only=True)


@_op
class Merge:
    """The attention over all lanes: the sum of the lanes' parts, each weighted by exp(lse - the log-sum-exp of all).

    Inputs: part (batch, key_lane, seq, head, head_dim), lse (batch, key_lane, seq, head, softmax). Output: (batch, seq,
    head, head_dim). Of head_dim the first ``softmax_width`` dims have softmax 0, and so on. Where every lse is minus
    infinity it makes 0.
    """

    kind: Literal["merge"] = field(default="merge", kw_only=True)
    softmax_width: Annotated[int, Field(strict=True, ge=1)]


@_op
class Activation:
    """An elementwise function: gelu (with erf), gelu_tanh (its approximation), relu, relu_squared, silu or sigmoid."""

    kind: Literal["activation"] = field(default="activation", kw_only=True)
    function: Function


_PLAIN: Final = RouterSpec()


@_op
class Route:
    """Gates of every token: scores, kept for its ``top_k`` best experts, zero for all others.

    Inputs: x (batch, seq, hidden), weight (hidden, expert), bias (expert) where ``router`` has one, choice_bias
    (expert) where it has one, gate_scales (expert) where it has some. Of equal numbers the lower expert is the better.
    A softmax is over the ``top_k`` (``renormalise``), or else over all experts.
    """

    kind: Literal["route"] = field(default="route", kw_only=True)
    top_k: Annotated[int, Field(strict=True, ge=1)]
    renormalise: Annotated[bool, Field(strict=True)] = True
    router: Annotated[RouterSpec, Field(exclude_if=lambda router: router == _PLAIN)] = _PLAIN


@_op
class Experts:
    """The sum over experts of gate * activation(x w_up) w_down; a token is computed where its gate is not zero.

    Inputs: x (batch, seq, hidden), gates (batch, seq, expert), w_up (expert, hidden, ffn), w_down (expert, ffn,
    hidden). With a fifth, w_gate, of w_up's dims, an expert is gate * (activation(x w_gate) * (x w_up)) w_down. Behind
    them may stand biases of all of these products, in the same order: b_up (expert, ffn), b_down (expert, hidden), and
    b_gate (expert, ffn) with w_gate; b_down counts where ffn begins. ``top_k`` bounds the gates of a token that are not
    zero: an executor may look at the ``top_k`` largest. ``clamp`` bounds the activation. ``gates_on``: what a gate
    multiplies.
    """

    kind: Literal["experts"] = field(default="experts", kw_only=True)
    function: Function
    top_k: Annotated[int, Field(strict=True, ge=1)]
    clamp: Annotated[ClampSpec | None, Field(exclude_if=lambda clamp: clamp is None)] = None
    gates_on: Annotated[Literal["output", "input"], Field(exclude_if=lambda on: on == "output")] = "output"


@_op
class TokenGate:
    """Every token multiplied by a number of its own: y = x * sigmoid(t weight).

    Inputs: x (batch, seq, shared_ffn), t (batch, seq, hidden) with all of hidden, weight (hidden).
    """

    kind: Literal["token_gate"] = field(default="token_gate", kw_only=True)


@_op
class Add:
    """The elementwise sum of two values, the second times ``multiplier``.

    Both may be partial sums, over dims of their own.
    """

    kind: Literal["add"] = field(default="add", kw_only=True)
    multiplier: Factor = 1.0


@_op
class Scale:
    """The product of a value with ``multiplier``; with a cap c, c tanh of that product over c."""

    kind: Literal["scale"] = field(default="scale", kw_only=True)
    multiplier: Factor = 1.0
    cap: Annotated[float | None, _unless(None)] = None


@_op
class ScaleBy:
    """The product of a value with a learned number. Inputs: x, weight (one). Output: as x."""

    kind: Literal["scale_by"] = field(default="scale_by", kw_only=True)


@_op
class Multiply:
    """The elementwise product of two values."""

    kind: Literal["multiply"] = field(default="multiply", kw_only=True)


@_op
class AllToAll:
    """Every rank cuts its piece along ``split``, one part for each rank, and receives the parts of one place from all.

    What it receives is put together along ``gather`` in the order of the ranks: pieces of ``gather`` become pieces of
    ``split``. Where ``split`` is cut is told by the outputs.
    """

    kind: Literal["all_to_all"] = field(default="all_to_all", kw_only=True)
    split: str
    gather: str


@_op
class AllGather:
    """Every rank receives all ranks' pieces, put together along ``dim`` in the order of the ranks.

    Pieces that differ in size travel padded to the largest.
    """

    kind: Literal["all_gather"] = field(default="all_gather", kw_only=True)
    dim: str


@_op
class AllReduce:
    """Every rank receives the sum of all ranks' partial sums."""

    kind: Literal["all_reduce"] = field(default="all_reduce", kw_only=True)


@_op
class ReduceScatter:
    """Every rank receives its share, along ``dim``, of the sum of all ranks' partial sums.

    The shares follow each other in the order of the ranks; where they begin and end is told by the outputs. Shares that
    differ in size travel padded to the largest.
    """

    kind: Literal["reduce_scatter"] = field(default="reduce_scatter", kw_only=True)
    dim: str


@_op
class Narrow:
    """Keep a part of a value: an interval of ``dim``, which the output tells, and all of every other dim."""

    kind: Literal["narrow"] = field(default="narrow", kw_only=True)
    dim: str


@_op
class SendReceive:
    """The first rank sends one value, the second receives it."""

    kind: Literal["send_receive"] = field(default="send_receive", kw_only=True)


@_op
class Packed:
    """Several collectives of the same ranks in one exchange, each of a tensor of its own.

    Inputs and outputs: those of the first of ``moves``, one per rank, then those of the second, and so on. Each is as
    if it were a task by itself; the exchange takes one start-up for all of them.
    """

    kind: Literal["packed"] = field(default="packed", kw_only=True)
    moves: Annotated[
        tuple[Annotated[AllToAll | AllGather, Field(discriminator="kind")], ...], FailFast(), Field(min_length=2)
    ]


@_op
class LastToken:
    """The last real token of every sequence: y[b] = x[b, length[b] - 1]; zero where x does not hold that row.

    Inputs: x (batch, seq, hidden), length (batch) int64, each from 1 to the extent of seq. Output: y (batch, hidden).
    With a part of seq it makes a partial sum, in the model's dtype: of its terms one alone is not zero.
    """

    kind: Literal["last_token"] = field(default="last_token", kw_only=True)


@_op
class Best:
    """The largest logit of every sequence in one share of the vocabulary, and the lowest token that has it.

    Input: logits (batch, vocab). Outputs: best_logit and best_token (int64), each (batch, vocab_share).
    """

    kind: Literal["best"] = field(default="best", kw_only=True)


@_op
class Choose:
    """The next token of every sequence: that of the largest logit, and of equal logits the lowest token.

    Inputs: best_logit and best_token (batch, vocab_share), all shares. Output: token (batch) int64.
    """

    kind: Literal["choose"] = field(default="choose", kw_only=True)


@_op
class Sample:
    """The next token of every sequence, drawn with the softmax of its logits / temperature as probabilities.

    Of the tokens in descending order of their logits, of equal ones the lowest first, ``top_k`` are kept; of these the
    fewest whose probability together is ``top_p`` or more. What is drawn depends on the seed of a sequence, its number
    in the batch and the token's position alone, not on who draws.

    Inputs: logits (batch, vocab), all of vocab; seed, length and count (batch) int64. Output: token (batch) int64, with
    the position length[b] + count[b].
    """

    kind: Literal["sample"] = field(default="sample", kw_only=True)
    sampling: SamplingSpec


Op = Annotated[
    Broadcast
    | Embed
    | Norm
    | Linear
    | HeadLinear
    | Join
    | Bias
    | Rotate
    | Select
    | Attention
    | Activation
    | Multiply
    | Route
    | Experts
    | TokenGate
    | Add
    | LastToken
    | RotateAt
    | ScaleQueries
    | ScaleBy
    | CacheWrite
    | Expand
    | CachedAttention
    | CachedSelect
    | PartialSelect
    | MergeSelect
    | PartialAttention
    | Merge
    | Best
    | Choose
    | Sample
    | SquareSums
    | NormBySums
    | Scale
    | AllToAll
    | AllGather
    | AllReduce
    | ReduceScatter
    | Packed
    | SendReceive
    | Narrow,
    Field(discriminator="kind"),
]
COLLECTIVES = (Broadcast, AllToAll, AllGather, AllReduce, ReduceScatter, Packed, SendReceive)
# Of the terms of their sums one alone is not zero: a partial sum needs no wider dtype.
_SELECTING = (Embed, LastToken)


def contracted(op: Op) -> tuple[str, ...]:
    """The dims over which an op sums: where a rank has only a part of one, its result is a partial sum."""
    match op:
        case Linear(contract):
            return contract
        case Embed():
            return ("vocab",)
        case Experts():
            return ("expert", "ffn")
        case SquareSums():
            return ("head", "head_dim")
        case LastToken():
            return ("seq",)
        case _:
            return ()


def wire_kind(op: Op) -> str:
    """The kind of collective by which an op's data travel: of packed gathers a gather, else an all-to-all."""
    if not isinstance(op, Packed):
        return op.kind
    return "all_gather" if all(isinstance(move, AllGather) for move in op.moves) else "all_to_all"


def made_dtype(op: Op, output: int, model: Dtype, reduced: Dtype, *, partial: bool) -> Dtype | Literal["int64"]:
    """The dtype that a computation makes.

    Args:
        op: what it computes.
        output: which of its outputs.
        model: the model's dtype.
        reduced: the plan's dtype of partial sums, and of the partial attentions that are merged.
        partial: whether it makes a partial sum.
    """
    match op:
        case Route() | SquareSums() | Linear(wide=True):
            return accumulator(model)
        case PartialAttention():
            return reduced if output == 0 else accumulator(model)
        case HeadLinear():
            return reduced if op.parts else model
        case Best() | PartialSelect():
            return accumulator(model) if output == 0 else "int64"
        case Choose() | Sample() | Select() | CachedSelect() | MergeSelect():
            return "int64"
        case _:
            return reduced if partial and not isinstance(op, _SELECTING) else model
