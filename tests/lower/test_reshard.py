"""The table of moves: what leads from how a tensor is made to how it is read."""

from __future__ import annotations

import pytest

from helixctl.dag import AllGather, AllReduce, AllToAll, Broadcast, Narrow, Op, ReduceScatter
from helixctl.lower.reshard import moves
from helixctl.plan import Layout
from helixctl.plan.sharding import JOINED, WHOLE, Cut, Sharded, Sharding

FOUR = Layout(groups=2, slices=2)
DIMS = ("batch", "seq", "head", "head_dim")
HEADS, ELEMENTS = Cut("head", "groups", "kv_heads"), Cut("head_dim", "slices")
SEQUENCES, ROWS = Cut("batch", "slices"), Cut("seq", "tensor")


def steps(made: Sharding, read: Sharding, layout: Layout = FOUR, dims: tuple[str, ...] = DIMS) -> list[tuple[Op, str]]:
    return [(move.op, move.axis) for move in moves(layout, Sharded(made, read), dims)]


def test_what_is_read_as_it_is_made_does_not_move() -> None:
    assert steps(Sharding((HEADS, ELEMENTS)), Sharding((HEADS, ELEMENTS))) == []
    assert steps(WHOLE, WHOLE) == []


@pytest.mark.parametrize(
    ("made", "read", "ops"),
    [
        (Sharding(owner="first"), WHOLE, [(Broadcast(), "tensor")]),
        (Sharding(owner="first"), Sharding((ROWS,)), [(Broadcast(), "tensor"), (Narrow("seq"), "tensor")]),
        (Sharding(partial=(HEADS, ELEMENTS)), WHOLE, [(AllReduce(), "tensor")]),
        (Sharding(partial=(HEADS, ELEMENTS)), Sharding((ROWS,)), [(ReduceScatter("seq"), "tensor")]),
        (Sharding((HEADS, ELEMENTS)), Sharding((HEADS, SEQUENCES)), [(AllToAll("batch", "head_dim"), "slices")]),
        (Sharding((HEADS, ELEMENTS)), Sharding((HEADS,)), [(AllGather("head_dim"), "slices")]),
        (Sharding((ROWS,)), WHOLE, [(AllGather("seq"), "tensor")]),
        (WHOLE, Sharding((ROWS,)), [(Narrow("seq"), "tensor")]),
    ],
)
def test_moves(made: Sharding, read: Sharding, ops: list[tuple[Op, str]]) -> None:
    assert steps(made, read) == ops


# Of experts that two replicas share: the tokens of both on the way there, those of each behind them.
REPLICAS = Layout(groups=2, slices=2, data=2, expert_data=2)
SPREAD = (Cut("expert", "experts"), Cut("ffn", "expert_tensor"))
SHARE = Cut("batch", "tensor")


@pytest.mark.parametrize(
    ("stream", "there", "back"),
    [
        (
            (),
            [(AllGather("batch"), "replicas")],
            [(ReduceScatter("batch"), "replicas"), (AllReduce(), "tensor")],
        ),
        (
            (ROWS,),
            [(AllGather("batch"), "replicas"), (AllGather("seq"), "tensor")],
            [(ReduceScatter("seq"), "tensor"), (ReduceScatter("batch"), "replicas")],
        ),
        ((SHARE,), [(AllGather("batch"), "spread")], [(ReduceScatter("batch"), "spread")]),
    ],
)
def test_moves_to_experts_that_replicas_share(
    stream: tuple[Cut, ...], there: list[tuple[Op, str]], back: list[tuple[Op, str]]
) -> None:
    dims, read = ("batch", "seq", "hidden"), Sharding(stream)
    assert steps(read, Sharding((JOINED,)), REPLICAS, dims) == there
    assert steps(Sharding((JOINED,), partial=SPREAD), read, REPLICAS, dims) == back


def test_replicas_of_one_device_sum_up_and_part_in_one_step() -> None:
    made = Sharding((JOINED,), partial=SPREAD)
    replicas = Layout(groups=1, slices=1, data=4, expert_data=4)
    assert steps(made, WHOLE, replicas, ("batch", "hidden")) == [(ReduceScatter("batch"), "replicas")]


@pytest.mark.parametrize(
    ("order", "dims"), [("slices_first", ["head_dim", "head"]), ("groups_first", ["head", "head_dim"])]
)
def test_gathers_follow_the_order_of_the_layout(order: str, dims: list[str]) -> None:
    layout = FOUR.model_copy(update={"gather_order": order})
    assert [op for op, _ in steps(Sharding((HEADS, ELEMENTS)), WHOLE, layout)] == [AllGather(dim) for dim in dims]


def test_an_axis_of_one_share_and_a_dim_that_is_not_there_move_nothing() -> None:
    assert steps(Sharding((HEADS, ELEMENTS)), WHOLE, Layout(groups=4, slices=1)) == [(AllGather("head"), "groups")]
    assert steps(Sharding((HEADS, ELEMENTS)), WHOLE, dims=("batch", "hidden")) == []
    assert steps(Sharding(partial=(HEADS, ELEMENTS)), WHOLE, Layout(groups=1, slices=1)) == []


def test_every_step_says_what_it_leaves() -> None:
    made = Sharding((HEADS, ELEMENTS))
    assert [move.left for move in moves(FOUR, Sharded(made, WHOLE), DIMS)] == [Sharding((HEADS,)), WHOLE]
