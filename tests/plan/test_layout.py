"""The index arithmetic of a layout, and what makes one illegal."""

from __future__ import annotations

import pytest

from helixctl.plan import Layout, illegalities
from tests.documents import PAPER, SMALL, specs


def test_partition_i_j_is_head_group_i_slice_j() -> None:
    model, _, _ = specs(PAPER)
    layout = Layout(groups=4, slices=4)
    assert layout.rank(1, 1) == 5
    assert (layout.group_of(5), layout.slice_of(5)) == (1, 1)
    assert layout.ranks_of_group(1) == (4, 5, 6, 7)
    assert layout.ranks_of_slice(1) == (1, 5, 9, 13)
    assert layout.heads(5, model) == (4, 8)
    assert layout.head_dims(5, model) == (128, 256)
    assert layout.columns(5, model) == (2560, 3072)
    assert layout.ffn(5, model) == (10240, 12288)


@pytest.mark.parametrize(("groups", "slices"), [(16, 1), (8, 2), (4, 4)])
def test_every_rank_owns_a_piece_of_its_own(groups: int, slices: int) -> None:
    model, _, _ = specs(PAPER)
    layout = Layout(groups=groups, slices=slices)
    owned = {(layout.heads(r, model), layout.head_dims(r, model)) for r in range(16)}
    assert len(owned) == 16
    assert all((h[1] - h[0]) * (d[1] - d[0]) * 16 == 16 * 512 for h, d in owned)


@pytest.mark.parametrize(
    ("groups", "slices", "sets", "reasons"),
    [
        (4, 4, (), []),
        (2, 8, (), ["8 slices would cut a softmax of 128 dims"]),
        (2, 8, ("attention.softmax_slices=16",), []),
        (4, 2, (), ["4 x 2 makes 8 partitions for 16 devices"]),
        (16, 1, ("attention.heads=28",), ["16 groups do not divide 28 heads"]),
        (4, 4, ("attention.head_dim=510", "attention.softmax_slices=1"), ["4 slices do not divide a head of 510 dims"]),
        (16, 1, ("hidden_size=8200",), ["16 devices do not divide a hidden size of 8200"]),
        (16, 1, ("feed_forward.intermediate_size=100",), ["16 devices do not divide a feed-forward width of 100"]),
    ],
)
def test_illegalities(groups: int, slices: int, sets: tuple[str, ...], reasons: list[str]) -> None:
    model, cluster, _ = specs(PAPER, *sets)
    assert illegalities(Layout(groups=groups, slices=slices), model, cluster.devices) == reasons


def test_one_softmax_per_head_allows_no_slice() -> None:
    model, cluster, _ = specs(SMALL, "attention.softmax_slices=1")
    legal = [
        (g, 16 // g)
        for g in (1, 2, 4, 8, 16)
        if not illegalities(Layout(groups=g, slices=16 // g), model, cluster.devices)
    ]
    assert legal == [(16, 1)]
