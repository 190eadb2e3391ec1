"""Collectives, derived: what stands between how a tensor is made and how it is read.

| made -> read | |
|---|---|
| with the first rank -> with all | broadcast |
| partial sum -> whole | all_reduce |
| partial sum -> cut | reduce_scatter |
| cut over an axis -> whole | all_gather, one dim after another |
| cut on one dim -> cut on another, over one axis | all_to_all |
| whole -> cut | narrow: no collective, a rank keeps its share |
| of a replica -> joined | all_gather of the replicas' sequences |
| partial sum, joined -> of a replica | reduce_scatter of the sequences, then as above |

In a step with a cache the gathers and all-to-alls of what one equation makes are packed in one exchange, where they
are over one axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from helixctl.dag import AllGather, AllReduce, AllToAll, Broadcast, Narrow, Op, ReduceScatter, SendReceive
from helixctl.dag.function import TOKEN, entering, hidden_states, input_of
from helixctl.dag.levels import level_moved
from helixctl.lower.builder import Builder, Moved
from helixctl.plan import Layout
from helixctl.plan.layout import Axis
from helixctl.plan.sharding import JOINED, WHOLE, Cut, Sharded, Sharding, kind_of


class Move(NamedTuple):
    """One step from one sharding to another: an op over an axis of the mesh, and the sharding that it leaves."""

    op: Op
    axis: Axis
    left: Sharding


def moves(layout: Layout, sharded: Sharded, dims: tuple[str, ...]) -> list[Move]:
    """The steps from how a tensor is made to how it is read.

    Args:
        layout: gives the number of shares of every axis; an axis of one share cuts nothing. Of two gathers it says
            which comes first.
        sharded: how the tensor is made, and how it is read.
        dims: the tensor's.
    """
    made, read = sharded
    have, want = (_cutting(layout, s.cuts, dims) for s in sharded)
    found = []
    if made.owner != read.owner:
        found.append(Move(Broadcast(), "tensor", WHOLE))
    if JOINED in have and JOINED not in want:
        return _parted(layout, made, read, want)
    if JOINED in want and JOINED not in have:
        return _joined(have, want)
    if _cutting(layout, made.partial) and read.partial != made.partial:
        if not want:
            return [Move(AllReduce(), "tensor", read)]
        (cut,) = want
        return [Move(ReduceScatter(cut.dim), cut.axis, read)]
    gone, new = [c for c in have if c not in want], [c for c in want if c not in have]
    for cut in new:
        other = next((c for c in gone if c.axis == cut.axis), None)
        if other is None:
            have = [*have, cut]
            found.append(Move(Narrow(cut.dim), cut.axis, Sharding(tuple(have))))
        else:
            gone.remove(other)
            have = [cut if c == other else c for c in have]
            found.append(Move(AllToAll(cut.dim, other.dim), cut.axis, Sharding(tuple(have))))
    slices_first = layout.gather_order == "slices_first"
    for cut in sorted(gone, key=lambda c: (c.axis == "slices") != slices_first):
        have = [c for c in have if c != cut]
        found.append(Move(AllGather(cut.dim), cut.axis, Sharding(tuple(have))))
    return found


def _joined(have: list[Cut], want: list[Cut]) -> list[Move]:
    """Gather the sequences of replicas; shares of sequences are gathered with them, those of rows inside a team."""
    if any(cut.dim == "batch" for cut in have):
        return [Move(AllGather("batch"), "spread", Sharding(tuple(want)))]
    # First across teams, which may be on several hosts: that is the smaller piece.
    found = [Move(AllGather("batch"), "replicas", Sharding((*have, JOINED)))]
    return [*found, *(Move(AllGather(cut.dim), cut.axis, Sharding(tuple(want))) for cut in have)]


def _parted(layout: Layout, made: Sharding, read: Sharding, want: list[Cut]) -> list[Move]:
    """Add partial sums up and part them among the replicas, and inside each as it reads them.

    What is cut inside a team is added up there first, so that the smaller piece goes to other teams.
    """
    if any(cut.dim == "batch" for cut in want):
        return [Move(ReduceScatter("batch"), "spread", read)]
    rows = Sharding((*want, JOINED), made.partial)
    found = [Move(ReduceScatter(cut.dim), cut.axis, rows) for cut in want]
    if found or layout.partitions == 1:
        return [*found, Move(ReduceScatter("batch"), "replicas", read)]
    one = Sharding(partial=made.partial)
    return [Move(ReduceScatter("batch"), "replicas", one), Move(AllReduce(), "tensor", read)]


def _cutting(layout: Layout, cuts: tuple[Cut, ...], dims: tuple[str, ...] | None = None) -> list[Cut]:
    """The cuts that part a tensor of these dims."""
    return [c for c in cuts if layout.ways(c.axis) > 1 and (dims is None or c.dim in dims)]


# By the form of a layout and the kind of tensor: forms are few, layouts are many.
_KNOWN: Final = dict[object, list[Move]]()


def moves_of(b: Builder, tensor: str) -> list[Move]:
    """The steps from how a tensor is made to how it is read in the builder's layout."""
    key = (b.form, kind_of(tensor))
    if key not in _KNOWN:
        _KNOWN[key] = moves(b.layout, b.shares.of(tensor), b.function.tensors[tensor].dims)
    return _KNOWN[key]


