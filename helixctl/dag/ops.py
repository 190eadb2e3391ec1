"""The closed vocabulary of what a task does. docs/formats.md gives each op's formula in the same order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, with_config

_STRICT = ConfigDict(extra="forbid")


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Broadcast:
    """Copy one value from the first rank to every rank."""

    kind: Literal["broadcast"] = field(default="broadcast", kw_only=True)


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Norm:
    """Root-mean-square normalisation over ``dim``: x / sqrt(mean(x^2) + eps) * weight. Inputs: x, weight."""

    kind: Literal["norm"] = field(default="norm", kw_only=True)
    function: Literal["rms_norm"]
    dim: str
    eps: float


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Linear:
    """Products of one input with one or more weights, summed over the dims in ``contract``.

    Inputs: x, w_1, ..., w_k. Outputs: y_1, ..., y_k. The dims of y are those of x, then those of w, less ``contract``.
    """

    kind: Literal["linear"] = field(default="linear", kw_only=True)
    contract: tuple[str, ...]


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Attention:
    """softmax(Q K^T / sqrt(softmax_width)) V, alone in every head and every ``softmax_width`` dims of it.

    Inputs: q, k, v, each (batch, seq, head, head_dim).
    """

    kind: Literal["attention"] = field(default="attention", kw_only=True)
    softmax_width: Annotated[int, Field(strict=True, ge=1)]
    causal: Annotated[bool, Field(strict=True)]


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Activation:
    """An elementwise function: gelu (with erf), relu or silu."""

    kind: Literal["activation"] = field(default="activation", kw_only=True)
    function: Literal["gelu", "relu", "silu"]


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Route:
    """Gates of every token: a softmax over its ``top_k`` best experts, zero for all others.

    Inputs: x (batch, seq, hidden), weight (hidden, expert). Of equal logits the lower expert is the better.
    """

    kind: Literal["route"] = field(default="route", kw_only=True)
    top_k: Annotated[int, Field(strict=True, ge=1)]


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Experts:
    """The sum over experts of gate * activation(x w_up) w_down; a token is computed where its gate is not zero.

    Inputs: x (batch, seq, hidden), gates (batch, seq, expert), w_up (expert, hidden, ffn), w_down (expert, ffn,
    hidden). ``top_k`` bounds the gates of a token that are not zero; it enters the costs only.
    """

    kind: Literal["experts"] = field(default="experts", kw_only=True)
    function: Literal["gelu", "relu", "silu"]
    top_k: Annotated[int, Field(strict=True, ge=1)]


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Add:
    """The elementwise sum of two values."""

    kind: Literal["add"] = field(default="add", kw_only=True)


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class AllGather:
    """Every rank receives all ranks' pieces, put together along ``dim`` in the order of the ranks."""

    kind: Literal["all_gather"] = field(default="all_gather", kw_only=True)
    dim: str


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class AllReduce:
    """Every rank receives the sum of all ranks' partial sums."""

    kind: Literal["all_reduce"] = field(default="all_reduce", kw_only=True)


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class SendReceive:
    """The first rank sends one value, the second receives it."""

    kind: Literal["send_receive"] = field(default="send_receive", kw_only=True)


Op = Annotated[
    Broadcast | Norm | Linear | Attention | Activation | Route | Experts | Add | AllGather | AllReduce | SendReceive,
    Field(discriminator="kind"),
]
COLLECTIVES = (Broadcast, AllGather, AllReduce, SendReceive)


def contracted(op: Op) -> tuple[str, ...]:
    """The dims over which an op sums: where a rank has only a part of one, its result is a partial sum."""
    match op:
        case Linear(contract):
            return contract
        case Experts():
            return ("expert", "ffn")
        case _:
            return ()
