"""Lowering: the paper's three levels, and the golden plans and dags that are shipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest

from helixctl.cost.tasks import crosses_hosts
from helixctl.lower import lower
from helixctl.lower.builder import Builder
from helixctl.plan.layout import Layout
from helixctl.verify import verify
from tests.documents import PAPER, PAPER_MOE, ROOT, SMALL, SMALL_MOE, as_shipped, dag_of

Golden = Callable[[Path, str], None]


def test_the_paper_s_levels() -> None:
    """16 attention tasks a layer, 4 gathers inside groups, and the gather across groups on all 16 GPUs."""
    dag = dag_of(PAPER, 4, 4)
    for layer in range(4):
        tasks = [t for t in dag.tasks if t.layer == layer]
        attend = [t for t in tasks if t.kind == "attention"]
        assert sorted(t.ranks[0] for t in attend) == list(range(16))
        assert {t.level for t in attend} == {"attend"}
        slices = [t for t in tasks if t.id.startswith(f"l{layer}.concat.slices.")]
        groups = [t for t in tasks if t.id.startswith(f"l{layer}.concat.groups.")]
        assert [t.ranks for t in slices] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11), (12, 13, 14, 15)]
        assert [t.ranks for t in groups] == [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)]
        assert {t.level for t in (*slices, *groups)} == {"concat"}


def test_1_16_to_1_4_to_full() -> None:
    dag = dag_of(PAPER, 4, 4)
    whole = prod(dag.tensor["l0.attention"].shape)
    for rank in range(16):
        pieces = [dag.value[f"l0.attention{stage}@{rank}"].numel for stage in ("", ":group", ":full")]
        assert pieces == [whole // 16, whole // 4, whole]


@pytest.mark.parametrize(("groups", "slices"), [(4, 4), (8, 2), (16, 1)])
def test_every_device_owns_a_sixteenth_of_the_weights(groups: int, slices: int) -> None:
    dag = dag_of(PAPER, groups, slices)
    for layer in range(4):
        for name in ("w_q", "w_k", "w_v", "w_o", "w_up", "w_down"):
            whole = prod(dag.tensor[f"l{layer}.{name}"].shape)
            owned = [dag.value[f"l{layer}.{name}@{rank}"] for rank in range(16)]
            assert {v.numel * 16 for v in owned} == {whole}
            assert len({v.region for v in owned}) == 16


def test_one_device_has_no_collective() -> None:
    dag = dag_of(SMALL, 1, 1)
    assert not any(t.is_collective for t in dag.tasks)
    assert not verify(dag)


def test_a_group_of_one_slice_gathers_across_groups_only() -> None:
    kinds = Counter(t.id.split(".")[2] for t in dag_of(SMALL, 4, 1).tasks if t.level == "concat")
    assert kinds == {"groups": 4}
    kinds = Counter(t.id.split(".")[2] for t in dag_of(SMALL, 1, 4).tasks if t.level == "concat")
    assert kinds == {"slices": 4}


def test_flops_of_the_paper_s_model() -> None:
    """6.44 GFLOP per token without attention scores, and an equal share on every GPU."""
    dag = dag_of(PAPER, 4, 4)
    linear = [t for t in dag.tasks if t.kind == "linear"]
    assert sum(t.flops for t in linear) / 1024 == pytest.approx(6.44e9, rel=1e-3)
    assert len(set(Counter({r: sum(t.flops for t in linear if t.ranks == (r,)) for r in range(16)}).values())) == 1


MEGATRON = {"combine": "reduce", "pipeline": 2, "microbatches": 4}
# The rows of the paper's table, and their small twins.
SHIPPED = {
    "dense.4x4": (PAPER, SMALL, 4, 4, {}),
    "dense.tp8-pp2": (PAPER, SMALL, 8, 1, MEGATRON),
    "moe.4x4": (PAPER_MOE, SMALL_MOE, 4, 4, {"experts": 8}),
    "moe.tp8-pp2": (PAPER_MOE, SMALL_MOE, 8, 1, {**MEGATRON, "experts": 8}),
}


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("size", ["paper", "small"])
def test_shipped_plans(size: str, name: str, golden: Golden) -> None:
    paper, small, groups, slices, axes = SHIPPED[name]
    dag = dag_of(paper if size == "paper" else small, groups, slices, **axes)
    assert verify(dag) == []
    if size == "small":
        dag = lower(as_shipped(dag.plan))
    golden(ROOT / f"plans/{size}/{name}.plan.json", dag.plan.to_json())
    if size == "paper" or name == "dense.4x4":  # the dags of the other small twins differ from these in sizes only
        golden(ROOT / f"plans/{size}/{name}.dag.json", dag.to_json())


@pytest.mark.parametrize("causal", ["true", "false"])
@pytest.mark.parametrize("devices", [1, 2, 4, 8, 16])
def test_every_legal_layout_is_proved(devices: int, causal: str) -> None:
    for slices in (s for s in range(1, devices + 1) if devices % s == 0):
        dag = dag_of(SMALL, devices // slices, slices, "attention.softmax_slices=16", f"attention.causal={causal}")
        assert verify(dag) == []
        assert dag.plan.layout == Layout(groups=devices // slices, slices=slices)


AXES = [
    {"gather_order": "groups_first"},
    {"combine": "reduce"},
    {"data": 2},
    {"microbatches": 2},
    {"pipeline": 2},
    {"pipeline": 2, "microbatches": 4, "combine": "reduce"},
    {"pipeline": 2, "data": 2, "microbatches": 2, "gather_order": "groups_first"},
    {"microbatches": 4, "interleave": 2},
    {"pipeline": 2, "microbatches": 4, "interleave": 4, "reduction_dtype": "model"},
    {"residual": "sharded"},
    {"residual": "sharded", "combine": "reduce", "pipeline": 2, "microbatches": 2, "interleave": 2},
    {"data": 2, "pipeline": 2, "placement": "data-groups-pipeline-slices", "gather_order": "groups_first"},
]


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize(("groups", "slices"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_every_axis_is_proved(groups: int, slices: int, axes: dict[str, int | str]) -> None:
    assert verify(dag_of(SMALL, groups, slices, **axes)) == []


@pytest.mark.parametrize("axes", [{}, {"experts": 2}, {"experts": 4}, {"experts": 4, "combine": "reduce"}])
@pytest.mark.parametrize(("groups", "slices"), [(4, 1), (2, 2), (1, 4)])
def test_every_spread_of_experts_is_proved(groups: int, slices: int, axes: dict[str, int | str]) -> None:
    """Every expert is owned once, whole or in pieces, and one sum over the team ends the layer."""
    dag = dag_of(SMALL_MOE, groups, slices, **axes)
    assert verify(dag) == []
    for name in ("w_up", "w_down"):
        owned = [v for v in dag.values if v.tensor == f"l0.{name}"]
        assert sum(v.numel for v in owned) == prod(dag.tensor[f"l0.{name}"].shape)
    sums = [t for t in dag.tasks if t.level == "feed_forward" and t.is_collective]
    assert [(t.layer, t.kind, t.ranks) for t in sums] == [(layer, "all_reduce", (0, 1, 2, 3)) for layer in range(4)]


def test_experts_cost_what_an_even_routing_gives() -> None:
    """Top 2 of 8: a quarter of the eight networks, on every device alike, however they are spread."""
    dense = sum(
        t.flops for t in dag_of(PAPER, 4, 4).tasks if t.id.startswith(("l0.feed_forward.up", "l0.feed_forward.down"))
    )
    for ways in (1, 2, 4, 8):
        flops = [t.flops for t in dag_of(PAPER_MOE, 4, 4, experts=ways).tasks if t.kind == "experts" and t.layer == 0]
        assert len(set(flops)) == 1
        assert sum(flops) == 2 * dense


def test_microbatches_take_turns_at_collectives() -> None:
    """Between two collectives of one microbatch stands the computation of the others; all ranks agree."""
    dag = dag_of(SMALL, 4, 1, "layers=1", combine="reduce", microbatches=4, interleave=2)
    assert verify(dag) == []
    order = [dag.task[name] for name in dag.order[3]]
    turns = [(t.level, t.id.rpartition(".b")[2]) for t in order if t.is_collective]
    assert turns == [
        (level, part)
        for pair in (("0", "1"), ("2", "3"))
        for level in ("distribute", "project", "feed_forward")
        for part in pair
    ]
    one_after_the_other = dag_of(SMALL, 4, 1, "layers=1", combine="reduce", microbatches=4)
    assert {t.id for t in dag.tasks} == {t.id for t in one_after_the_other.tasks}
    assert [t.id.rpartition(".b")[2] for t in (one_after_the_other.task[n] for n in one_after_the_other.order[3])] == [
        str(part) for part in range(4) for _ in range(13)
    ]


def test_partial_sums_in_the_model_s_dtype() -> None:
    """Half the bytes of every sum, as in Megatron-LM; all else is as it was."""

    def summed(reduction_dtype: str) -> int:
        dag = dag_of(PAPER, 16, 1, combine="reduce", reduction_dtype=reduction_dtype)
        return sum(t.nbytes for t in dag.tasks if t.kind == "all_reduce")

    assert summed("model") * 2 == summed("accumulator")


@pytest.mark.parametrize(
    "axes", [{}, {"pipeline": 2, "microbatches": 4, "interleave": 2}, {"data": 2, "combine": "reduce"}]
)
def test_one_rank_of_each_team_is_lowered_as_it_is_in_the_whole(axes: dict[str, int | str]) -> None:
    """What the solver prices: the same tasks in the same order, with the same costs."""
    whole = dag_of(SMALL, 2, 2, **axes)
    layout = whole.plan.layout
    some = {layout.team(stage, 0)[0] for stage in range(layout.pipeline)}
    part = lower(whole.plan, some)
    assert {r for r, ids in enumerate(part.order) if ids} == some
    for rank in some:
        assert part.order[rank] == whole.order[rank]
    for task in part.tasks:
        full = whole.task[task.id]
        assert (task.op, task.ranks, task.flops, task.nbytes) == (full.op, full.ranks, full.flops, full.nbytes)
    assert all(v == whole.value[v.id] for v in part.values)


def test_the_megatron_baseline_is_a_layout() -> None:
    """TP=8, PP=2: two sums a layer over the 8 ranks of a stage, and the residual stream sent on by each of them."""
    dag = dag_of(PAPER, 8, 1, combine="reduce", pipeline=2, microbatches=4)
    assert verify(dag) == []
    collectives = [t for t in dag.tasks if t.is_collective]
    assert not [t for t in collectives if t.kind == "all_gather"]
    for part in range(4):
        sums = [t for t in collectives if t.kind == "all_reduce" and t.id.endswith(f".b{part}")]
        assert [(t.layer, t.level, t.ranks) for t in sums] == [
            (layer, level, tuple(range(8) if layer < 2 else range(8, 16)))
            for layer in range(4)
            for level in ("project", "feed_forward")
        ]
        sent = [t for t in collectives if t.kind == "send_receive" and t.id.endswith(f".b{part}")]
        assert [t.ranks for t in sent] == [(r, r + 8) for r in range(8)]
    # Every rank owns its eighth of its two layers once, whatever the number of microbatches.
    assert len([v for v in dag.values if v.tensor == "l0.w_q"]) == 8


def test_groups_first_crosses_the_hosts_with_a_quarter_of_the_bytes() -> None:
    """4 x 4 on two hosts of eight, for the two orders of the concat; the projection's gather is the same in both."""

    def crossing(order: str) -> int:
        dag = dag_of(PAPER, 4, 4, gather_order=order)
        return sum(t.nbytes for t in dag.tasks if t.level == "concat" and crosses_hosts(t, dag.plan.cluster))

    assert crossing("groups_first") * 4 == crossing("slices_first")


