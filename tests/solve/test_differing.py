"""Clusters whose hosts differ: bounds hold, the search finds what brute force finds, and shares even out time."""

from __future__ import annotations

from itertools import combinations

import pytest

from helixctl.errors import HelixError
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.simulate import Forecast, forecast, generated
from helixctl.solve import Objective, decide, proof
from helixctl.solve.candidate import simulated
from helixctl.solve.decide import every_layout, on_the_first
from helixctl.solve.differing import DifferingBounds
from helixctl.solve.objective import key, least, simplicity
from helixctl.solve.problem import LayoutProblem, Specs
from helixctl.solve.shares import dealt_layers
from helixctl.solve.verdict import held_by
from helixctl.spec import ClusterSpec, ModelSpec
from tests.documents import BLOCKS, SMALL, SMALL_MOE, specs

REAL = ("attention.kv_heads=4", "attention.softmax_slices=1", "attention.causal=true", "attention.rotary.theta=1e4",
        "vocabulary.size=301")  # fmt: skip
STEPS = ("workload.seq_len=96", "workload.output_len=5", "workload.prefill_tokens=160", "workload.logits=last")
FAST, SLOW = 4e12, 1e12


def hosts(count: int, devices: int, rate: float, memory: float = 1e9, kind: str = "cuda") -> dict[str, object]:
    device = {
        "kind": kind,
        "name": f"{rate / 1e12:g} TFLOP",
        "memory": f"{memory / 1e6:g} MB",
        "memory_bandwidth": f"{rate / 20e9:g} GB/s",
        "peak": dict.fromkeys(("float64", "float32", "float16", "bfloat16"), f"{rate / 1e9:g} GFLOP/s"),
    }
    return {
        "count": count,
        "devices": devices,
        "device": device,
        "within_host": {"bandwidth": f"{rate / 50e9:g} GB/s", "latency": "5 us"},
    }


def cluster(*kinds: dict[str, object]) -> ClusterSpec:
    between = {"bandwidth": "1 GB/s", "latency": "20 us"}
    return ClusterSpec.model_validate({"name": "differs", "hosts": list(kinds), "between_hosts": between})


PROBLEMS = {
    "two and one": (SMALL, ("layers=5", "workload.batch=7"), cluster(hosts(1, 2, FAST), hosts(1, 1, SLOW))),
    "slow first": (SMALL, ("layers=3", "workload.batch=4"), cluster(hosts(1, 1, SLOW), hosts(1, 2, FAST))),
    "little memory": (
        SMALL,
        ("layers=4", "workload.batch=6"),
        cluster(hosts(1, 2, FAST, 60e6), hosts(2, 1, SLOW, 20e6)),
    ),
    "a host of fewer": (SMALL_MOE, ("layers=2", "workload.batch=3"), cluster(hosts(1, 2, FAST), hosts(1, 1, FAST))),
    "a generation": (
        SMALL,
        (*REAL, *STEPS, "layers=4", "workload.batch=6"),
        cluster(hosts(1, 2, FAST), hosts(1, 1, SLOW)),
    ),
    "kinds of layers": (BLOCKS, ("layers=6", "workload.batch=6"), cluster(hosts(1, 1, FAST), hosts(2, 1, SLOW))),
}
GENERATION: tuple[Objective, ...] = ("throughput", "ttft", "tpot", "memory")
PASS: tuple[Objective, ...] = ("throughput", "latency", "memory")


def problem(name: str, objective: Objective = "throughput") -> LayoutProblem:
    paths, sets, its = PROBLEMS[name]
    model, _, workload = specs(paths, *sets)
    return LayoutProblem.of(Specs(model, its, workload), objective)


