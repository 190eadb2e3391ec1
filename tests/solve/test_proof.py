"""What is proved, counted and weighed of a part of a plan is what is proved, counted and weighed of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import pytest

from helixctl.cost.memory import peak_nbytes
from helixctl.emit import emit
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.solve import proof, space
from helixctl.solve.deep import Size, counted
from helixctl.solve.proof import memory_nbytes, part_of
from helixctl.verify import verify
from tests.documents import PAPER, PAPER_MOE, ROOT, specs

QWEN = (str(ROOT / "plans/models/Qwen2.5-7B/config.json"), PAPER[1])
PROBLEMS = [
    (PAPER, ("layers=11", "workload.batch=37", "workload.seq_len=5")),
    (PAPER_MOE, ("layers=7", "workload.batch=64", "device.memory=60 MB")),
    (QWEN, ("layers=9", "hosts=1", "workload.batch=29", "workload.seq_len=64")),
]


def some(number: int, count: int) -> Iterator[Plan]:
    """Plans from all over the space, of layers and sequences that do not divide."""
    paths, sets = PROBLEMS[number]
    model, cluster, workload = specs(paths, *sets)
    layouts = list(space(model, cluster, workload, {}))
    for layout in layouts[5 :: len(layouts) // count]:
        yield Plan.of(model, cluster, workload, layout)


@pytest.mark.parametrize(
    ("number", "count"), [(2, 1), *(pytest.param(n, 7, marks=pytest.mark.sweep) for n in range(len(PROBLEMS)))]
)
def test_a_part_gives_the_verdict_of_the_whole(number: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("helixctl.solve.proof"), "MOST", 0)
    for plan in some(number, count):
        dag, found = lower(plan), proof(plan)
        assert {d.code for d in verify(dag)} == {d.code for d in found.findings}, plan.layout
        assert max(peak_nbytes(dag)) == memory_nbytes(plan), plan.layout
        groups = {t.ranks for t in dag.tasks if t.is_collective}
        assert Size(len(dag.tasks), len(dag.order[0]), len(groups)) == counted(plan), plan.layout


def test_memory_of_the_whole_is_proved_on_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part alone would fit: it has two of many layers, and holds few microbatches."""
    monkeypatch.setattr(import_module("helixctl.solve.proof"), "MOST", 0)
    model, cluster, workload = specs(PAPER, "layers=40", "workload.batch=1024", "workload.seq_len=64")
    layout = Layout(groups=4, slices=1, data=2, pipeline=2, microbatches=16)
    need = memory_nbytes(Plan.of(model, cluster, workload, layout))
    for memory, codes in ((need, []), (need - 1, ["HX410"])):
        device = cluster.device.model_copy(update={"memory": memory, "reserve": 0})
        plan = Plan.of(model, cluster.model_copy(update={"device": device}), workload, layout)
        assert max(peak_nbytes(lower(part_of(plan)))) < need / 4
        assert [d.code for d in proof(plan).findings] == codes


def test_a_part_has_every_size_that_the_whole_has() -> None:
    """Microbatches of 4 and 5 sequences are in the whole, and in the part."""
    model, cluster, workload = specs(PAPER, "layers=9", "workload.batch=37")
    plan = Plan.of(model, cluster, workload, Layout(groups=2, slices=1, data=4, pipeline=2, microbatches=2))

    def sizes(of: Plan) -> set[int]:
        layout = of.layout
        cuts = [layout.batch(r, b, of.workload) for r in range(layout.data) for b in range(layout.microbatches)]
        return {stop - start for start, stop in cuts}

    part = part_of(plan)
    assert (part.layout.data, part.model.layers) == (2, 5)
    assert sizes(part) == sizes(plan) == {4, 5}
    assert proof(plan).part == ""
    assert part_of(part) is part


def test_a_layer_is_drawn_as_in_the_whole_drawing() -> None:
    model, cluster, workload = specs(PAPER, "layers=5")
    for layout in (
        Layout(groups=4, slices=2, pipeline=2, microbatches=2, interleave=2),
        Layout(groups=2, slices=2, data=2, pipeline=2),
        Layout(groups=16, slices=1),
    ):
        plan = Plan.of(model, cluster, workload, layout)
        dag = lower(plan)
        for layer in range(model.layers):
            part = lower(plan, layers=range(layer, layer + 1))
            assert {t.layer for t in part.tasks} == {layer}
            assert emit(part, "dot", layer) == emit(dag, "dot", layer)
