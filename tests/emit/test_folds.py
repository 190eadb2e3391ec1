"""Folds: what a page leaves out is a copy of what it draws, and what it draws is what the whole dag has."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

from helixctl.dag import Dag, Task
from helixctl.emit.folds import (
    Fold,
    Folds,
    beside,
    drawn_layers,
    drawn_ranks,
    folds_of,
    joined,
    layer_folds,
    restricted,
    sentences,
)
from helixctl.emit.lanes import arrange
from helixctl.emit.traffic import traffic_of
from helixctl.lower import lower
from helixctl.plan import Plan
from helixctl.plan.size import about
from helixctl.simulate import forecast, simulate
from tests.documents import BLOCKS, PAPER, PAPER_MOE, SMALL, SMALL_MOE, plan_of

TEN = ("layers=10", "workload.batch=8", "workload.seq_len=16")
PLANS = {
    "4 x 1": lambda: plan_of(SMALL, 4, 1, *TEN),
    "replicas": lambda: plan_of(SMALL, 2, 1, *TEN, data=4),
    "stages": lambda: plan_of(SMALL, 2, 1, *TEN, pipeline=2, microbatches=4),
    "replicas innermost": lambda: plan_of(SMALL, 2, 2, *TEN, data=2, placement="data-slices-groups-pipeline"),
    "turns": lambda: plan_of(SMALL, 2, 1, *TEN, microbatches=8, interleave=2, combine="reduce"),
    "experts": lambda: plan_of(PAPER_MOE, 4, 4, "layers=6", experts=8),
    "replicas share experts": lambda: plan_of(SMALL_MOE, 2, 1, *TEN, data=4, expert_data=2, experts=4),
    "sharded": lambda: plan_of(SMALL, 4, 1, *TEN, residual="sharded", combine="reduce"),
}


def part_of(plan: Plan) -> tuple[Dag, Folds]:
    """The drawn part of a plan, as the page of a large one has it."""
    folds = folds_of(plan, 0, about)
    layers = drawn_layers(plan, folds.layers)
    return joined(lower(plan, drawn_ranks(plan), layers, folds.microbatches)), folds


def nameless(task: Task) -> tuple[object, ...]:
    """A task without what tells its layer."""
    return re.sub(r"^l\d+\.", "", task.id), task.level, task.op, task.ranks, task.flops, task.nbytes


# Every layout is tried in the sweep, every other one in each run.
SOME = [name if i % 2 else pytest.param(name, marks=pytest.mark.sweep) for i, name in enumerate(PLANS)]


@pytest.mark.parametrize("name", SOME)
def test_hidden_layers_are_copies_of_the_drawn_ones(name: str) -> None:
    plan = PLANS[name]()
    by_layer: dict[int, Counter[object]] = {}
    for task in lower(plan).tasks:
        by_layer.setdefault(task.layer, Counter())[nameless(task)] += 1
    folds = layer_folds(plan)
    assert folds
    for fold in folds:
        for layer in fold.hidden:
            like = fold.like[(layer - fold.hidden[0]) % len(fold.like)]
            assert by_layer[layer] == by_layer[like]


@pytest.mark.parametrize("name", SOME)
def test_the_part_has_the_tasks_of_the_whole(name: str) -> None:
    plan = PLANS[name]()
    whole, (part, folds) = lower(plan), part_of(plan)
    assert part.tasks
    every = {task.id: task for task in whole.tasks}
    assert all(replace(task, inputs=every[task.id].inputs) == every[task.id] for task in part.tasks)
    again = joined(restricted(whole, folds))
    assert set(again.tasks) == set(part.tasks)
    assert [set(order) for order in again.order] == [set(order) for order in part.order]


@pytest.mark.parametrize("name", SOME)
def test_every_layer_behind_a_fold_reads_what_is_drawn_before_it(name: str) -> None:
    part, _ = part_of(PLANS[name]())
    given = [v for v in part.values if v.id not in part.producer and part.tensor[v.tensor].role == "activation"]
    assert given == []
    reached = {part.tasks[0].layer}
    for task in part.tasks:
        reached |= {task.layer for before in part.predecessors(task) if before.layer in reached}
    assert reached == {task.layer for task in part.tasks}


@pytest.mark.parametrize("name", SOME)
def test_traffic_of_the_part_is_that_of_the_whole(name: str) -> None:
    plan = PLANS[name]()
    part, folds = part_of(plan)
    assert traffic_of(part, folds) == traffic_of(lower(plan))
    assert (
        sum(t.inside_nbytes + t.between_nbytes for t in traffic_of(part, folds))
        == forecast(lower(plan)).received_nbytes
    )


def test_the_part_is_simulated() -> None:
    part, _ = part_of(PLANS["stages"]())
    timeline = simulate(part)
    assert set(timeline.begin_s) == {task.id for task in part.tasks}
    assert all(timeline.rank_end_s[rank] > 0 for rank in range(4))


def test_patterns_of_layers() -> None:
    def folds(count: int, *pattern: str) -> list[tuple[range, range]]:
        plan = plan_of(BLOCKS, 2, 1)
        plan = plan.model_copy(update={"model": plan.model.model_copy(update={"layers": count, "pattern": pattern})})
        return [(fold.hidden, fold.like) for fold in layer_folds(plan)]

    assert folds(5, "dense", "main", "wide", "main", "wide") == []
    assert folds(12, *["main", "wide"] * 6) == [(range(3, 11), range(1, 3))]
    assert folds(12, "dense", *["main"] * 11) == [(range(2, 11), range(1, 2))]
    assert folds(13, *["main", "main", "wide"] * 4, "dense") == [(range(4, 10), range(1, 4))]
    assert folds(4, *["main"] * 4) == []  # a bar takes the room of a layer


def test_words() -> None:
    assert Fold(range(2, 79), range(1, 2)).label == "layers 2-78 are like layer 1: x 77 more"
    assert Fold(range(3, 11), range(1, 3)).label == "layers 3-10 repeat layers 1-2: x 4 more"
    plan = PLANS["stages"]()
    assert sentences(plan, folds_of(plan, 0, about)) == ["7 of 10 layers", "microbatch 0 of 4"]
    assert sentences(plan, folds_of(plan, 10**6, about)) == ["7 of 10 layers", "microbatches 0-1 of 4"]
    turns = PLANS["turns"]()
    assert [len(folds_of(turns, most, about).microbatches) for most in (0, 200, 10**6)] == [1, 2, 4]
    assert "replica 0 of 4" in sentences(PLANS["replicas"](), folds_of(PLANS["replicas"](), 0, about))


def test_words_beside_the_columns() -> None:
    def words(name: str) -> str:
        return beside(folds_of(PLANS[name](), 0, about))

    assert words("replicas") == "replicas 1-3 are like replica 0"
    assert words("replicas innermost") == "replica 1 is like replica 0"
    assert words("replicas share experts") == "replicas 2-3 are like replicas 0-1"
    assert words("4 x 1") == ""


def test_the_drawing_has_a_column_for_every_drawn_rank_and_a_bar_for_every_fold() -> None:
    part, folds = part_of(PLANS["replicas innermost"]())
    lanes = arrange(part, folds=folds.layers, beside="replica 1 is like replica 0")
    assert [column.rank for column in lanes.columns] == [0, 2, 4, 6]
    (bar,) = lanes.bars
    assert bar.hidden == ()
    tops = {box.task.layer: box.y for box in reversed(lanes.boxes)}
    bottoms = {box.task.layer: box.bottom for box in lanes.boxes}
    assert bottoms[1] < bar.y < bar.y + bar.height < tops[9]
    across = next(box for box in lanes.boxes if len(box.ranks) == 4)
    assert across.is_bar  # ranks 0, 2, 4, 6 are neighbours where no other is drawn


def test_rows_that_a_bar_hides_are_those_of_its_layers() -> None:
    plan = PLANS["4 x 1"]()
    lanes = arrange(lower(plan), folds=layer_folds(plan))
    (bar,) = lanes.bars
    hidden = {box.task.layer for box in lanes.boxes if any(top <= box.y < bottom for top, bottom in bar.hidden)}
    assert hidden == set(bar.fold.hidden)


def test_experts_of_a_device_are_in_its_head() -> None:
    dag = lower(plan_of(PAPER_MOE, 4, 4, "layers=1", experts=4))
    assert [column.words[-1] for column in arrange(dag).columns[2:6]] == [
        "experts 0:2",
        "experts 0:2",
        "experts 2:4",
        "experts 2:4",
    ]
    alike = lower(plan_of(PAPER_MOE, 4, 4, "layers=1"))  # a share of every expert on every device
    assert not any("experts" in word for column in arrange(alike).columns for word in column.words)


def test_what_stands_for_others_is_no_document() -> None:
    plan = plan_of(PAPER, 4, 4, "layers=6")
    whole = lower(plan)
    folded = restricted(whole, folds_of(plan, 0, about))
    assert whole.plan_digest
    assert not folded.plan_digest
    assert replace(folded, plan_digest=whole.plan_digest).digest != whole.digest
