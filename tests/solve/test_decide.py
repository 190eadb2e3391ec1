"""The decision: what is picked, and what is said of the others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from itertools import product
from pkgutil import iter_modules
from typing import Any

import pytest

import helixctl.solve
from helixctl.errors import HelixError
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.solve import Decision, decide, pairs, parse_constraints, proof
from helixctl.solve.candidate import simulated
from helixctl.solve.proof import memory_nbytes
from helixctl.solve.refusals import none_fits
from helixctl.solve.search import SearchResult
from helixctl.solve.work import LayoutCosts
from helixctl.spec import WorkloadSpec
from tests.documents import PAPER, PAPER_MOE, ROOT, SMALL, specs


def paper_space(paths: tuple[str, str], *sets: str, **fixed: int | str) -> Decision:
    """The decision among n x m over all devices, every other axis at its default."""
    return decide(*specs(paths, *sets), fixed, plain=True)


def verdicts(paths: tuple[str, str], *sets: str, **fixed: int | str) -> dict[str, str]:
    return {str(row.candidate.layout): row.verdict for row in paper_space(paths, *sets, **fixed).rows}


def test_all_factor_pairs() -> None:
    assert list(dict.fromkeys((x.groups, x.slices) for x in pairs(12, {}, WorkloadSpec()))) == [
        (12, 1),
        (6, 2),
        (4, 3),
        (3, 4),
        (2, 6),
        (1, 12),
    ]


def test_the_fastest_is_picked_and_every_other_has_a_reason() -> None:
    decision = paper_space(PAPER)
    legal = [row for row in decision.rows if row.candidate.forecast]
    best = min(legal, key=lambda row: row.candidate.forecast.step_s)
    assert [row for row in decision.rows if row.chosen] == [best]
    assert decision.plan.layout == best.candidate.layout
    assert all(row.verdict for row in decision.rows)
    assert len(decision.rows) == 5


def test_the_paper_s_layout_can_be_asked_for() -> None:
    decision = paper_space(PAPER, groups=4, slices=4)
    assert str(decision.plan.layout) == "4 x 4"
    assert verdicts(PAPER, groups=4, slices=4) == {"4 x 4": "asked for (groups 4, slices 4)"}
    assert "no other layout was simulated" in decision.searched
    among = verdicts(PAPER)
    assert among["16 x 1"] == "chosen: the fastest searched that fits"
    assert "slower" in among["4 x 4"]
    assert "slower" in among["2 x 8, slicing batch"]


def test_what_was_not_asked_for_is_shown_beside_what_leaves_a_choice() -> None:
    said = verdicts(PAPER, "attention.softmax_slices=1", "workload.seq_len=4", groups=4, slices=4)
    assert said["4 x 4, slicing batch"] == "asked for (groups 4, slices 4)"
    assert "faster, but not what was asked for" in said["16 x 1"]


def test_a_layout_that_leaves_no_choice_costs_one_lowering_and_one_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given as n and m of the plain space, or axis by axis: no bound and no row beside it is worked out."""
    calls: Counter[str] = Counter()

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **more: Any) -> Any:
            calls[name] += 1
            return call(*args, **more)

        return counting

    modules = [import_module(f"helixctl.solve.{module.name}") for module in iter_modules(helixctl.solve.__path__)]
    for module, name in product(modules, ("lower", "illegalities")):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    plain = paper_space(PAPER, groups=4, slices=4)
    assert calls == {"lower": 1, "illegalities": 1}
    calls.clear()
    layout = plain.plan.layout  # a document leaves the residual stream out where it is replicated
    axes = decide(*specs(PAPER), {**layout.model_dump(), "residual": layout.residual})
    assert calls == {"lower": 1, "illegalities": 1}
    assert axes.plan == plain.plan
    calls.clear()
    paper_space(PAPER)
    assert min(calls["lower"], calls["illegalities"]) > 1


def test_plain_is_what_is_fixed_with_every_other_axis_at_its_default() -> None:
    """``groups=4`` alone searches the other axes; ``plain`` does not, and takes replicas where they are given."""
    free, plain = (decide(*specs(PAPER), {"groups": 4}, plain=given) for given in (False, True))
    assert free.legal > 10
    assert str(plain.plan.layout) == "4 x 4"
    assert free.priced[0].forecast.step_s < plain.priced[0].forecast.step_s
    assert str(decide(*specs(PAPER), {"groups": 4, "data": 2}, plain=True).plan.layout) == "4 x 2, data 2"
    assert {str(c.layout) for c in decide(*specs(PAPER), {"data": 4}, plain=True).priced} == {
        "4 x 1, data 4", "2 x 2, data 4", "1 x 4, data 4",
    }  # fmt: skip