def test_sixteen_replicas_communicate_nothing() -> None:
    dag = dag_of(PAPER, 1, 1, data=16)
    assert verify(dag) == []
    assert not any(t.is_collective for t in dag.tasks)


@pytest.mark.parametrize(
    ("specs", "axes"),
    [
        (SMALL, {"microbatches": 4, "interleave": 2}),
        (SMALL, {"microbatches": 3, "data": 2}),
        (SMALL, {"microbatches": 2, "slicing": "batch"}),
        (SMALL, {"microbatches": 4, "pipeline": 2, "combine": "reduce", "residual": "sharded"}),
        (SMALL_MOE, {"microbatches": 4, "data": 2, "expert_data": 2}),
    ],
)
def test_a_microbatch_is_lowered_as_if_it_were_the_first(
    specs: tuple[str, str], axes: dict[str, int | str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of one holds for those of its size; of 18 sequences some have more than others."""
    found = dag_of(specs, 2, 2, "layers=2", "workload.batch=18", **axes)
    enter = Builder.enter

    def forget(builder: Builder, stage: int, replicas: range, microbatch: int) -> None:
        builder._known = {}
        enter(builder, stage, replicas, microbatch)

    monkeypatch.setattr(Builder, "enter", forget)
    assert dag_of(specs, 2, 2, "layers=2", "workload.batch=18", **axes) == found
