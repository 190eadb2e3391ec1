"""What --layout reads: axes, a layout as it is printed, and the sizes of parallelism that other programs have."""

from __future__ import annotations

import pytest

from helixctl.errors import HelixError
from helixctl.plan import Layout
from helixctl.solve import decide, parse_constraints, read_as, space
from helixctl.solve.constraints import Request
from tests.documents import PAPER, PAPER_MOE, SMALL, specs


@pytest.mark.parametrize(
    ("text", "constraints"),
    [
        ("tp=2", {"partitions": 2}),
        ("TP=8,PP=2", {"partitions": 8, "pipeline": 2}),
        ("TP=8 x PP=2", {"partitions": 8, "pipeline": 2}),
        ("TP=8xPP=2", {"partitions": 8, "pipeline": 2}),
        ("tp 4, dp 2", {"partitions": 4, "data": 2}),
        ("ep=8", {"experts": 8}),
        ("tensor_parallel_size=4,pipeline-parallel-size=2", {"partitions": 4, "pipeline": 2}),
        ("data_parallel_size=2,expert_parallel=2", {"data": 2, "experts": 2}),
        ("8x1", {"groups": 8, "slices": 1}),
        ("8 x 1", {"groups": 8, "slices": 1}),
        ("8 × 1", {"groups": 8, "slices": 1}),  # noqa: RUF001
        ("8 x 1, pipeline 2, microbatches 4, reduce",
         {"groups": 8, "slices": 1, "pipeline": 2, "microbatches": 4, "combine": "reduce"}),
        (str(Layout(groups=2, slices=1, data=4, expert_data=4, experts=8)),
         {"groups": 2, "slices": 1, "data": 4, "expert_data": 4, "experts": 8}),
        ("4 x 2, experts 4 x 2, reduced in the model's dtype",
         {"groups": 4, "slices": 2, "experts": 4, "partitions": 8, "reduction_dtype": "model"}),
        ("tp=8,groups=4", {"partitions": 8, "groups": 4}),
        ("pipeline=2", {"pipeline": 2}),
    ],
)  # fmt: skip
def test_reads(text: str, constraints: dict[str, int | str]) -> None:
    assert parse_constraints(text) == constraints
    assert (read_as(text) is None) == (text == "pipeline=2")


def test_every_layout_is_read_as_it_is_printed() -> None:
    """The whole space of the paper's models, and axes that are not searched."""
    shown = [*space(*specs(PAPER), {}), *space(*specs(PAPER_MOE), {"slicing": "query"})]
    shown += [Layout(groups=2, slices=2, reduction_dtype="model", gather_order="groups_first", interleave=3)]
    for layout in shown:
        constraints = {axis: value for axis, value in parse_constraints(str(layout)).items() if axis != "partitions"}
        assert Layout.model_validate(constraints) == layout
    assert len(shown) > 500


@pytest.mark.parametrize("text", ["", " ", ",", ", ,"])
def test_a_wish_for_nothing_is_refused(text: str) -> None:
    with pytest.raises(HelixError, match=r"HX105 --layout .* fixes no axis"):
        parse_constraints(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tp=0", "HX105 --layout tp=0: groups x slices must be"),
        ("tp=two", "HX105"),
        ("tp", "HX105"),
        ("tp=2,tp=4", "HX107 --layout names groups x slices twice"),
        ("pp=2,pipeline=4", "HX107 --layout names pipeline twice"),
        ("8 x 1, groups=4", "HX107 --layout names groups twice"),
        ("combine", "HX105"),
        ("8 x", "HX103"),
        ("group=8", "did you mean 'groups'"),
        ("cp=2", "HX103 --layout cp=2: a layout has no axis 'cp'"),
    ],
)
def test_refuses(text: str, said: str) -> None:
    with pytest.raises(HelixError) as caught:
        parse_constraints(text)
    assert said in str(caught.value)


# Alone, with an axis that is fixed too, and with one of its factors; each with other sizes in the sweep.
TP = ("tp=1", "tp=2", "tp=4", "tp=8", "tp=16", "tp=8,pp=2", "tp=4,dp=2", "tp=4,slices=2", "tp=4,combine=reduce")
ALWAYS = {("paper", text) for text in ("tp=1", "tp=2", "tp=4,dp=2", "tp=4,slices=2", "tp=4,combine=reduce")}


@pytest.mark.parametrize(
    ("documents", "text"),
    [
        pytest.param(documents, text, id=f"{name}-{text}", marks=[] if (name, text) in ALWAYS else [pytest.mark.sweep])
        for name, documents in (("paper", PAPER), ("small", SMALL))
        for text in TP
    ],
)
def test_tp_fixes_groups_x_slices_together_with_other_axes(documents: tuple[str, str], text: str) -> None:
    """The chosen layout has them, and is the best that each pair alone gives, unless the budget ended the search."""
    constraints = parse_constraints(text)
    decision = decide(*specs(documents), constraints)
    chosen = decision.plan.layout
    assert all(getattr(chosen, axis) == value for axis, value in constraints.items())
    asked = [x for x in space(*specs(documents), {}) if Request(constraints).admits(x)]
    assert decision.legal >= len({(x.groups, x.slices, x.data, x.pipeline) for x in asked}) > 0
    by_pair = {(x.groups, x.slices) for x in asked}
    others = {axis: value for axis, value in constraints.items() if axis not in {"groups", "slices", "partitions"}}
    each = [decide(*specs(documents), {**others, "groups": n, "slices": m}) for n, m in by_pair]
    best = max(d.rows[0].candidate.forecast.tokens_per_s for d in each if d.rows[0].candidate.forecast)
    forecast = decision.rows[0].candidate.forecast
    assert forecast is not None
    assert forecast.tokens_per_s >= best * ((1 - 1e-9) if decision.open_bound is None else 0.9)


def test_more_ways_of_experts_than_devices_of_a_replica_are_over_replicas() -> None:
    """As vLLM's flags mean it: ``--data-parallel-size 8 --enable-expert-parallel``."""
    problem = specs(PAPER_MOE)
    asked = list(space(*problem, parse_constraints("tp=2,dp=8,ep=8,pp=1")))
    assert {layout.expert_data for layout in asked} == {4, 8}
    assert {layout.expert_devices // layout.experts for layout in asked} == {1, 2}


def test_a_tp_that_the_devices_do_not_have() -> None:
    with pytest.raises(HelixError, match=r"HX202 groups x slices 3: does not make 16 devices"):
        decide(*specs(PAPER), parse_constraints("tp=3"))