def test_with_16_softmax_slices_every_pair_is_legal() -> None:
    assert all(row.candidate.forecast for row in paper_space(SMALL, "attention.softmax_slices=16").rows)


def test_28_heads_on_8_devices() -> None:
    """The pain: 28 heads on 8 devices. Every pair is legal: unequal groups, or whole heads in slices."""
    for softmax_slices, slicing in ((4, ""), (1, ", slicing batch")):
        sets = ("attention.heads=28", "devices_per_host=8", f"attention.softmax_slices={softmax_slices}")
        legal = {str(row.candidate.layout) for row in paper_space(SMALL, *sets).rows if row.candidate.forecast}
        assert legal == {"8 x 1", "4 x 2" + slicing, "2 x 4" + slicing, "1 x 8, slicing batch"}
    with pytest.raises(HelixError) as caught:
        paper_space(SMALL, *sets, groups=4, slicing="head_dim")
    assert {d.code for d in caught.value.diagnostics} == {"HX202"}
    assert "2 slices would cut a softmax" in str(caught.value)


@pytest.mark.parametrize(
    ("fixed", "text"),
    [
        ({"groups": 3}, "groups 3: does not make 16 devices"),
        ({"groups": 2, "slicing": "head_dim"}, "8 slices would cut a softmax of 8 dims"),
        ({"groups": 4, "slices": 2}, "groups 4, slices 2: does not make 16 devices"),
    ],
)
def test_an_illegal_wish(fixed: dict[str, int | str], text: str) -> None:
    with pytest.raises(HelixError) as caught:
        paper_space(SMALL, **fixed)
    assert [d.code for d in caught.value.diagnostics] == ["HX202"]
    assert text in str(caught.value)
    assert "16 x 1" in str(caught.value.diagnostics[0].hint)


def test_nothing_fits() -> None:
    with pytest.raises(HelixError) as caught:
        paper_space(PAPER, "device.memory=450 MB", "device.reserve=0 %")
    assert {d.code for d in caught.value.diagnostics} == {"HX203"}
    assert "needs at least 474 MB a device" in str(caught.value)


def test_what_is_fast_but_does_not_fit_gives_way_to_what_fits() -> None:
    decision = decide(*specs(PAPER, "device.memory=480 MB", "device.reserve=0 %"))
    fits = next(row.candidate.forecast for row in decision.rows if row.chosen)
    assert fits.memory_nbytes <= 480e6
    with pytest.raises(HelixError) as caught:
        decide(*specs(PAPER, "device.memory=410 MB", "device.reserve=0 %"), budget=1_000)
    assert {d.code for d in caught.value.diagnostics} == {"HX203"}
    smallest = "layout 8 x 1, pipeline 2, microbatches [0-9]+, interleave 2, residual sharded"
    assert re.search(smallest + ".*: needs 4[0-9][0-9] MB a device", str(caught.value))
    assert "the search ended at its budget" in str(caught.value)


@pytest.mark.parametrize("specs_", [PAPER, PAPER_MOE])
def test_weights_that_fit_nowhere(specs_: tuple[str, str]) -> None:
    """Of both sides of the weights' own size: just below, nothing is searched."""
    model, cluster, workload = specs(specs_)
    nbytes = LayoutCosts(model, cluster, workload).weights_nbytes()
    dag = lower(Plan.sketch(model, cluster, workload, Layout(groups=1, slices=1)))
    role = {tensor.name: tensor.role for tensor in dag.tensors}
    assert nbytes == sum(v.nbytes for v in dag.values if role[v.tensor] == "weight")
    for memory, said in ((nbytes / 16 - 1, "however they are cut"), (nbytes / 16, "needs at least")):
        device = cluster.device.model_copy(update={"memory": memory, "reserve": 0.0})
        with pytest.raises(HelixError, match=said):
            decide(model, cluster.model_copy(update={"device": device}), workload)


def test_where_only_many_small_microbatches_fit() -> None:
    """2 million tokens a step on 4 x 4: the input and the output take 69 of 76 GB."""
    sets = ("workload.batch=64", "workload.seq_len=32768", "device.memory=76 GB", "device.reserve=0 %")
    decision = decide(*specs(PAPER, *sets), parse_constraints("groups=4,slices=4,residual=replicated"))
    assert decision.plan.layout.microbatches > 16
    assert decision.objective == "throughput"
    fastest = next(row.candidate.forecast for row in decision.rows if row.chosen)
    slow = decide(*specs(PAPER, *sets), parse_constraints("groups=4,slices=4"), "memory")
    assert fastest.step_s < next(row.candidate.forecast.step_s for row in slow.rows if row.chosen)


