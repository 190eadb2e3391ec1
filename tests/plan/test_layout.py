"""The index arithmetic of a layout, and what makes one illegal."""

from __future__ import annotations

from itertools import pairwise, permutations

import pytest

from helixctl.plan import Interval, Layout, illegalities
from helixctl.plan.layout import MESH_AXES, share, weighted_shares
from helixctl.plan.sharding import Shares
from tests.documents import PAPER, PAPER_MOE, SMALL, specs


def share_of(layout: Layout, tensor: str, rank: int, document: tuple[str, str] = PAPER) -> dict[str, Interval]:
    """A rank's share of every dim of a tensor that the layout cuts."""
    model, _, workload = specs(document)
    shares = Shares(layout, model, workload.in_one_pass)
    return shares.cut(shares.of(tensor).made, rank)


def test_partition_i_j_is_head_group_i_slice_j() -> None:
    layout = Layout(groups=4, slices=4)
    assert layout.team(0, 0)[1 * 4 + 1] == 5
    assert (layout.group_of(5), layout.slice_of(5)) == (1, 1)
    assert layout.ranks_of_group(1) == (4, 5, 6, 7)
    assert layout.ranks_of_slice(1) == (1, 5, 9, 13)
    assert share_of(layout, "q", 5) == {"head": (4, 8), "kv_head": (4, 8), "head_dim": (128, 256)}
    assert share_of(layout, "w_o", 5) == {"hidden": (2560, 3072)}
    assert share_of(layout, "w_up", 5) == {"ffn": (10240, 12288)}


@pytest.mark.parametrize(("groups", "slices"), [(16, 1), (8, 2), (4, 4)])
def test_every_rank_owns_a_piece_of_its_own(groups: int, slices: int) -> None:
    layout = Layout(groups=groups, slices=slices)
    owned = {(cut["head"], cut["head_dim"]) for cut in (share_of(layout, "q", rank) for rank in range(16))}
    assert len(owned) == 16
    assert all((h[1] - h[0]) * (d[1] - d[0]) * 16 == 16 * 512 for h, d in owned)


@pytest.mark.parametrize(
    ("groups", "slices", "sets", "reasons"),
    [
        (4, 4, (), []),
        (2, 8, (), ["8 slices would cut a softmax of 128 dims"]),
        (2, 8, ("attention.softmax_slices=16",), []),
        (4, 2, (), ["4 x 2 takes 8 devices; there are 16"]),
        (32, 1, ("attention.heads=28", "hosts=4"), ["32 groups for 28 heads"]),
        (16, 1, ("attention.heads=28",), []),
        (
            16,
            1,
            ("attention.heads=60", "attention.kv_heads=12"),
            ["16 groups are more than the 12 KV heads, and no multiple of them"],
        ),
        (4, 4, ("attention.head_dim=510", "attention.softmax_slices=1"), ["4 slices do not divide a head of 510 dims"]),
        (16, 1, ("hidden_size=8",), ["16 partitions for a hidden size of 8"]),
        (16, 1, ("vocabulary.size=8",), ["16 partitions for a vocabulary of 8"]),
        (16, 1, ("feed_forward.intermediate_size=10",), ["16 partitions for a feed-forward width of 10"]),
    ],
)
def test_illegalities(groups: int, slices: int, sets: tuple[str, ...], reasons: list[str]) -> None:
    model, cluster, workload = specs(PAPER, *sets)
    assert illegalities(Layout(groups=groups, slices=slices), model, workload, cluster.devices) == reasons