def whole(specs_: Specs, layout: Layout) -> Forecast:
    """Of all ranks, layers, microbatches and steps."""
    plan = Plan.sketch(*specs_, layout)
    found = [forecast(lower(plan, step=step)) for step in plan.steps]
    work = specs_.workload
    if work.output_len is None:
        return found[0]
    chunks = -(-work.seq_len // plan.step("prefill").seq_len)
    return generated(found[0], found[1], chunks, work.batch, work.output_len)


def fits(found: Forecast, its: ClusterSpec) -> bool:
    return all(nbytes <= device.available for device, nbytes in held_by(found, its))


def objectives(specs_: Specs) -> tuple[Objective, ...]:
    return PASS if specs_.workload.output_len is None else GENERATION


# On single devices alone there are few layouts; all of them take long.
ONE_DEVICE = {"groups": 1, "slices": 1}


@pytest.mark.parametrize(
    ("name", "fixed"),
    [("two and one", ONE_DEVICE), ("little memory", ONE_DEVICE)]
    + [pytest.param(name, {}, marks=pytest.mark.sweep) for name in PROBLEMS],
)
def test_the_optimum_of_brute_force(name: str, fixed: dict[str, int | str]) -> None:
    """Every layout, with unequal shares among them, simulated whole on all ranks: none is better than the choice."""
    specs_ = problem(name).specs
    forecasts: dict[Layout, Forecast] = {}
    for objective in objectives(specs_):
        its = problem(name, objective)
        every = sorted(every_layout(its, fixed), key=simplicity)
        for layout in (x for x in every if x not in forecasts):
            forecasts[layout] = whole(specs_, layout)
        fitting = [x for x in every if fits(forecasts[x], specs_.cluster)]
        best = min(fitting, key=lambda x: (key(objective, forecasts[x]), simplicity(x)))
        found = decide(*specs_, fixed, objective, budget=10**9)
        assert found.open_bound is None
        assert key(objective, forecasts[found.plan.layout]) == pytest.approx(key(objective, forecasts[best]))


@pytest.mark.parametrize("name", PROBLEMS)
def test_bounds_hold_and_some_ranks_tell_of_all(name: str) -> None:
    its = problem(name)
    bounds, specs_ = its.bounds, its.specs
    assert isinstance(bounds, DifferingBounds)
    every = list(every_layout(its, {}))
    unequal = [x for x in every if x.stages or x.batch_shares]
    weighed = [x for x in every if x.group_shares]
    assert unequal or name == "a host of fewer"
    assert weighed or name in {"a host of fewer", "kinds of layers"}
    for layout in [*every[::61], *unequal[::23], *weighed[:: len(weighed) // 3 + 1]]:
        found = whole(specs_, layout)
        for bound in (bounds.quick(layout), bounds(layout)):
            for objective in objectives(specs_):
                assert least(objective, bound) <= key(objective, found), layout
            assert bound.fits or not fits(found, specs_.cluster), layout
        part = simulated(*specs_, layout).forecast
        assert part is not None
        assert part.step_s == pytest.approx(found.step_s, rel=1e-9), layout
        assert part.latency_s == pytest.approx(found.latency_s, rel=1e-9), layout
        assert part.memory_of_kinds == found.memory_of_kinds or specs_.model.pattern, layout


@pytest.mark.parametrize("name", ["two and one", "kinds of layers"])
def test_what_is_not_dealt_could_not_be_better(name: str) -> None:
    """Unequal shares that are not worked out would all take longer, by their bounds."""
    its = problem(name)
    fixed = {"slices": 1, "interleave": 1}
    every = list(every_layout(its, fixed))
    keys = {x: its.quick_bound(x)[0] for x in every}
    left_out = 0
    for within in (min(keys.values()) * 1.1, sorted(keys.values())[len(keys) // 4]):
        gone = {*every} - {*every_layout(its, fixed, within=within)}
        left_out += len(gone)
        assert all(keys[x] > within for x in gone)
    assert left_out


def by_hand(layers: int, each: list[float], ends: list[float], most: list[int], microbatches: int) -> float:
    """Seconds of the best of all stages."""
    found = []
    for cuts in combinations(range(1, layers), len(each) - 1):
        sizes = [b - a for a, b in zip((0, *cuts), (*cuts, layers), strict=True)]
        if all(size <= its for size, its in zip(sizes, most, strict=True)):
            times = [end + size * its for end, size, its in zip(ends, sizes, each, strict=True)]
            found.append((microbatches - 1) * max(times) + sum(times))
    return min(found)


@pytest.mark.parametrize(
    ("layers", "each", "ends", "most", "microbatches"),
    [
        (12, [1.0, 1.0, 4.0], [0.5, 0.0, 2.0], [12, 12, 12], 8),
        (12, [1.0, 1.0, 4.0], [0.5, 0.0, 2.0], [4, 6, 12], 8),
        (9, [3.0, 1.0], [0.0, 0.0], [9, 5], 1),
        (16, [2.0, 3.0, 5.0, 7.0], [1.0, 0.0, 0.0, 3.0], [6, 16, 16, 16], 3),
    ],
)
def test_no_other_stages_take_less(
    layers: int, each: list[float], ends: list[float], most: list[int], microbatches: int
) -> None:
    sizes = dealt_layers(layers, each, ends, most, microbatches)
    assert sizes is not None
    assert sum(sizes) == layers
    assert all(1 <= size <= its for size, its in zip(sizes, most, strict=True))
    times = [end + size * its for end, size, its in zip(ends, sizes, each, strict=True)]
    found = (microbatches - 1) * max(times) + sum(times)
    assert found == pytest.approx(by_hand(layers, each, ends, most, microbatches))


def test_layers_that_fit_nowhere_are_not_dealt() -> None:
    assert dealt_layers(8, [1.0, 1.0], [0.0, 0.0], [3, 4], 4) is None


def test_layers_and_sequences_follow_the_rates() -> None:
    model, its, workload = problem("two and one").specs
    deep = model.model_copy(update={"layers": 9})
    found = decide(
        deep, its, workload, {"groups": 1, "slices": 1, "data": 1, "pipeline": 3, "microbatches": 7}
    ).plan.layout
    assert found.stages == "4-4-1"
    many = workload.model_copy(update={"batch": 18})
    replicas = {"groups": 1, "slices": 1, "data": 3, "pipeline": 1, "microbatches": 1}
    found = decide(model, its, many, replicas).plan.layout
    large, _, small = found.sequences_of_replicas
    assert large > 3 * small

    def step_s(last: int) -> float:
        shares = f"{(18 - last) // 2}-{(19 - last) // 2}-{last}"
        forecast_ = simulated(model, its, many, found.model_copy(update={"batch_shares": shares})).forecast
        assert forecast_ is not None
        return forecast_.step_s

    assert min(range(1, 9), key=step_s) == small


@pytest.mark.parametrize("name", ["two and one", "a generation"])
def test_forecasts_on_the_first_hosts_are_those_of_the_whole_cluster(name: str) -> None:
    model, its, workload = problem(name).specs
    found = decide(model, its.of_kind(0), workload, {"slices": 1}).priced
    again = [*on_the_first(found, its, workload)]
    assert again
    for candidate in again:
        assert candidate.forecast is not None
        other = simulated(model, its, workload, candidate.layout).forecast
        assert other is not None
        assert (other.memory_of_kinds, other.memory_nbytes) == (
            candidate.forecast.memory_of_kinds,
            candidate.forecast.memory_nbytes,
        )
        for one, same in zip(key("latency", other), key("latency", candidate.forecast), strict=True):
            assert one == pytest.approx(same, rel=1e-9)


ONE_TEAM = {"slices": 1, "data": 1, "pipeline": 1, "microbatches": 1}


def test_groups_follow_the_rates() -> None:
    """Where the link between the hosts is quick, the heads of one team go to its quick devices."""
    model, _, workload = problem("two and one").specs
    kinds = cluster(hosts(1, 2, FAST), hosts(1, 1, SLOW))
    link = kinds.between_hosts
    assert link is not None
    quick = link.model_copy(update={"bandwidth": 1e12, "latency_s": 1e-7})
    its = kinds.model_copy(update={"between_hosts": quick})
    found = decide(model, its, workload, {**ONE_TEAM, "groups": 3})
    large, same, small = found.plan.layout.weights_of_groups
    assert large == same > 2 * small
    assert not proof(found.plan, whole=True).findings
    even = simulated(model, its, workload, found.plan.layout.model_copy(update={"group_shares": None})).forecast
    assert even is not None
    assert found.forecast.step_s < 0.9 * even.step_s


def test_groups_follow_the_memory() -> None:
    model, _, workload = problem("two and one").specs
    its = cluster(hosts(1, 2, FAST, 90e6), hosts(1, 1, FAST, 40e6))
    one_team = {**ONE_TEAM, "groups": 3, "combine": "reduce"}
    with pytest.raises(HelixError, match="HX203"):
        decide(large(model), its, workload, {**one_team, "group_shares": "1-1-1"})
    found = decide(large(model), its, workload, one_team).plan
    assert found.layout.group_shares
    assert not proof(found, whole=True).findings


@pytest.mark.parametrize("slicing", ["batch", "query"])
def test_groups_with_weights_on_equal_hosts(slicing: str) -> None:
    """Only who asks for them gets them; some ranks tell of all, and bounds hold."""
    model, its, workload = specs(
        SMALL, *REAL, "layers=2", "workload.batch=4", "devices_per_host=4", "cores_per_host=null"
    )
    free = LayoutProblem.of(Specs(model, its, workload), "throughput")
    assert not any(x.group_shares for x in every_layout(free, {"groups": 2}))
    for more in ({"combine": "reduce"}, {"residual": "sharded"}):
        layout = Layout.model_validate({"groups": 2, "slices": 2, "slicing": slicing, "group_shares": "1-3", **more})
        found, part = whole(Specs(model, its, workload), layout), simulated(model, its, workload, layout).forecast
        assert part is not None
        assert (part.step_s, part.memory_nbytes) == (pytest.approx(found.step_s), found.memory_nbytes)
        assert free.quick_bound(layout) <= free.bound(layout) <= free.key(simulated(model, its, workload, layout))


def test_what_is_idle_and_what_is_gained_are_said() -> None:
    model, _, workload = problem("two and one").specs
    slow = cluster(hosts(1, 2, FAST), hosts(1, 1, FAST / 1000))
    found = decide(model, slow, workload, ONE_DEVICE)
    assert found.plan.layout.devices == 2
    assert "idle: 1 of 3 devices, 1 x 0.004 TFLOP" in found.reasons
    many = workload.model_copy(update={"batch": 18})
    found = decide(model, problem("two and one").specs.cluster, many, ONE_DEVICE)
    assert any(x.startswith("the best with equal shares on all 3 devices, ") for x in found.reasons)
    assert any(x.startswith("the best of 2 x 4 TFLOP alone, ") and " takes " in x for x in found.reasons)


def large(model: ModelSpec) -> ModelSpec:
    return model.model_copy(update={"layers": 12})


def test_each_device_has_its_own_memory() -> None:
    """What fits the large devices, and not the small one's share, is refused by rank and device."""
    model, _, workload = problem("two and one").specs
    its = cluster(hosts(1, 2, FAST, 100e6), hosts(1, 1, SLOW, 30e6))
    layout = Layout(groups=1, slices=1, pipeline=3, stages="5-2-5")
    found = proof(Plan.of(large(model), its, workload, layout), whole=True).findings
    assert [x.code for x in found] == ["HX410"]
    assert found[0].message.startswith("rank 2 needs ")
    assert "1 TFLOP has 30 MB" in found[0].message
    fewer = layout.model_copy(update={"stages": "6-5-1"})
    assert not proof(Plan.of(large(model), its, workload, fewer), whole=True).findings
    with pytest.raises(HelixError, match="1 TFLOP has 30 MB"):
        decide(large(model), its, workload, {"groups": 1, "slices": 1, "pipeline": 3, "stages": "5-2-5"})
    free = decide(large(model), its, workload, {"groups": 1, "slices": 1, "pipeline": 3, "data": 1})
    assert free.plan.layout.layers_of_stages[2] <= 2
    assert not proof(free.plan).findings