def test_what_a_gap_in_an_arena_makes_too_large_is_not_chosen() -> None:
    """Forecast from few microbatches the fastest layout has 2.33 GB; all 16 of them, two in turn, need 2.42 GB."""
    sets = ("layers=3", "workload.batch=32", "workload.seq_len=4096", "device.reserve=0 %")
    llama = (str(ROOT / "plans/models/Llama-3.1-8B"), "rtx4090:1x2")
    wanted = "groups=2,slices=1,microbatches=16,interleave=2,data=1,pipeline=1,placement=slices-groups-data-pipeline"
    chosen = {}
    for memory in ("2.4 GB", "2.42 GB"):
        model, cluster, workload = specs(llama, *sets, f"device.memory={memory}")
        plan = decide(model, cluster, workload, parse_constraints(wanted)).plan
        estimated = simulated(model, cluster, workload, plan.layout).forecast
        assert estimated is not None
        assert estimated.memory_nbytes < memory_nbytes(plan) <= cluster.only.device.available
        assert proof(plan).findings == ()
        chosen[memory] = estimated.step_s
    assert chosen["2.42 GB"] < chosen["2.4 GB"]


def test_a_search_that_ends_early_does_not_say_that_nothing_fits() -> None:
    model, cluster, workload = specs(PAPER)
    tried = simulated(model, cluster, workload, Layout(groups=16, slices=1))
    for bound, way_out in (((1.0,), "fix axes with --layout"), ((float("inf"), 1.0), "use more devices")):
        assert way_out in str(none_fits(SearchResult(None, (tried,), 5, bound), (model, cluster, workload))[0].hint)


@pytest.mark.parametrize(
    ("constraints", "text"),
    [
        ("groups=8,slices=1,microbatches=2048", "2 replicas x 2048 microbatches for a batch of 1024"),
        ("groups=8,experts=8", "8 ways of experts, and the model has none"),
        ("groups=5", "groups 5: does not make 16 devices"),
    ],
)
def test_an_illegal_wish_of_any_axis_has_its_cause(constraints: str, text: str) -> None:
    with pytest.raises(HelixError) as caught:
        decide(*specs(PAPER), parse_constraints(constraints))
    assert {d.code for d in caught.value.diagnostics} == {"HX202"}
    assert text in str(caught.value)


def test_no_mesh_is_both_simulated_and_refused() -> None:
    """With one microbatch, the default, turns of two are not legal; with two of them they are."""
    rows = decide(*specs(SMALL, "devices_per_host=4"), parse_constraints("interleave=2,slicing=head_dim")).rows
    simulated, refused = ({r.candidate.layout.mesh for r in rows if bool(r.candidate.reasons) == no} for no in (0, 1))
    assert (4, 1, 1, 1) in simulated
    assert not simulated & refused


def test_turns_of_three() -> None:
    layout = decide(*specs(PAPER, "workload.batch=768"), parse_constraints("interleave=3,groups=8")).plan.layout
    assert layout.microbatches % 3 == 0


def test_of_equals_the_one_with_fewer_slices_is_picked() -> None:
    sets = ("attention.heads=28", "devices_per_host=8")
    said = verdicts(SMALL, *sets)
    assert said["4 x 2"] == "chosen: the fastest searched that fits"
    assert said["2 x 4"] == "as good, with more slices"


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        (
            "groups=8,pipeline=2,combine=reduce,microbatches=4",
            "8 x 1, pipeline 2, microbatches 4, interleave 2, reduce",
        ),
        ("data=16", "1 x 1, data 16"),
        (
            "gather_order=groups_first, slices=4, groups=4, combine=concat, microbatches=2, interleave=2",
            "4 x 4, microbatches 2, interleave 2, groups_first",
        ),
    ],
)
def test_any_axis_can_be_fixed(text: str, layout: str) -> None:
    assert str(decide(*specs(PAPER), parse_constraints(text)).plan.layout) == layout


def test_wrong_axes_are_all_named() -> None:
    with pytest.raises(HelixError) as caught:
        parse_constraints("group=8,combine=sum,pipeline=0")
    assert [d.code for d in caught.value.diagnostics] == ["HX103", "HX105", "HX105"]
    assert "did you mean 'groups'?" in str(caught.value)


def test_axes_that_do_not_make_the_devices() -> None:
    with pytest.raises(HelixError) as caught:
        decide(*specs(PAPER), parse_constraints("data=3"))
    assert [d.code for d in caught.value.diagnostics] == ["HX202"]
