"""Tasks that are priced without being lowered cost what they cost where they are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from helixctl.cost.tasks import TaskCosts
from helixctl.dag import Dag, Task
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.plan.steps import new_tokens, step_of
from helixctl.solve import space
from helixctl.solve.axes import of_the_feed_forward
from helixctl.solve.bound import Bounds
from helixctl.solve.outlines import Outlines
from helixctl.solve.problem import Specs
from helixctl.solve.space import families
from helixctl.solve.work import LayoutCosts
from helixctl.spec import StepName
from tests.documents import BLOCKS, PAPER, PAPER_MOE, ROOT, SMALL_MOE, specs

MODELS = ROOT / "plans/models"
PROBLEMS = [
    (PAPER, ("hosts=4", "workload.batch=48", "workload.seq_len=5")),
    (PAPER_MOE, ("hosts=3", "workload.batch=40", "workload.seq_len=64", "nics_per_host=2")),
    (SMALL_MOE, ("workload.batch=12",)),
    ((str(MODELS / "Qwen2.5-7B"), PAPER[1]), ("workload.batch=16", "workload.seq_len=33", "workload.logits=all")),
    ((str(MODELS / "Qwen3-30B-A3B"), PAPER[1]), ("workload.batch=9", "workload.seq_len=12")),
    # Prefills whose tokens depend on the replicas, and caches in as many lanes as there are slices.
    ((str(MODELS / "Qwen2.5-7B"), PAPER[1]), ("workload.batch=16", "workload.seq_len=700", "workload.output_len=9",
                                              "workload.prefill_tokens=900")),
    ((str(MODELS / "Mixtral-8x7B-v0.1"), PAPER[1]), ("workload.batch=40", "workload.seq_len=90",
                                                     "workload.output_len=300")),
]  # fmt: skip
STEPS = [(n, step) for n, (_, sets) in enumerate(PROBLEMS) for step in (("prefill", "decode") if n > 4 else (None,))]


def sampled(specs_: Specs, count: int) -> list[Layout]:
    layouts = list(space(*specs_, {}))
    return random.Random(0).sample(layouts, min(count, len(layouts)))


def tasks_of_a_layer(dag: Dag) -> Iterator[Task]:
    """All but those that bring the input, and those that bring next tokens from stage to stage."""
    for task in dag.tasks:
        if task.kind != "send_receive" and not (
            task.moves and dag.tensor[dag.value[task.outputs[0]].tensor].role == "input"
        ):
            yield task


# How many layouts of the space: in each run, and in the sweep.
COUNTS = [6, pytest.param(40, marks=pytest.mark.sweep)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(("number", "name"), STEPS)
def test_prices_are_those_of_lowered_tasks(number: int, name: StepName | None, count: int) -> None:
    """One table of prices for all layouts, beside a dag of one layer for each, on the first and on the last rank."""
    problem = Specs(*specs(PROBLEMS[number][0], *PROBLEMS[number][1]))
    model, cluster, workload = problem
    outlines = Outlines(*problem, name)
    for layout in sampled(problem, count):
        start, stop = layout.batch(0, 0, workload)
        parts = layout.data * layout.microbatches
        # Of replicas that share experts the others are taken to have one sequence less where they may have.
        fewer = layout.expert_data > 1 and workload.batch % parts > 0
        sequences = (stop - start) * parts - (parts - 1 if fewer else 0)
        batch = replace(step_of(workload, layout, name), batch=sequences)
        for ends, its in ((False, outlines.body), (True, model.model_copy(update={"layers": 1}))):
            for last in (False,) if fewer else (False, True):
                rank = layout.team(0, layout.expert_data - 1)[-1] if last else layout.team(0, 0)[0]
                dag = lower(Plan.sketch(its, cluster, batch, layout), {rank}, range(1), range(1))
                costs = TaskCosts(dag)
                tasks = [t for t in tasks_of_a_layer(dag) if (t.level in {"embed", "head"}) == ends]
                tasks = [t for t in tasks if not (last and t.is_collective)]
                alone = layout.expert_devices - 1 if last else 0
                priced = outlines.priced(layout, stop - start, exchanged=not last, ends=ends, rank=alone)
                found = [(p.task.level, p.task.op, p.seconds) for p in priced if p.seconds or p.task.kernel == "next"]
                assert found == [(t.level, t.op, costs.seconds(t)) for t in tasks], (layout, ends, last)
                weights = {v: dag.value[v].nbytes for t in tasks for v in t.inputs if weighs(dag, v)}
                if not ends:  # tied weights are read by both
                    assert sum(p.weight_nbytes for p in priced) == sum(weights.values())


def test_layers_without_experts_do_not_depend_on_who_shares_experts() -> None:
    """Of layers of several kinds those without experts are priced once, and cost what they cost where they are."""
    model, cluster, workload = specs(BLOCKS, "workload.batch=8", "devices_per_host=4")
    dense = model.alike("dense")
    outlines = Outlines(dense, cluster, workload)
    layouts = list(space(model, cluster, workload, {}))
    shared = [x for x in layouts if x.expert_data > 1 and x.microbatches == 1]
    assert shared
    assert not dense.feed_forward.experts
    for layout in random.Random(0).sample(shared, min(len(shared), 12)):
        start, stop = layout.batch(0, 0, workload)
        batch = replace(step_of(workload, layout), batch=(stop - start) * layout.data)
        dag = lower(Plan.sketch(outlines.body, cluster, batch, layout), {0}, range(1), range(1))
        costs = TaskCosts(dag)
        priced = outlines.priced(layout, stop - start, exchanged=True)
        found = [(p.task.level, p.seconds) for p in priced if p.seconds or p.task.kernel == "next"]
        assert found == [(t.level, costs.seconds(t)) for t in tasks_of_a_layer(dag)], layout
        computed = [costs.seconds(t) for t in tasks_of_a_layer(dag) if not t.is_collective]
        assert outlines.computed(layout, stop - start).seconds == pytest.approx(sum(computed), rel=1e-12)


MIXTURES = [*PROBLEMS[1:3], (BLOCKS, ("workload.batch=16", "devices_per_host=8")), *(
    ((str(MODELS / "DeepSeek-V3"), PAPER[1]), ("workload.batch=64", *sets))
    for sets in (("workload.seq_len=8",), ("workload.seq_len=64", "workload.output_len=8"))
)]  # fmt: skip


@pytest.mark.parametrize(("paths", "sets"), MIXTURES)
def test_a_feed_forward_network_does_not_depend_on_attention(paths: tuple[str, str], sets: tuple[str, ...]) -> None:
    """What is worked out once for all layouts that cut it alike is what each of them has."""
    problem = Specs(*specs(paths, *sets))
    for step in (None,) if problem.workload.output_len is None else ("prefill", "decode"):
        outlines = [Outlines(problem.model.alike(kind), *problem[1:], step) for kind in problem.model.kinds]
        found: dict[object, set[object]] = {}
        for family in families(*problem, {}):
            one = family.first
            key = (new_tokens(problem.workload, one, step), of_the_feed_forward(one))
            found.setdefault(key, set()).add(tuple([its.feed_forward(one) for its in outlines]))
        assert max(map(len, found.values())) == 1
        assert len(set.union(*found.values())) > 1


@pytest.mark.parametrize("count", [16, pytest.param(600, marks=pytest.mark.sweep)])
@pytest.mark.parametrize(("number", "name"), STEPS)
def test_what_a_layer_takes_beside_its_computations(number: int, name: StepName | None, count: int) -> None:
    """None takes less than is worked out from sums alone, and it is exact where all waits for what is exchanged."""
    problem = Specs(*specs(PROBLEMS[number][0], *PROBLEMS[number][1]))
    costs, outlines = LayoutCosts(*problem, name), Outlines(*problem, name)
    hidden = exact = 0
    for layout in sampled(problem, count):
        start, stop = layout.batch(0, 0, problem.workload)
        (found,) = costs.communication(layout, stop - start)
        (layer,) = costs.with_communication(layout, stop - start).layers
        tasks = outlines.priced(layout, stop - start, exchanged=True)
        assert found.seconds == pytest.approx(sum(its.seconds for its in tasks if its.communicates), rel=1e-12)
        # ``alone_s`` is that of a walk through the tasks, in which each waits for what it reads.
        beside = layer.alone_s - layer.compute_s
        slack = 1e-9 * layer.alone_s
        assert 0 <= found.exposed_s <= found.seconds
        assert found.exposed_s <= beside + slack, layout
        hidden += beside < found.seconds - slack
        exact += found.seconds > 0 and abs(found.exposed_s - beside) <= slack
        if found.exposed_s == found.seconds:
            assert beside == pytest.approx(found.seconds, abs=slack)
    assert exact
    # With query heads that share keys these are on their way while the queries are projected.
    assert (hidden > 0) == (number in {3, 4})


OTHERS = [(paths, sets) for paths, sets in MIXTURES if (paths, sets) not in PROBLEMS] + [
    ((str(MODELS / "gpt-oss-120b"), PAPER[1]), ("workload.batch=16", "workload.seq_len=48", *sets))
    for sets in ((), ("workload.output_len=8",))
]


@pytest.mark.parametrize("count", [5, pytest.param(400, marks=pytest.mark.sweep)])
@pytest.mark.parametrize(("paths", "sets"), [*PROBLEMS, *OTHERS])
def test_what_a_task_makes_is_live(paths: tuple[str, str], sets: tuple[str, ...], count: int) -> None:
    """A layout that cannot hold it does not fit, whatever else is live."""
    problem = Specs(*specs(paths, *sets))
    for step in (None,) if problem.workload.output_len is None else ("prefill", "decode"):
        costs = LayoutCosts(*problem, step)
        for layout in sampled(problem, count):
            start, stop = layout.batch(0, 0, problem.workload)
            work = costs.with_communication(layout, stop - start)
            assert 0 < work.made_nbytes <= costs.live_nbytes(layout, stop - start) <= work.values_nbytes * 2, layout


def weighs(dag: Dag, value: str) -> bool:
    return dag.tensor[dag.value[value].tensor].role == "weight"


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(("number", "name"), [STEPS[n] for n in (0, 1, 3, *range(5, len(STEPS)))])
def test_what_layouts_share_is_what_each_has_alone(number: int, name: StepName | None, count: int) -> None:
    problem = Specs(*specs(PROBLEMS[number][0], *PROBLEMS[number][1]))
    together = Bounds(LayoutCosts(*problem, name))
    for layout in sampled(problem, count):
        alone = Bounds(LayoutCosts(*problem, name))
        assert together(layout) == alone(layout)
        assert together.with_turns(layout) == alone.with_turns(layout)
        assert together.quick(layout) == alone.quick(layout)


def test_which_axis_stays_inside_a_host_is_priced() -> None:
    """Where groups and slices are laid the other way round, a team has the same ranks, and other links."""
    problem = Specs(*specs(PAPER))
    costs = LayoutCosts(*problem)
    slices_inside = Layout(groups=4, slices=4)
    groups_inside = slices_inside.model_copy(update={"placement": "groups-slices-data-pipeline"})
    one, other = (costs.with_communication(x, 1024).layers[0].communication_s for x in (slices_inside, groups_inside))
    assert other == LayoutCosts(*problem).with_communication(groups_inside, 1024).layers[0].communication_s != one