def reshard(b: Builder, tensors: Sequence[str]) -> None:
    """Leave every rank with what the readers of some tensors take, none of which depends on another.

    In a step with a cache first moves that can be packed go in one exchange. In a pass each tensor moves by itself:
    its exchanges are long, so that nothing is gained, and its documents are what they were.
    """
    left = {tensor: moves_of(b, tensor) for tensor in tensors}
    if b.step.cached is not None:
        while packs := _packs(b, left):
            for together in packs:
                _move(b, [(tensor, left[tensor][0]) for tensor in together])
                left |= {tensor: left[tensor][1:] for tensor in together}
    for tensor, its in left.items():
        for move in its:
            _move(b, [(tensor, move)])


def _packs(b: Builder, moves_of_each: Mapping[str, list[Move]]) -> list[list[str]]:
    """The tensors whose first moves one exchange can carry: gathers and all-to-alls over one axis, filed alike."""
    found: dict[object, list[str]] = {}
    for tensor, its in moves_of_each.items():
        if its and isinstance(its[0].op, AllToAll | AllGather):
            found.setdefault((its[0].axis, level_moved(b.function, tensor, its[0].op)), []).append(tensor)
    return [tensors for tensors in found.values() if len(tensors) > 1]


def _move(b: Builder, moved: Sequence[tuple[str, Move]]) -> None:
    """One move of a tensor, or of several over one axis together."""
    tensor, move = moved[0]
    layer, level = level_moved(b.function, tensor, move.op)
    names = [_named(tensor, level, move, b.layout) for tensor, move in moved]
    if isinstance(move.op, Narrow):
        b.narrow(layer, level, names[0][0], move.op, tensor, names[0][1], partial(b.cut, move.left))
        return
    its = [
        Moved(move.op, tensor, stage, partial(b.cut, Sharding(move.left.cuts)), move.left)
        for (tensor, move), (_, stage) in zip(moved, names, strict=True)
    ]
    name = "_".join(name for name, _ in names)
    for end, ranks in b.along(move.axis):
        b.exchange(layer, level, f"{name}.{end}" if end else name, ranks, its)


def distribute_input(b: Builder) -> None:
    """Give the model's input to its owner, and from there to all ranks."""
    tensor = input_of(b.model)
    for team in b.teams:
        b.own(tensor, team[0])
    reshard(b, [tensor])


def receive(b: Builder, layer: int) -> None:
    """Ahead of a stage's first layer every rank of the stage before sends what it holds to its counterpart.

    That is the residual stream, and where the layer shares a choice of keys that too.
    """
    pairs = []
    for replica, team in zip(b.replicas, b.teams, strict=True):
        pairs += list(enumerate(zip(b.layout.team(b.stage - 1, replica), team, strict=True)))
    for tensor in entering(b.function, b.model, layer):
        stream = tensor == hidden_states(b.model, layer)
        name, cut = "send" if stream else f"send_{kind_of(tensor)}", partial(b.cut, b.shares.of(tensor).read)
        for index, ends in pairs:
            b.collective(layer, "transfer", f"{name}.{index}", SendReceive(), ends, tensor, "received", cut)


def spread_tokens(b: Builder) -> None:
    """Every rank of the last stage sends the next tokens to its counterparts, so that all ranks know when to stop."""
    layer, level = level_moved(b.function, TOKEN, SendReceive())
    (replica,), (team,) = b.replicas, b.teams
    for stage in range(b.layout.pipeline - 1):
        for index, ends in enumerate(zip(team, b.layout.team(stage, replica), strict=True)):
            b.collective(layer, level, f"send.{stage}.{index}", SendReceive(), ends, TOKEN, "received")


# --- names -----------------------------------------------------------------------------------------------------------

# The last part of a task's name, and what its results are called.
_NAMES: Final = {
    "broadcast": ("broadcast", "copy"),
    "all_reduce": ("reduce", "full"),
    "all_gather": ("gather", "full"),
    "reduce_scatter": ("scatter", "shard"),
    "all_to_all": ("exchange", "shard"),
    "narrow": ("narrow", "shard"),
}
_OF_THE_HEAD: Final = {"best_logit": "best_logit", "best_token": "best_token", "logits": "all_logits"}
_OF_EXPERTS: Final = {"routed", "shared_down", "experts_in", "router_in"}  # beside another that moves likewise
# Among replicas that share experts, where another move of the tensor is inside a team.
_OF_REPLICAS: Final = {"all_gather": ("join", "joined"), "reduce_scatter": ("part", "own")}
_OF_A_PART: Final = {"slices": "group", "groups": "slice"}  # what the first of two gathers leaves a rank with


def _named(  # noqa: PLR0911  one case a level
    tensor: str, level: str, move: Move, layout: Layout
) -> tuple[str, str]:
    """The name of a move's tasks, and what is added to the tensor's name for what it leaves."""
    kind = kind_of(tensor)
    match level:
        case "exchange" if isinstance(move.op, Narrow):
            return f"narrow_{kind}", "shard"
        case "exchange":
            return kind.removesuffix("_biased"), "whole"
        case "attend":  # attention_part, attention_lse
            return kind.removeprefix("attention_"), "whole"
        case "head" if kind in _OF_THE_HEAD:
            return _OF_THE_HEAD[kind], "full"
        case "concat":
            first = "slices" if layout.gather_order == "slices_first" else "groups"
            return move.axis, _OF_A_PART[move.axis] if move.axis == first else "full"
        case "project" if kind == "attention":
            return "return", "sliced"
        case _ if kind in _OF_EXPERTS:
            name, stage = _OF_REPLICAS[move.op.kind] if move.axis == "replicas" else _NAMES[move.op.kind]
            return f"{name}_{kind}", stage
        case _ if move.axis == "replicas":
            return _OF_REPLICAS[move.op.kind]
        case _:
            return _NAMES[move.op.kind]
