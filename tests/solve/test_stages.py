"""Stages of chosen sizes, and those that the search deals where layers differ."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helixctl.errors import HelixError
from helixctl.lower import lower
from helixctl.plan import Layout, Plan, illegalities
from helixctl.simulate import forecast
from helixctl.solve import decide, parse_constraints
from helixctl.solve.candidate import simulated
from helixctl.solve.proof import part_of
from helixctl.solve.stages import dealt
from helixctl.verify import verify
from tests.documents import BLOCKS, SMALL, specs


def slowest(sizes: list[int], seconds: list[float], embed: float, head: float) -> float:
    starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    stages = [sum(seconds[a:b]) for a, b in pairwise(starts)]
    stages[0] += embed
    stages[-1] += head
    return max(stages)


def partitions(layers: int, stages: int) -> list[list[int]]:
    if stages == 1:
        return [[layers]]
    return [[n, *rest] for n in range(1, layers - stages + 2) for rest in partitions(layers - n, stages - 1)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 9), min_size=3, max_size=8), st.integers(2, 3), st.integers(0, 9), st.integers(0, 9))
def test_no_other_stages_are_quicker(seconds: list[int], stages: int, embed: int, head: int) -> None:
    layout = Layout(groups=1, slices=1, pipeline=stages)
    found = dealt(layout, seconds, embed, head)
    sizes = [len(found.layers_of(stage, len(seconds))) for stage in range(stages)]
    assert sum(sizes) == len(seconds)
    every = [slowest(one, [*map(float, seconds)], embed, head) for one in partitions(len(seconds), stages)]
    assert slowest(sizes, [*map(float, seconds)], embed, head) == min(every)


def test_stages_are_lowered_proved_and_priced_as_they_are_given() -> None:
    model, cluster, workload = specs(SMALL, "layers=7", "devices_per_host=4", "hosts=1", "device.kind=cuda")
    cluster = cluster.model_copy(update={"cores_per_host": None})
    layout = Layout(groups=2, slices=1, pipeline=2, microbatches=2, stages="2-5")
    dag = lower(Plan.sketch(model, cluster, workload, layout))
    assert {t.layer for t in dag.tasks if 0 in t.ranks and not t.moves} == {0, 1}
    dag = lower(Plan.of(model, cluster, workload, layout))
    assert verify(dag) == []
    found = simulated(model, cluster, workload, layout).forecast
    assert found is not None
    assert found.step_s == pytest.approx(forecast(dag).step_s)
    assert found.memory_nbytes == forecast(dag).memory_nbytes
    part = part_of(Plan.of(model, cluster, workload, layout))
    assert (part.model.layers, part.layout.stages) == (5, None)


@pytest.mark.parametrize(
    ("stages", "said"),
    [("2-2", "stages 2-2 have 4 layers; the model has 5"), ("5", "the sizes of 1 stages, 5, for 2 stages")],
)
def test_stages_that_are_not_the_models(stages: str, said: str) -> None:
    model, _, workload = specs(BLOCKS)
    layout = Layout(groups=1, slices=1, pipeline=2, stages=stages)
    assert illegalities(layout, model, workload, 2) == [said]


def test_the_search_deals_layers_that_differ() -> None:
    """The first layer is by far the widest: it is a stage of its own."""
    sets = ("hosts=1", "devices_per_host=2", "device.kind=cuda", "layers=6")
    model, cluster, workload = specs(BLOCKS, *sets)
    cluster = cluster.model_copy(update={"cores_per_host": None})
    wide = model.blocks[0].feed_forward.model_copy(update={"intermediate_size": 40_000})
    blocks = (model.blocks[0].model_copy(update={"feed_forward": wide}), model.blocks[1])
    model = model.model_copy(update={"blocks": blocks, "pattern": ("dense", "wide", "wide", "wide", "wide", "main")})
    given = parse_constraints("pipeline=2,microbatches=8,interleave=1")
    decision = decide(model, cluster, workload, given)
    assert decision.plan.layout.stages == "1-5"
    even = decide(model, cluster, workload, given | {"stages": "3-3"})
    assert decision.forecast.step_s < even.forecast.step_s
    assert verify(lower(decision.plan)) == []


def test_the_search_keeps_stages_that_are_given() -> None:
    """Also on devices that are all at one host, where the way between stages is priced first."""
    model, cluster, workload = specs(SMALL, "layers=7", "devices_per_host=4", "hosts=1", "device.kind=cuda")
    cluster = cluster.model_copy(update={"cores_per_host": None})
    decision = decide(model, cluster, workload, parse_constraints("pipeline=2,stages=2-5,microbatches=2"))
    assert decision.plan.layout.stages == "2-5"
    assert verify(lower(decision.plan)) == []


def test_stages_by_hand() -> None:
    assert parse_constraints("pipeline=3,stages=10-11-11") == {"pipeline": 3, "stages": "10-11-11"}
    with pytest.raises(HelixError, match="stages"):
        parse_constraints("stages=10-")