def test_one_softmax_per_head_allows_no_slice() -> None:
    model, cluster, workload = specs(SMALL, "attention.softmax_slices=1")
    legal = [
        (g, 16 // g)
        for g in (1, 2, 4, 8, 16)
        if not illegalities(Layout(groups=g, slices=16 // g), model, workload, cluster.devices)
    ]
    assert legal == [(16, 1)]


def test_replicas_and_stages_are_teams_of_ranks() -> None:
    model, _, workload = specs(PAPER)
    layout = Layout(groups=2, slices=2, data=2, pipeline=2, microbatches=4)
    assert layout.devices == 16
    assert [layout.team(s, r) for s in (0, 1) for r in (0, 1)] == [tuple(range(i, i + 4)) for i in (0, 4, 8, 12)]
    assert layout.ranks_of_group(1, stage=1, replica=1) == (14, 15)
    assert layout.ranks_of_slice(1, stage=1, replica=0) == (9, 11)
    assert (layout.group_of(14), layout.slice_of(14)) == (1, 0)
    assert [list(layout.layers(s, model)) for s in (0, 1)] == [[0, 1], [2, 3]]
    assert [layout.batch(1, m, workload) for m in (0, 3)] == [(512, 640), (896, 1024)]


def test_uneven_stages_differ_by_one_layer() -> None:
    model, _, _ = specs(PAPER)
    assert [len(Layout(groups=1, slices=1, pipeline=3).layers(s, model)) for s in range(3)] == [2, 1, 1]


def test_a_layout_says_its_axes() -> None:
    assert str(Layout(groups=4, slices=4)) == "4 x 4"
    assert str(Layout(groups=4, slices=4, experts=8)) == "4 x 4, experts 8 x 2"
    assert str(Layout(groups=2, slices=1, experts=4)) == "2 x 1, experts 4"  # not legal, and no 4 x 0
    megatron = Layout(groups=8, slices=1, combine="reduce", pipeline=2, microbatches=4)
    assert str(megatron) == "8 x 1, pipeline 2, microbatches 4, reduce"
    rest = Layout(groups=4, slices=4, experts=8, microbatches=4, interleave=2, reduction_dtype="model", placement=INNER)
    assert str(rest) == (
        "4 x 4, microbatches 4, interleave 2, experts 8 x 2, reduced in the model's dtype, "
        "placement groups-slices-data-pipeline"
    )


INNER = "groups-slices-data-pipeline"


@pytest.mark.parametrize("placement", ["-".join(axes) for axes in permutations(MESH_AXES)])
def test_every_placement_gives_every_rank_one_place(placement: str) -> None:
    layout = Layout(groups=2, slices=3, data=2, pipeline=2, placement=placement)
    teams = [layout.team(stage, replica) for stage in (0, 1) for replica in (0, 1)]
    assert sorted(rank for team in teams for rank in team) == list(range(24))
    for stage, replica in ((0, 0), (1, 1)):
        team = layout.team(stage, replica)
        assert [layout.position(rank) for rank in team] == list(range(6))
        places = {(layout.group_of(rank), layout.slice_of(rank)): rank for rank in team}
        assert len(places) == 6
        for (group, slice_), rank in places.items():
            assert layout.rank(group, slice_, stage, replica) == rank
            assert layout.ranks_of_group(group, stage, replica)[slice_] == rank
            assert layout.ranks_of_slice(slice_, stage, replica)[group] == rank


def test_a_placement_says_what_stays_inside_a_host() -> None:
    """Eight groups of two slices on hosts of eight: the innermost axis never crosses."""
    slices_inside = Layout(groups=8, slices=2)
    groups_inside = Layout(groups=8, slices=2, placement=INNER)
    assert slices_inside.ranks_of_group(0) == (0, 1)
    assert groups_inside.ranks_of_group(0) == (0, 8)
    assert groups_inside.ranks_of_slice(0) == tuple(range(8))


def test_experts_in_ways_and_pieces() -> None:
    ways = [share_of(Layout(groups=4, slices=4, experts=8), "w_up", rank, PAPER_MOE) for rank in range(16)]
    assert [ways[rank]["expert"] for rank in (0, 1, 2, 15)] == [(0, 1), (0, 1), (1, 2), (7, 8)]
    assert [ways[rank]["ffn"] for rank in (0, 1, 2)] == [(0, 16384), (16384, 32768), (0, 16384)]
    cut = [share_of(Layout(groups=4, slices=4), "w_up", rank, PAPER_MOE) for rank in range(16)]
    assert {its["expert"] for its in cut} == {(0, 8)}
    assert cut[15]["ffn"] == (30720, 32768)


@pytest.mark.parametrize(
    ("axes", "reason"),
    [
        ({"pipeline": 8, "groups": 2}, "8 stages for 4 layers"),
        (
            {"data": 16, "groups": 1, "microbatches": 128},
            "16 replicas x 128 microbatches for a batch of 1024",
        ),
        (
            {"groups": 16, "microbatches": 4, "interleave": 3},
            "3 interleaved at a time do not divide 4 microbatches",
        ),
        ({"groups": 16, "experts": 8}, "8 ways of experts, and the model has none"),
    ],
)
def test_illegal_axes(axes: dict[str, int], reason: str) -> None:
    model, cluster, workload = specs(PAPER)
    assert illegalities(Layout(slices=1, **axes), model, workload, cluster.devices) == [reason]


def test_a_reduction_needs_no_division_of_the_hidden_size() -> None:
    model, cluster, workload = specs(PAPER, "hidden_size=8200")
    assert illegalities(Layout(groups=16, slices=1, combine="reduce"), model, workload, cluster.devices) == []


@pytest.mark.parametrize(
    ("sets", "experts", "reason"),
    [
        ((), 3, "3 ways of experts do not divide 16 partitions"),
        ((), 16, "16 ways for 8 experts"),
        (
            ("feed_forward.intermediate_size=12", "feed_forward.experts.count=2"),
            1,
            "16 partitions for a feed-forward width of 12",
        ),
        (("feed_forward.intermediate_size=1",), 8, "2 pieces of an expert's width of 1"),
    ],
)
def test_illegal_experts(sets: tuple[str, ...], experts: int, reason: str) -> None:
    model, cluster, workload = specs(PAPER_MOE, *sets)
    assert illegalities(Layout(groups=4, slices=4, experts=experts), model, workload, cluster.devices) == [reason]


@pytest.mark.parametrize(
    ("size", "weights", "ends"),
    [
        (8, (3, 3, 1, 1), (0, 3, 6, 7, 8)),
        (8, (27, 27, 10, 10), (0, 3, 6, 7, 8)),  # 2.9 and 1.1 each
        (10, (1, 1, 2), (0, 3, 5, 10)),  # two rests of a half: the first has it
        (8, (9, 9, 9, 9, 1, 1, 1, 1), (0, 1, 2, 3, 4, 5, 6, 7, 8)),  # nobody has nothing
        (4, (100, 1, 1), (0, 2, 3, 4)),
    ],
)
def test_shares_by_weights(size: int, weights: tuple[int, ...], ends: tuple[int, ...]) -> None:
    assert weighted_shares(size, weights) == tuple(pairwise(ends))


@pytest.mark.parametrize("size", [3, 8, 28, 101])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_equal_weights_are_even_shares(size: int, parts: int) -> None:
    assert weighted_shares(size, (7,) * parts) == tuple(share(size, parts, i) for i in range(parts))


def test_groups_of_unequal_shares() -> None:
    """All that groups cut goes by their weights: of a way of experts by those of its ranks."""
    layout = Layout(groups=4, slices=2, group_shares="5-1-1-1")
    assert share_of(layout, "q", 1) == {"head": (0, 10), "kv_head": (0, 10), "head_dim": (256, 512)}
    assert share_of(layout, "k", 2) == {"head": (10, 12), "kv_head": (10, 12), "head_dim": (0, 256)}
    assert [share_of(layout, "w_up", rank)["ffn"] for rank in (0, 1, 2)] == [(0, 10240), (10240, 20480), (20480, 22528)]
    assert share_of(layout, "w_o", 1) == {"hidden": (2560, 5120)}
    assert str(layout) == "4 x 2, group_shares 5-1-1-1"
    ways = layout.model_copy(update={"experts": 2})
    found = [share_of(ways, "w_up", rank, PAPER_MOE) for rank in (0, 2, 4)]
    assert [its["expert"] for its in found] == [(0, 6), (0, 6), (6, 8)]
    assert [its["ffn"][1] - its["ffn"][0] for its in found] == [13653, 2731, 8192]


def test_groups_that_share_a_kv_head_share_its_heads_by_weights() -> None:
    layout = Layout(groups=4, slices=1, group_shares="3-1-1-1")
    model, _, workload = specs(PAPER, "attention.kv_heads=2")
    shares = Shares(layout, model, workload.in_one_pass)
    heads = [shares.cut(shares.of("q").made, rank) for rank in range(4)]
    assert [its["head"] for its in heads] == [(0, 6), (6, 8), (8, 12), (12, 16)]
    assert [shares.cut(shares.of("k").made, rank)["kv_head"] for rank in range(4)] == [(0, 1), (0, 1), (1, 2), (1, 2)]


@pytest.mark.parametrize(
    ("axes", "reason"),
    [
        ({"group_shares": "1-2-1"}, "the weights of 3 groups, 1-2-1, for 4 groups"),
        (
            {"group_shares": "1-2-1-1", "slices": 4, "placement": INNER},
            f"group_shares, and the placement {INNER} parts the slices of a group",
        ),
        (
            {"group_shares": "1-2-1-1", "data": 4, "expert_data": 2},
            "group_shares of replicas that share experts, which lie across groups",
        ),
    ],
)
def test_illegal_weights(axes: dict[str, int | str], reason: str) -> None:
    model, _, workload = specs(PAPER_MOE)
    layout = Layout.model_validate({"groups": 4, "slices": 1, **axes})
    assert illegalities(layout, model, workload, layout.devices) == [reason]
