"""No sentence that ``plan`` prints is false: each has a case here in which it would be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from helixctl.errors import HelixError
from helixctl.plan import Layout
from helixctl.simulate import Forecast
from helixctl.solve import OBJECTIVES, Decision, Objective, decide, parse_constraints
from helixctl.solve.candidate import Candidate
from helixctl.solve.objective import OF_A_GENERATION, Key, key
from helixctl.solve.problem import LayoutProblem, Specs
from helixctl.solve.reasons import Evidence, reasons, searched
from helixctl.solve.search import SearchResult, near, search
from helixctl.solve.space import tried
from helixctl.solve.verdict import row
from tests.documents import PAPER, ROOT, SMALL, specs

MODEL, CLUSTER, WORKLOAD = specs(PAPER)


def candidate(step: float = 1.0, latency: float = 1.0, memory: int = 10**9, **axes: Any) -> Candidate:
    """A layout, 16 x 1 unless told otherwise, with a forecast: all its time is spent in attention."""
    given = axes.pop("levels", None)
    levels: Any = given if given is not None else {("attend", "compute"): step}
    forecast = Forecast(step, 1024, 1, latency, 0.0, 0.0, 1.0, levels, (), 0, 0, memory, memory // 2)
    return Candidate(Layout.model_validate({"groups": 16, "slices": 1, **axes}), forecast)


def said(
    mine: Candidate, best: Candidate, objective: Objective = "throughput", wanted: str = "", *, proved: bool = True
) -> str:
    return row(mine, best, wanted, objective, CLUSTER, proved=proved).verdict


def looked(simulated: Sequence[Candidate], others: Sequence[tuple[float, Layout]] = (), **more: Any) -> Evidence:
    bounds = [((c.forecast.step_s,), c.layout) for c in simulated if c.forecast] + [((b,), x) for b, x in others]
    given = {"simulated": simulated, "legal": [x for _, x in bounds], "bounds": bounds, "fixed": False} | more
    return Evidence(**given)


def reason(best: Candidate, known: Evidence, objective: Objective = "throughput") -> str:
    return reasons(best, known, objective, MODEL, CLUSTER)[0]


class TestVerdicts:
    def test_the_fastest_is_only_said_where_it_is_known(self) -> None:
        """False where the budget ended the search."""
        best = candidate()
        for objective, word in (("throughput", "fastest"), ("latency", "soonest done"), ("memory", "smallest")):
            assert said(best, best, objective) == f"chosen: the {word} searched that fits"
            assert said(best, best, objective, proved=False) == f"chosen: the {word} found that fits"
        assert said(best, best, wanted="groups 16") == "asked for (groups 16)"

    def test_what_does_not_fit_is_no_choice(self) -> None:
        """It is faster, and as good: neither is said of it."""
        for step in (0.5, 1.0, 2.0):
            for objective in OBJECTIVES:
                big = row(
                    candidate(step, step, 10**12, slices=1, groups=8), candidate(), "", objective, CLUSTER, proved=True
                )
                assert big.verdict.startswith("does not fit: needs 1 TB a device, NVIDIA H100 80GB HBM3 has 80 GB")
                assert not big.fits

    @pytest.mark.parametrize(
        ("ratio", "text"),
        [
            (2.0, "2 x slower"), (1.05, "5.0% slower"), (1.0996, "10.0% slower"), (1.004, "0.4% slower"),
            (1.00001, "less than 0.1% slower"), (0.99999, "less than 0.1% faster"), (1 / 1.004, "0.4% faster"),
            (0.5, "2 x faster"),
        ],
    )  # fmt: skip
    def test_no_ratio_is_rounded_to_one(self, ratio: float, text: str) -> None:
        """False: "1 x faster", "0.0% slower"."""
        mine = candidate(ratio, levels={("attend", "compute"): 0.0})
        assert said(mine, candidate(), wanted="slices 1").split(",")[0].split(":")[0] == text

    @pytest.mark.parametrize(
        ("memory", "step", "text"),
        [
            (2 * 10**9, 1.0, "2 x the memory"), (10**9 + 10**3, 1.0, "less than 0.1% more memory"),
            (1_004_000_000, 0.1, "0.4% more memory"), (10**9, 2.0, "the same memory, 2 x slower"),
            (10**9, 1.0, "as good"),
        ],
    )  # fmt: skip
    def test_one_times_the_memory(self, memory: int, step: float, text: str) -> None:
        """False: "1 x the memory", of what takes more, and of what takes as much and is slower."""
        assert said(candidate(step, step, memory), candidate(), "memory") == text

    def test_a_better_row_is_only_unasked_for_where_something_was_asked(self) -> None:
        """False: "but not what was asked for ()"."""
        assert said(candidate(0.5), candidate()) == "2 x faster"
        assert (
            said(candidate(0.5), candidate(), wanted="groups 4") == "2 x faster, but not what was asked for (groups 4)"
        )
        assert said(candidate(1.0, 1.0, 10**8), candidate(), "memory", "groups 4").endswith("asked for (groups 4)")

    def test_latency_is_not_speed(self) -> None:
        """False: "faster" of what is done sooner and has the longer step; "0.0% slower" of an equal latency."""
        assert said(candidate(2.0, 0.5), candidate(), "latency", "slices 1").startswith("2 x sooner done, ")
        assert said(candidate(0.5, 2.0), candidate(), "latency") == "2 x later done"
        assert said(candidate(2.0, 1.0), candidate(), "latency").startswith(
            "as soon done, 2 x slower: compute of attend"
        )

    def test_as_good_with_more_slices(self) -> None:
        best = candidate(groups=8, slices=2)
        assert said(candidate(groups=4, slices=4), best) == "as good, with more slices"
        assert said(candidate(groups=16, slices=1), best) == "as good"
        assert said(candidate(2.0, groups=4, slices=4), best).startswith("2 x slower")

    @pytest.mark.parametrize(
        ("levels", "text"),
        [
            ({("attend", "compute"): 1.0, ("concat", "communication"): 1.0},
             "communication of concat 1 s exposed against 0 ns"),
            ({("attend", "compute"): 2.0}, "compute of attend 2 s against 1 s"),
            ({("attend", "compute"): 1.0, ("concat", "communication"): -0.5}, None),
            ({("attend", "compute"): 0.5}, None),
            ({("attend", "compute"): 1.0 + 1e-9}, None),
        ],
    )  # fmt: skip
    def test_a_cause_is_a_level_that_takes_longer(self, levels: dict[Any, float], text: str | None) -> None:
        """False: the level "of which most is lost" where nothing is lost in any, or too little to be seen."""
        verdict = said(candidate(2.0, levels=levels), candidate(1.0))
        assert verdict == ("2 x slower" if text is None else f"2 x slower: {text}")

    def test_what_is_not_legal_has_its_reasons(self) -> None:
        bad = Candidate(Layout(groups=3, slices=1), reasons=("one", "two, three"))
        assert said(bad, candidate()) == "one; two, three"


class TestReasons:
    SLICED = Layout(groups=8, slices=2)

    def test_no_slicing_is_legal_only_where_none_is(self) -> None:
        """False with 32 hosts: ``--layout slices=2`` plans."""
        best = candidate()
        assert "no slicing is legal here" in reason(best, looked([best]))
        assert "no slicing is legal with the other axes as they are fixed" in reason(best, looked([best], fixed=True))
        unseen = reason(best, looked([best], [(1.5, self.SLICED)]))
        assert unseen.endswith("no slicing was simulated; by their bounds none takes less than 1.5 s")
        none_fits = reason(best, looked([best], [(float("inf"), self.SLICED)]))
        assert none_fits.endswith("no slicing fits in memory")
        large = looked([best], legal=[best.layout, self.SLICED])
        assert reason(best, large).endswith("every slicing has more than 16,000,000 tasks")

    def test_what_does_not_fit_is_in_no_comparison(self) -> None:
        """False: "the best layout with m = 1 takes 0.766 x as long" of one that needs 815 GB a device."""
        best, big = candidate(groups=4, slices=4), candidate(0.766, memory=815 * 10**9)
        assert reason(best, looked([best, big])) == "m = 4: no layout with m = 1 fits in memory"
        rest = [(0.9, Layout(groups=16, slices=1, combine="reduce"))]
        assert reason(best, looked([best, big], rest)) == (
            "m = 4: no layout with m = 1 that was simulated fits in memory; by their bounds none takes less than 900 ms"
        )
        fits = candidate(1.5, combine="reduce")
        assert "0.766" not in reason(best, looked([best, big, fits]))
        assert "takes 1.5 x as long" in reason(best, looked([best, big, fits]))

    def test_the_best_is_said_of_those_simulated_where_another_may_be_better(self) -> None:
        best, sliced = candidate(), candidate(1.2, groups=8, slices=2)
        assert reason(best, looked([best, sliced])).endswith("the best slicing, 8 x 2, takes 1.2 x as long")
        other = Layout(groups=4, slices=4)
        assert reason(best, looked([best, sliced], [(1.3, other)])).endswith("takes 1.2 x as long")
        assert reason(best, looked([best, sliced], [(1.1, other)])).endswith("1.2 x as long (of those simulated)")

    @pytest.mark.parametrize(
        ("objective", "step", "latency", "memory", "text"),
        [
            ("throughput", 1.0, 9.0, 10**9, "is as good"),
            ("throughput", 1.0001, 1.0, 10**9, "takes 1.0001 x as long"),
            ("throughput", 0.9999, 1.0, 10**9, "takes 0.9999 x as long"),
            ("latency", 9.0, 1.5, 10**9, "has 1.5 x the latency"),
            ("latency", 2.0, 1.0, 10**9, "has the same latency, and a step 2 x as long"),
            ("memory", 9.0, 9.0, 1_000_100_000, "takes 1.0001 x the memory"),
            ("memory", 2.0, 9.0, 10**9, "takes the same memory, and a step 2 x as long"),
        ],
    )
    def test_as_good_is_equal(self, objective: Objective, step: float, latency: float, memory: int, text: str) -> None:
        """False: "is as good" of a ratio that only rounds to 1, and "as long" of a latency."""
        best, sliced = candidate(), candidate(step, latency, memory, groups=8, slices=2)
        known = Evidence([best, sliced], [best.layout, sliced.layout], [], fixed=False)
        assert reason(best, known, objective).endswith(f"the best slicing, 8 x 2, {text}")

    def test_replicas_beside_partitions(self) -> None:
        best = candidate(groups=1, data=16)
        stages = candidate(2.0, groups=1, pipeline=4, data=4)
        assert reason(best, looked([best, stages])).endswith("exchange nothing; no partition is legal here")


class TestSearched:
    def test_no_other_can_be_better(self) -> None:
        """False where the budget ended the search: then it is said how much may be left."""
        best = candidate(44.4, 20.0, 10**9)
        assert searched(best, 9, 3, 0, None, "throughput", "") == (
            f"searched 9 legal layouts ({tried('throughput')}), 3 of them simulated: "
            "no other of these that fits can be better, by their lower bounds"
        )
        assert "legal layouts with what was asked for (" in searched(best, 9, 3, 0, None, "throughput", "groups 4")
        for objective, bound, text in (
            ("throughput", (39.9,), "may be up to 11.3% faster: by their bounds none takes less than 39.9 s"),
            ("throughput", (44.39999,), "may be less than 0.1% faster"),
            ("latency", (15.0, 1.0), "may be up to 25.0% sooner done: by their bounds none is done in less than 15 s"),
            ("latency", (20.0, 1.0), "may be as good with a shorter step"),
            ("memory", (9e8, 1.0), "may be up to 10.0% smaller: by their bounds none takes less than 900 MB"),
            ("memory", (10**9, 1.0), "may be as good with a shorter step"),
        ):
            said = searched(best, 9, 3, 0, bound, objective, "")
            assert text in said
            assert "no other" not in said
            assert "ended at its budget" in said

    def test_one_layout(self) -> None:
        """False: "of those asked for" where nothing was; and layouts outside the searched space are legal too."""
        best = candidate()
        assert searched(best, 1, 1, 0, None, "throughput", "") == "one layout of the searched space is legal"
        assert searched(best, 1, 1, 0, None, "throughput", "groups 4") == (
            "one layout of the searched space is legal and has what was asked for"
        )

    def test_what_is_left_out_is_counted(self) -> None:
        for legal in (1, 9):
            text = searched(candidate(), legal, 1, 4, None, "throughput", "")
            assert text.endswith("; 4 more have over 16,000,000 tasks and were left out")


def big_model(hosts: int, **more: Any) -> Decision:
    llama = (str(ROOT / "plans/models/Llama-3.1-405B"), PAPER[1])
    return decide(*specs(llama, f"hosts={hosts}", "workload.batch=1024", "workload.seq_len=2048"), **more)


@pytest.mark.sweep
def test_405b_on_64_and_256_devices() -> None:
    """A search that its budget ends says so, and by how much the choice may be surpassed."""
    for hosts, tokens_per_s in ((8, 55_722), (32, 200_089)):
        decision = big_model(hosts)
        text = " ".join([*decision.reasons, decision.searched, *(r.verdict for r in decision.rows)])
        chosen = next(r for r in decision.rows if r.chosen)
        ended = decision.open_bound is not None
        assert chosen.verdict == f"chosen: the fastest {'found' if ended else 'searched'} that fits"
        assert chosen.candidate.forecast.tokens_per_s > tokens_per_s
        assert ("may be up to " in decision.searched) is ended
        assert "no slicing is legal" not in text
        assert "0.766" not in text
        assert all(not r.fits for r in decision.rows if r.verdict.startswith("does not fit"))
        places = [r.fits for r in decision.rows]
        assert places == sorted(places, reverse=True)  # what fits comes first


def test_no_slicing_is_legal_where_a_layout_with_slices_plans() -> None:
    assert big_model(32, constraints=parse_constraints("slices=2"), budget=1).plan.layout.slices == 2


# Each way to end a search, and each objective, once; all of one with all of the other in the sweep.
ENDS = {(1, "memory"), (60, "latency"), (400, "throughput")}


@pytest.mark.parametrize(
    ("budget", "objective"),
    [
        pytest.param(budget, objective, marks=[] if (budget, objective) in ENDS else [pytest.mark.sweep])
        for budget in (1, 60, 400, 10**9)
        for objective in OBJECTIVES
    ],
)
def test_every_comparison_of_a_decision_holds(budget: int, objective: Objective) -> None:
    """Whatever ends the search: no row that fits and was asked for is better than the choice."""
    sets, memory = ("device.memory=500 MB", "workload.seq_len=2"), 500e6
    if objective in OF_A_GENERATION:
        sets, memory = ("device.memory=1 GB", "workload.seq_len=2", "workload.output_len=4"), 1e9
    for constraints in ({}, parse_constraints("slices=4"), parse_constraints("pipeline=2,combine=reduce")):
        decision = decide(*specs(PAPER, *sets), constraints, objective, budget=budget)
        chosen = next(r for r in decision.rows if r.chosen).candidate
        rows = [r for r in decision.rows if r.fits]
        assert chosen.forecast.memory_nbytes <= memory
        for r in rows:
            admitted = all(getattr(r.candidate.layout, a) == v for a, v in constraints.items())
            mine, its = (key(decision.objective, c.forecast) for c in (r.candidate, chosen))
            assert not (admitted and mine < its), (str(r.candidate.layout), r.verdict)
            assert ("as good" in r.verdict) == (mine == its and not r.chosen)
        if decision.open_bound is None:
            assert "ended" not in decision.searched
        else:
            assert decision.open_bound <= key(decision.objective, chosen.forecast)
            assert "no other" not in decision.searched


def test_where_the_budget_ends_before_anything_fits_the_objective_is_still_the_one_wanted() -> None:
    """False: "the fastest" of what was chosen for its memory."""
    sets = ("device.memory=480 MB", "device.reserve=0")
    decision = decide(*specs(PAPER, *sets), budget=1)
    assert decision.objective == "throughput"
    smallest = decide(*specs(PAPER, *sets), None, "memory", budget=1)
    speeds = [next(r for r in d.rows if r.chosen).candidate.forecast.tokens_per_s for d in (decision, smallest)]
    assert next(r for r in decision.rows if r.chosen).verdict == "chosen: the fastest found that fits"
    assert speeds[0] >= speeds[1]


def test_a_search_looks_beside_what_it_found() -> None:
    """The bounds lead astray: the best is a neighbour of the third, and is found when the budget is spent."""
    a, b, c, d = (Layout(groups=g, slices=1, data=16 // g) for g in (16, 8, 4, 2))
    good = c.model_copy(update={"combine": "reduce"})
    steps = {a: 9.0, b: 8.0, c: 7.0, d: 9.0, good: 5.0}
    bounds = {a: 1.0, b: 1.1, c: 1.2, d: 1.3, good: 4.0}
    assert near(c, good)
    assert not near(a, good)

    class Given(LayoutProblem):
        """A problem whose bounds and forecasts are those above."""

        def quick_bound(self, layout: Layout) -> Key:
            return (bounds[layout],)

        def bound(self, layout: Layout) -> Key:
            return (bounds[layout],)

        def simulate(self, layout: Layout) -> Candidate:
            return Candidate(layout, candidate(steps[layout]).forecast)

        def size(self, layout: Layout) -> int:
            return layout.pipeline

    problem = Given.of(Specs(MODEL, CLUSTER, WORKLOAD), "throughput")
    found: SearchResult = search(problem.bounded(steps), problem, budget=3)
    assert found.best is not None
    assert found.best.layout == good
    assert found.open_bound is None or found.open_bound[0] <= 5.0


def test_lists_of_layouts_are_told_apart() -> None:
    """A layout has commas in its name: "2 x 1, data 2, 1 x 2, data 2" can be read in two ways."""
    with pytest.raises(HelixError) as caught:
        decide(*specs(SMALL), parse_constraints("groups=5,data=2"), plain=True)
    hint = str(caught.value.diagnostics[0].hint)
    assert "8 x 1, data 2; 4 x 2, data 2; " in hint
