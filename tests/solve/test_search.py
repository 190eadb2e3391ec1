"""The search finds what brute force over the whole space finds, and is quick."""

from __future__ import annotations

from itertools import product

import pytest

from helixctl.lower import lower
from helixctl.plan import Layout, Plan, illegalities
from helixctl.simulate import Forecast, forecast, generated
from helixctl.solve import OBJECTIVES, Objective, decide, parse_constraints, space
from helixctl.solve.bound import Bounds
from helixctl.solve.candidate import representatives, simulated
from helixctl.solve.objective import OF_A_GENERATION, key, least, simplicity
from helixctl.solve.problem import LayoutProblem, Specs
from helixctl.solve.space import combinations
from helixctl.solve.work import LayoutCosts
from tests.documents import BLOCKS, PAPER, PAPER_MOE, ROOT, SMALL, SMALL_MOE, specs

LLAMA_8B = (str(ROOT / "plans/models/Llama-3.1-8B"), PAPER[1])

HOSTS = ("hosts=2", "between_hosts.bandwidth=1 GB/s", "between_hosts.latency=20 us", "within_host.latency=5 us",
         "within_host.bandwidth=40 GB/s", "layers=2", "workload.batch=4")  # fmt: skip
REAL = ("attention.kv_heads=4", "attention.softmax_slices=1", "attention.causal=true", "attention.rotary.theta=1e4",
        "attention.qkv_bias=true", "feed_forward.gated=true", "vocabulary.size=301")  # fmt: skip
LATENT = ("attention.kv_heads=1", "attention.latent.q_rank=96", "attention.latent.kv_rank=64",
          "attention.latent.rope_dim=16", "attention.softmax_slices=1", "attention.causal=true",
          "attention.rotary.theta=1e4", "vocabulary.size=301")  # fmt: skip
STEPS = ("workload.seq_len=96", "workload.output_len=5", "workload.prefill_tokens=160", "workload.logits=last")
DRAWN = ("workload.sampling.temperature=0.7", "workload.sampling.top_p=0.9")
SMALL_SPECS = [
    (SMALL, (*HOSTS, "devices_per_host=2", "device.kind=cuda")),
    (SMALL, (*HOSTS, "devices_per_host=4", "device.kind=cuda", "workload.batch=8", "device.memory=20 MB")),
    (SMALL, (*HOSTS, "devices_per_host=3", "device.kind=cuda", "attention.heads=12", "workload.batch=3", "layers=3")),
    (SMALL, (*HOSTS, "devices_per_host=4", "device.kind=cuda", "attention.softmax_slices=1", "nics_per_host=1")),
    (SMALL_MOE, (*HOSTS, "devices_per_host=2", "device.kind=cuda", "feed_forward.experts.top_k=1")),
    (SMALL_MOE, (*HOSTS, "devices_per_host=4", "device.kind=cuda", "workload.batch=4", "layers=2")),
    (SMALL, ("hosts=1", "devices_per_host=4", "layers=2", "workload.batch=4")),
    (SMALL, (*HOSTS, *REAL, "devices_per_host=2", "device.kind=cuda", "layers=3", "workload.batch=5")),
    (SMALL_MOE, (*HOSTS, *REAL, "devices_per_host=2", "device.kind=cuda", "vocabulary.tied=true", "workload.batch=3")),
    (SMALL, ("hosts=1", *REAL, "devices_per_host=3", "layers=2", "workload.batch=4", "attention.qk_norm=true")),
    # By measured rates, which leap where tiles and waves end.
    ((SMALL[0], "a100:2x2"), ("device.kind=cuda", "dtype=bfloat16", "layers=2", "workload.batch=4")),
    (SMALL, ("hosts=1", *REAL, *STEPS, "devices_per_host=4", "layers=2", "workload.batch=4")),
    (SMALL_MOE, (*HOSTS, *REAL, *STEPS, "devices_per_host=2", "device.kind=cuda", "layers=3", "workload.batch=3")),
    (SMALL, ("hosts=1", *STEPS, "devices_per_host=4", "workload.logits=all", "layers=2", "workload.batch=4")),
    (SMALL, (*HOSTS, *REAL, *STEPS, *DRAWN, "devices_per_host=2", "device.kind=cuda", "workload.batch=5")),
    (SMALL, ("hosts=1", *REAL, *STEPS, *DRAWN, "devices_per_host=3", "layers=2", "workload.batch=4")),
    # Layers of several kinds.
    (BLOCKS, (*HOSTS, "devices_per_host=2", "device.kind=cuda", "layers=4", "workload.batch=2")),
    (BLOCKS, ("hosts=1", *STEPS, "devices_per_host=3", "workload.batch=3")),
    # A latent is read once, as keys and as values; queries are projected while others are exchanged.
    (SMALL, (*HOSTS, *LATENT, *STEPS, "devices_per_host=2", "device.kind=cuda", "workload.batch=2")),
    # Experts of the fullest device, on replicas that share them or not.
    (SMALL_MOE, (*HOSTS, "devices_per_host=2", "device.kind=cuda", "workload.routing=power_law(1.2)")),
    # Attention exchanges while experts compute.
    (SMALL_MOE, (*HOSTS, "devices_per_host=2", "device.kind=cuda", "side_by_side=true", "workload.batch=2")),
]
GENERATIONS = (11, 12, 13, 14, 15, 17, 18)


def forecast_of(plan: Plan) -> Forecast:
    """Of all ranks, layers and steps."""
    work = plan.workload
    found = [forecast(lower(plan, step=step)) for step in plan.steps]
    if work.output_len is None:
        return found[0]
    chunks = -(-work.seq_len // plan.step("prefill").seq_len)
    return generated(found[0], found[1], chunks, work.batch, work.output_len)


def objectives(number: int) -> tuple[Objective, ...]:
    return OBJECTIVES if number in GENERATIONS else tuple(x for x in OBJECTIVES if x not in OF_A_GENERATION)


def dedicated(sets: tuple[str, ...]) -> bool:
    return "device.kind=cuda" in sets


def problem(number: int):  # type: ignore[no-untyped-def]
    paths, sets = SMALL_SPECS[number]
    model, cluster, workload = specs(paths, *sets)
    if dedicated(sets):  # GPUs do not share cores
        cluster = cluster.model_copy(update={"cores_per_host": None})
    return model, cluster, workload


# Every layout is simulated whole: most of the problems take long.
QUICK = (0,)


@pytest.mark.parametrize(
    "number", [n if n in QUICK else pytest.param(n, marks=pytest.mark.sweep) for n in range(len(SMALL_SPECS))]
)
def test_the_optimum_of_brute_force(number: int) -> None:
    """Every layout of the space lowered whole, on all ranks, and simulated: none is better than what is chosen."""
    model, cluster, workload = problem(number)
    forecasts: dict[Layout, Forecast] = {}
    for objective in objectives(number):
        everything = sorted(space(model, cluster, workload, {}, objective=objective), key=simplicity)
        for x in (layout for layout in everything if layout not in forecasts):
            forecasts[x] = forecast_of(Plan.sketch(model, cluster, workload, x))
        fitting = [x for x in everything if forecasts[x].memory_nbytes <= cluster.device.available]
        best = min(fitting, key=lambda x: (key(objective, forecasts[x]), simplicity(x)))
        decision = decide(model, cluster, workload, None, objective, budget=10**9)
        assert decision.open_bound is None
        assert decision.plan.layout == best
        assert decision.legal == len(everything)
        if objective == "throughput":
            assert decision.simulated < len(everything)


# One layout of many is enough to find a wrong bound in every run; the sweep tries six times as many.
@pytest.mark.parametrize(
    ("number", "step"),
    [(n, 71) for n in range(len(SMALL_SPECS))]
    + [pytest.param(n, 11, marks=pytest.mark.sweep) for n in range(len(SMALL_SPECS))],
)
def test_bounds_hold_and_some_ranks_tell_of_all(number: int, step: int) -> None:
    model, cluster, workload = problem(number)
    bounds = LayoutProblem.of(Specs(model, cluster, workload), "throughput").bounds
    for layout in list(space(model, cluster, workload, {}))[::step]:
        whole = forecast_of(Plan.sketch(model, cluster, workload, layout))
        for objective in objectives(number):
            for bound in (
                *bounds.loose(layout, [layout.microbatches]),
                bounds.quick(layout),
                bounds(layout),
                bounds.with_turns(layout),
            ):
                assert least(objective, bound) <= key(objective, whole), layout
        part = simulated(model, cluster, workload, layout).forecast
        assert part is not None
        assert part.step_s == pytest.approx(whole.step_s, rel=1e-9), layout
        if model.pattern:  # smaller pieces of several kinds of layers may be packed a little worse than the largest
            assert 0.999 * whole.memory_nbytes <= part.memory_nbytes <= whole.memory_nbytes, layout
        else:
            assert part.memory_nbytes == whole.memory_nbytes, layout
        assert part.received_nbytes == whole.received_nbytes, layout


@pytest.mark.parametrize(("prefill_tokens", "form"), [(8192, "expanded"), (96, "absorbed")])
def test_latents_are_expanded_where_that_is_priced_lower(prefill_tokens: int, form: str) -> None:
    """Of many new tokens each expanded position serves all, of a few it costs more than it spares."""
    sets = (*LATENT, "layers=2", "workload.batch=8", "hidden_size=2048", "attention.heads=32",
            "attention.head_dim=192", "attention.v_head_dim=128", "attention.latent.kv_rank=512",
            "attention.latent.rope_dim=64", "workload.seq_len=4096", "workload.output_len=4",
            f"workload.prefill_tokens={prefill_tokens}")  # fmt: skip
    model, cluster, workload = specs((SMALL[0], "h100:1x2"), *sets)
    decision = decide(model, cluster, workload)
    assert decision.plan.layout.latent_prefill == form
    asked = {x: decide(model, cluster, workload, {"latent_prefill": x}).plan for x in ("absorbed", "expanded")}
    ttft = {x: forecast(lower(plan, step="prefill")).step_s for x, plan in asked.items()}
    assert min(ttft, key=lambda x: ttft[x]) == form


@pytest.mark.parametrize(("seq_len", "batch", "shared"), [(8192, 1, "query"), (65536, 8, "key")])
def test_slices_of_a_cache_prefill_by_what_is_priced_lower(seq_len: int, batch: int, shared: str) -> None:
    """By rows where a chunk is the whole prompt; by key where its rows are few for the positions of the cache."""
    sets = ("layers=4", f"workload.batch={batch}", f"workload.seq_len={seq_len}", "workload.output_len=4")
    problem = specs((str(ROOT / "plans/models/Llama-3.1-70B"), "h100:1x8"), *sets)
    fixed = parse_constraints("groups=4,slices=2,slicing=key,combine=reduce,residual=replicated,interleave=1")
    decision = decide(*problem, fixed, "ttft")
    assert decision.plan.layout.key_prefill == shared
    ttft = {
        x: forecast(lower(decide(*problem, {**fixed, "key_prefill": x}).plan, step="prefill")).step_s
        for x in ("key", "query")
    }
    assert min(ttft, key=lambda x: ttft[x]) == shared


@pytest.mark.parametrize("stages", [2, 4, 8])
def test_the_bound_of_whole_layers_in_stages_is_their_step(stages: int) -> None:
    """Nothing is exchanged but between stages: a stage between two others sends one and receives the next."""
    model, cluster, workload = specs(PAPER, "layers=8", "hosts=2", f"devices_per_host={stages // 2}")
    layout = Layout(groups=1, slices=1, pipeline=stages, microbatches=16)
    found, bounds = simulated(model, cluster, workload, layout).forecast, Bounds(LayoutCosts(model, cluster, workload))
    assert found is not None
    assert bounds(layout).step_s == pytest.approx(found.step_s, rel=1e-9)
    assert bounds.quick(layout).step_s < found.step_s


def test_one_rank_of_every_stage_stands_for_a_regular_cluster() -> None:
    model, cluster, workload = specs(PAPER)
    sizes = {len(representatives(x, model, cluster, workload)) for x in space(model, cluster, workload, {})}
    assert sizes == {1, 2, 4}


def test_the_budget_ends_a_search_and_says_so() -> None:
    model, cluster, workload = specs(PAPER)
    decision = decide(model, cluster, workload, None, "latency", budget=100)
    assert decision.open_bound is not None
    assert decision.simulated < 10


def test_a_thousand_devices_have_a_large_space() -> None:
    """tests/benchmarks/solver.py measures the time; here, that most of it is left unsimulated."""
    model, cluster, workload = specs(PAPER_MOE, "hosts=128", "workload.batch=4096")
    decision = decide(model, cluster, workload)
    assert decision.plan.layout.devices == 1024
    assert decision.legal > 1000
    assert decision.simulated < 50


def test_do_not_partition() -> None:
    """The paper's model fits one H100: with tokens enough, sixteen replicas win, and it is said why."""
    decision = decide(*specs(PAPER, "workload.seq_len=128"))
    assert str(decision.plan.layout).startswith("1 x 1, data 16")
    assert decision.reasons[0].startswith("do not partition: 16 replicas")
    assert any(
        row.candidate.layout.data == 16 and row.candidate.layout.partitions == 1 for row in decide(*specs(PAPER)).rows
    )


def test_m_is_1_where_there_are_heads_enough() -> None:
    decision = decide(*specs(PAPER), parse_constraints("data=1,pipeline=1"))
    assert decision.plan.layout.slices == 1
    assert decision.reasons[0].startswith("m = 1: there are heads enough for 16 groups; the best slicing, ")


def test_slices_where_there_are_more_devices_than_heads() -> None:
    decision = decide(*specs(PAPER, "attention.heads=4"), parse_constraints("data=1,pipeline=1"))
    assert decision.plan.layout.partitions == 16
    assert decision.plan.layout.slices == 4


def test_a_wide_head_is_priced_as_no_fast_kernel_takes_it() -> None:
    """One softmax of 512 dims costs more than four times the attention of four of 128 on the same tokens."""

    def attend(*sets: str) -> float:
        row = decide(*specs(PAPER, "workload.seq_len=2048", "workload.batch=16", *sets), {"groups": 16}, plain=True)
        return next(r.candidate.forecast.levels["attend", "compute"] for r in row.rows if r.chosen)

    assert 4 < attend("attention.softmax_slices=1") / attend() < 5  # docs/measurements/gpu.md: 4.1 to 4.8


def test_latency_and_memory_are_other_objectives() -> None:
    model, cluster, workload = specs(PAPER)
    found = {o: decide(model, cluster, workload, None, o) for o in ("throughput", "latency", "memory")}
    chosen = {o: next(r.candidate.forecast for r in d.rows if r.chosen) for o, d in found.items()}
    assert chosen["memory"].memory_nbytes < chosen["throughput"].memory_nbytes
    assert chosen["memory"].step_s > chosen["throughput"].step_s
    assert chosen["latency"].latency_s <= min(f.latency_s for f in chosen.values())


@pytest.mark.parametrize(
    "constraints",
    [
        *("groups=8,pipeline=2", "experts=8", "gather_order=groups_first,slices=4", "microbatches=3,batch=3"),
        *(
            pytest.param(text, marks=pytest.mark.sweep)
            for text in (
                "combine=reduce,microbatches=4",
                "placement=groups-slices-data-pipeline",
                "interleave=2,data=2",
                "reduction_dtype=model",
            )
        ),
    ],
)
def test_what_is_wished_is_kept_and_the_rest_is_searched(constraints: str) -> None:
    sets = ("workload.batch=768",) if "batch=" in constraints else ()
    fixed = parse_constraints(constraints.replace(",batch=3", ""))
    layout = decide(*specs(PAPER_MOE, *sets), fixed).plan.layout
    assert all(getattr(layout, axis) == value for axis, value in fixed.items())
    assert layout.devices == 16


def microbatches(objective: Objective, **axes: int) -> set[int]:
    model, cluster, workload = specs(PAPER, "workload.batch=12", "hosts=1", "devices_per_host=4")
    return {x.microbatches for x in space(model, cluster, workload, axes, objective=objective)}


def test_microbatches_divide_a_replica_s_batch_or_are_powers_of_two() -> None:
    assert microbatches("throughput", pipeline=2, groups=2, interleave=1) == {1, 2, 3, 4, 6, 8, 12}
    assert microbatches("throughput", pipeline=2, groups=2, interleave=2) == {2, 4, 6, 8, 12}
    assert microbatches("throughput", pipeline=2, data=2) == {1, 2, 3, 4, 6}
    assert microbatches("throughput", data=4) == {1}
    assert microbatches("latency", data=4) == microbatches("memory", data=4) == {1, 2, 3}


def test_a_batch_that_is_no_power_of_two_fills_its_stages() -> None:
    model, cluster, workload = specs(LLAMA_8B, "hosts=1", "devices_per_host=4", "workload.batch=12")
    workload = workload.model_copy(update={"seq_len": 512})
    steps = {
        n: decide(model, cluster, workload, {"pipeline": 4, "microbatches": n}).priced[0].forecast for n in (4, 8, 12)
    }
    chosen = decide(model, cluster, workload, {"pipeline": 4})
    assert chosen.plan.layout.microbatches in (6, 12)
    assert steps[12].step_s < min(steps[4].step_s, steps[8].step_s)


@pytest.mark.parametrize("objective", ["latency", "memory"])
def test_one_device_takes_its_batch_in_parts_where_that_is_wanted(objective: Objective) -> None:
    """The first sequences are done early, and few are live at a time; the step is longer."""
    model, cluster, workload = specs(LLAMA_8B, "hosts=1", "devices_per_host=1", "workload.batch=8")
    workload = workload.model_copy(update={"seq_len": 2048})
    fastest, found = (decide(model, cluster, workload, None, o) for o in ("throughput", objective))
    assert (fastest.plan.layout.microbatches, found.plan.layout.microbatches) == (1, 8)
    whole, parts = (d.priced[0].forecast for d in (fastest, found))
    assert parts.latency_s < 0.7 * whole.latency_s
    assert parts.memory_nbytes < 0.95 * whole.memory_nbytes
    assert parts.step_s > whole.step_s


@pytest.mark.parametrize("number", [4, 8, 12, 17, 18])
def test_what_is_left_out_is_not_legal(number: int) -> None:
    """Families of layouts are judged at once: each of them is legal by itself, and no other of the combinations is."""
    model, cluster, workload = problem(number)
    for fixed in ({}, {"microbatches": 2}, {"slicing": "batch", "residual": "sharded"}, {"interleave": 3}):
        for objective in ("throughput", "latency"):
            every = combinations(model, cluster, workload, fixed, 16, objective)
            legal = [x for x in every if not illegalities(x, model, workload, cluster.devices)]
            found = space(model, cluster, workload, fixed, objective=objective)
            assert sorted(found, key=simplicity) == sorted(legal, key=simplicity)


def test_the_space_has_no_redundant_layouts_and_all_of_it_is_legal() -> None:
    for paths, count in ((PAPER, 2), (SMALL_MOE, 1)):
        model, cluster, workload = specs(paths)
        found = list(space(model, cluster, workload, {}))
        assert len(set(found)) == len(found)
        assert {x.devices for x in found} == {16}
        assert max(x.interleave for x in found) == 2
        assert len({x.placement for x in found}) >= count
    pairs = {(x.groups, x.slices) for x in found}
    assert pairs == {(g, s) for g, s in product((1, 2, 4, 8, 16), repeat=2) if g * s <= 16}
    assert {x.slicing for x in found if x.slices in (2, 4)} == {"head_dim"}
    assert {x.slicing for x in found if x.slices == 8} == {"batch", "query"}
