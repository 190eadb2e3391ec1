"""Calibrated tables replace the defaults, and say so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from helixctl.cost.compute import _Device, decode_attention_cost
from helixctl.cost.tasks import foundation, seconds, sources
from helixctl.dag import AllToAll
from helixctl.lower import lower
from helixctl.plan import Plan
from helixctl.spec import ClusterSpec, StoredSpec
from helixctl.spec.load import load_cluster
from tests.cost.calibrated import calibrated
from tests.documents import PAPER, PAPER_MOE, SMALL, dag_of, plan_of

DAG = dag_of(SMALL, 4, 4)
OVERHEAD = 3e-6


def test_a_matrix_product_by_its_shape() -> None:
    table = {"rows": [64, 256], "columns": [512], "depth": [512], "rates": ["10 GFLOP/s", "30 GFLOP/s"]}
    dag = calibrated(DAG, matmul={"float32": table})
    task = dag.task["l0.feed_forward.up.g0s0"]
    assert task.flops == 2 * 128 * 512 * 128
    # 128 rows are half way; 128 columns are fewer than were measured, so that memory is looked at as well.
    assert seconds(dag, task) == pytest.approx(task.flops / (300**0.5 * 1e9) + OVERHEAD)
    slow = calibrated(DAG, matmul={"float32": table | {"rates": ["1 PFLOP/s", "1 PFLOP/s"]}})
    assert seconds(slow, task) == pytest.approx(task.nbytes / (5e9 * 0.9) + OVERHEAD)
    inside = table | {"columns": [64, 512], "rates": ["1 PFLOP/s"] * 4}
    fast = calibrated(DAG, matmul={"float32": inside})
    assert seconds(fast, task) == pytest.approx(task.flops / 1e15 + OVERHEAD)


def test_another_dtype_keeps_the_defaults() -> None:
    table = {"rows": [64], "columns": [512], "depth": [512], "rates": ["10 GFLOP/s"]}
    dag = calibrated(DAG, matmul={"float64": table})
    task = dag.task["l0.feed_forward.up.g0s0"]
    assert seconds(dag, task) == pytest.approx(task.flops / (32e9 * 0.8) + OVERHEAD)


def test_attention_and_elementwise_work() -> None:
    attention = {"seq_len": [8], "width": [8, 32], "rates": ["1 GFLOP/s", "2 GFLOP/s"]}
    dag = calibrated(DAG, attention={"float32": attention}, elementwise={"add": "3 GB/s"})
    attend, add, norm = (dag.task[f"l0.{name}.g0s0"] for name in ("attend", "project.add", "distribute.norm"))
    assert seconds(dag, attend) == pytest.approx(attend.flops / 1e9 + OVERHEAD)
    assert seconds(dag, add) == pytest.approx(add.nbytes / 3e9 + OVERHEAD)
    assert seconds(dag, norm) == pytest.approx(norm.nbytes / 4.5e9 + OVERHEAD)


@pytest.mark.parametrize(
    ("rates", "by_hand"),
    [
        # A head takes as long for 8 tokens as for 15: as long as causal over 8, though it does 16 ninths of the work.
        ((9.0, 30.0), 9.0 * 16 / 9),
        # The arithmetic decides: the rate of the sequence whose rows see 8 keys, which has 15 tokens.
        ((30.0, 30.0), 30.0),
    ],
)
def test_attention_that_is_not_causal(rates: tuple[float, float], by_hand: float) -> None:
    table = {"seq_len": [8, 15], "width": [8], "rates": [f"{rate} GFLOP/s" for rate in rates]}
    dag = calibrated(DAG, attention={"float32": table})
    attend = dag.task["l0.attend.g0s0"]
    assert seconds(dag, attend) == pytest.approx(attend.flops / (by_hand * 1e9) + OVERHEAD)


def test_a_collective_by_its_size_and_the_nearest_number_of_ranks() -> None:
    tables = [
        {"kind": "all_gather", "ranks": ranks, "nbytes": [1000], "seconds": [f"{ranks} ms"]} for ranks in (2, 4, 16)
    ]
    dag = calibrated(DAG, collectives=tables)
    assert seconds(dag, dag.task["l0.concat.slices.g0"]) == pytest.approx(
        4e-3 * dag.task["l0.concat.slices.g0"].nbytes / 1000
    )
    assert seconds(dag, dag.task["l0.project.gather"]) == pytest.approx(
        16e-3 * dag.task["l0.project.gather"].nbytes / 1000
    )
    assert seconds(dag, dag.task["l0.feed_forward.reduce"]) == seconds(DAG, DAG.task["l0.feed_forward.reduce"])


def test_a_table_is_not_used_for_a_group_that_crosses_more_or_fewer_hosts() -> None:
    paper = dag_of(PAPER, 4, 4)
    tables = [{"kind": "all_gather", "ranks": ranks, "nbytes": [1000], "seconds": [f"{ranks} us"]} for ranks in (4, 16)]
    dag = calibrated(paper, collectives=tables)
    across = dag.task["l0.concat.groups.s0"]  # four ranks on two hosts
    assert seconds(dag, across) == seconds(paper, across)
    for name, takes in (("l0.concat.slices.g0", 4e-6), ("l0.project.gather", 16e-6)):
        task = dag.task[name]
        assert seconds(dag, task) == pytest.approx(takes * task.nbytes / 1000)


def test_sources_name_what_was_used_and_nothing_else() -> None:
    table = {"rows": [64], "columns": [64], "depth": [64], "rates": ["10 GFLOP/s"]}
    said = sources(calibrated(DAG, matmul={"float32": table}, elementwise={"norm": "3 GB/s"}))
    assert "matmul in float32: rates by shape: calibrated: a test" in said
    assert "norm 3 GB/s: calibrated: a test" in said
    assert "task_overhead 3 us: calibrated: a test" in said
    assert any(line.startswith("cpu_attention_share 0.4: default") for line in said)
    assert any(line.startswith("within_host.latency 500 us: cluster spec cpu16") for line in said)
    assert any(line.startswith("collective_load 0: calibrated") for line in said)
    assert not any(word in line for line in said for word in ("cpu_matmul_share", "XLA", "nic_share", "sms"))
    paper = sources(dag_of(PAPER, 4, 4))
    assert len(set(paper)) == len(paper)
    assert any("XLA" in line for line in paper)
    assert not any(word in line for line in paper for word in ("cpu_", "calibrated", "wide_attention", "cores_per"))


def test_attention_by_the_softmaxes_at_work_together() -> None:
    """4 groups of 4 slices: a rank has 4 heads of 16 sequences, each one softmax of 8 dims."""
    attend = DAG.task["l0.attend.g0s0"]
    batch, _, heads, head_dim = DAG.value[attend.inputs[0]].shape
    count = batch * heads * head_dim // 8
    rates = [f"{rate} GFLOP/s" for rate in (4.0, 16.0)]
    table = {"softmaxes": [count // 2, count * 2], "seq_len": [8], "width": [8], "rates": rates}
    dag = calibrated(DAG, attention={"float32": table})
    assert seconds(dag, attend) == pytest.approx(attend.flops / 8e9 + OVERHEAD)


def test_a_share_of_the_rows_keeps_as_few_sms_busy_as_a_share_of_the_heads() -> None:
    """slicing query: a rank has 512 of 2,048 rows of all heads of its group; each sees all keys."""
    dag = dag_of(PAPER, 1, 4, "workload.seq_len=2048", "workload.batch=4", "attention.softmax_slices=1",
                 "attention.head_dim=128", "attention.causal=false", slicing="query", data=4)  # fmt: skip
    attend = next(task for task in dag.tasks if task.kind == "attention")
    batch, rows, heads, width = dag.value[attend.inputs[0]].shape
    assert (batch, rows, width) == (1, 512, 128)
    rates = [f"{rate} TFLOP/s" for rate in (100, 400)]
    # Rows that see 2,048 keys are those of a causal sequence of 4,095: 32 tiles, of which there are 4.
    table = {"softmaxes": [heads // 8, heads // 2], "seq_len": [4096], "width": [128], "rates": rates}
    slow = calibrated(dag, attention={"float16": table})
    assert seconds(slow, attend) == pytest.approx(attend.flops / 100e12 + OVERHEAD)


@pytest.mark.parametrize("prompt", [16_384, 131_072, 1_048_576])
def test_a_chunk_behind_a_long_cache_keeps_as_many_sms_busy_as_behind_a_short_one(prompt: int) -> None:
    """2,048 query rows of 8 heads are 128 tiles, whatever they attend to: as 2 heads of the longest sequence have."""
    dag = dag_of(PAPER, 2, 1, "hosts=1", "devices_per_host=2", "layers=1", "workload.batch=1", "attention.head_dim=128",
                 "attention.softmax_slices=1", f"workload.seq_len={prompt}", "workload.output_len=2",
                 "workload.prefill_tokens=2048")  # fmt: skip
    attend = next(task for task in dag.tasks if task.kind == "cached_attention")
    _, rows, heads, _ = dag.value[attend.inputs[0]].shape
    assert (rows, heads) == (2048, 8)
    table = {"softmaxes": [1, 4], "seq_len": [8192], "width": [128], "rates": ["200 TFLOP/s", "800 TFLOP/s"]}
    takes = seconds(calibrated(dag, attention={"float16": table}), attend) - OVERHEAD
    assert attend.flops / takes == pytest.approx(400e12)


@pytest.mark.parametrize(("widest", "used"), [(128, False), (512, True)])
def test_a_table_of_narrow_softmaxes_says_nothing_of_the_kernel_for_wide_ones(widest: int, *, used: bool) -> None:
    whole = dag_of(PAPER, 4, 1, "attention.softmax_slices=1", data=4)
    table = {"seq_len": [1], "width": [widest], "rates": ["1 TFLOP/s"]}
    dag = calibrated(whole, attention={"float16": table})
    attend = next(task for task in dag.tasks if task.kind == "attention")
    assert dag.plan.model.attention.softmax_width == 512
    assert (seconds(dag, attend) == pytest.approx(attend.flops / 1e12 + OVERHEAD)) == used


def test_a_table_that_says_its_hosts_is_of_groups_on_so_many() -> None:
    """Eight ranks inside one host say nothing of eight on eight hosts, and the other way round."""
    paper = dag_of(PAPER, 4, 4)
    across, inside = paper.task["l0.concat.groups.s0"], paper.task["l0.concat.slices.g0"]  # four ranks each
    for hosts, used, other in ((1, inside, across), (2, across, inside)):
        table = {"kind": "all_gather", "ranks": 4, "hosts": hosts, "nbytes": [1000], "seconds": ["4 us"]}
        dag = calibrated(paper, collectives=[table])
        assert seconds(dag, used) == pytest.approx(4e-6 * used.nbytes / 1000)
        assert seconds(dag, other) == seconds(paper, other)
    spread = dag_of(PAPER, 4, 4, "hosts=4", "devices_per_host=4")
    table = {"kind": "all_gather", "ranks": 16, "hosts": 1, "nbytes": [1000], "seconds": ["4 us"]}
    gather = spread.task["l0.project.gather"]
    assert seconds(calibrated(spread, collectives=[table]), gather) == seconds(spread, gather)


def test_a_group_over_hosts_takes_as_long_as_its_ranks_inside_one() -> None:
    """As on GPUs without NVLink, where eight on a host are slower together than its network card."""
    paper = dag_of(PAPER, 4, 4)
    task = paper.task["l0.project.gather"]  # eight ranks on each of two hosts
    slow, quick = ({"kind": "all_gather", "ranks": 8, "nbytes": [1000], "seconds": [its]} for its in ("4 us", "1 ns"))
    assert seconds(calibrated(paper, collectives=[slow]), task) == pytest.approx(4e-6 * task.nbytes / 1000)
    assert seconds(calibrated(paper, collectives=[quick]), task) == seconds(paper, task)
    other = {**slow, "ranks": 4}
    assert seconds(calibrated(paper, collectives=[other]), task) == seconds(paper, task)


def test_of_an_all_to_all_over_hosts_a_part_stays_inside_one() -> None:
    paper = dag_of(PAPER, 4, 4)
    gather = paper.task["l0.project.gather"]
    task = replace(gather, op=AllToAll(split="head", gather="seq"))
    table = {"kind": "all_to_all", "ranks": 8, "nbytes": [1000], "seconds": ["4 us"]}
    assert seconds(calibrated(paper, collectives=[table]), task) == pytest.approx(4e-6 * task.nbytes * 7 / 15 / 1000)


def decode(cluster: ClusterSpec, **sizes: int) -> float:
    its = {"batch": 4, "heads": 32, "kv_heads": 8, "width": 128, "keys": 1024} | sizes
    return decode_attention_cost(cluster, "float16", **its).seconds


def test_a_cache_is_read_at_the_rate_of_its_table() -> None:
    table = {"caches": [8, 128], "keys": [1024], "width": [128], "rates": ["100 GB/s", "1.6 TB/s"]}
    cluster = calibrated(dag_of(PAPER, 4, 4), decode={"float16": table}).plan.cluster
    cached = 2 * 4 * 8 * 1024 * 128 * 2
    assert decode(cluster) == pytest.approx(cached / 400e9 + OVERHEAD)
    # More query heads, and a few new tokens, read it once.
    assert decode(cluster, heads=64) == decode(cluster, queries=4) == decode(cluster)
    # Very many of them are arithmetic.
    flops = 4 * 4 * 32 * 10_000 * 1024 * 128
    assert decode(cluster, queries=10_000) == pytest.approx(flops / (989e12 * 0.63) + OVERHEAD)


def test_a_cache_longer_than_any_that_was_measured_keeps_as_many_sms_busy_as_several() -> None:
    table = {"caches": [1, 16], "keys": [1024, 4096], "width": [128],
             "rates": ["100 GB/s", "200 GB/s", "1 TB/s", "1.6 TB/s"]}  # fmt: skip
    cluster = calibrated(dag_of(PAPER, 4, 4), decode={"float16": table}).plan.cluster
    one = 2 * 4096 * 128 * 2  # bytes of the keys and values of the longest
    rates = {1: 200e9, 4: (200e9 * 1.6e12) ** 0.5, 16: 1.6e12, 64: 1.6e12}
    for times, rate in rates.items():
        long = decode(cluster, batch=1, kv_heads=1, keys=4096 * times)
        assert long == pytest.approx(times * one / rate + OVERHEAD)
        assert long == pytest.approx(decode(cluster, batch=times, kv_heads=1, keys=4096))


def test_latents_are_read_at_the_rate_of_their_own_table() -> None:
    table = {"sequences": [4], "keys": [1024], "query_heads": [16, 64], "rates": ["1 TB/s", "400 GB/s"]}
    cluster = calibrated(dag_of(PAPER, 4, 4), latent_decode={"float16": table}).plan.cluster
    cached = 4 * 1024 * 576 * 2

    def seconds_of(heads: int, queries: int = 1, *, once: bool = True) -> float:
        return _Device(cluster.only, "float16").decode(4, heads, 1, (576, 512), 1024, queries, once=once).seconds

    assert seconds_of(8) == seconds_of(16) == pytest.approx(cached / 1e12)
    assert seconds_of(32) == pytest.approx(cached / (1e12 * 400e9) ** 0.5)
    assert seconds_of(32, queries=2) == seconds_of(64) == pytest.approx(cached / 400e9)
    # More of them than were measured are more arithmetic.
    assert seconds_of(256) == pytest.approx(4 * seconds_of(64))
    assert seconds_of(256, once=False) != seconds_of(256)


def test_a_cache_without_a_table_is_read_by_the_sms_that_have_a_piece() -> None:
    cluster = dag_of(PAPER, 4, 4).plan.cluster
    start = 6e-6 + OVERHEAD
    one = 2 * 1024 * 128 * 2  # bytes of the keys and values of one head
    assert decode(cluster, batch=1, kv_heads=1) == pytest.approx(start + one / (4 * 50e9))  # in four pieces
    assert decode(cluster, batch=2, kv_heads=1) == decode(cluster, batch=1, kv_heads=1)
    assert decode(cluster, batch=512) == pytest.approx(start + 512 * 8 * one / (3.35e12 * 0.8))


def test_a_cpu_reads_a_cache_at_the_bandwidth_of_its_memory() -> None:
    cost = decode_attention_cost(DAG.plan.cluster, "float32", batch=1, heads=4, kv_heads=4, width=32, keys=4096)
    assert cost.seconds == pytest.approx(
        max(2 * 4 * 4096 * 32 * 4 / (5e9 * 0.9), 4 * 4 * 4096 * 32 / (32e9 * 0.4)) + 1e-5
    )


EXPERTS = {"used": [1, 8], "rows": [1, 256, 4096], "hidden": [8192], "width": [32768], "ranks": [1, 16],
           "rates": [f"{r} TFLOP/s" for r in (1, 0.25, 100, 25, 400, 100, 2, 0.5, 200, 50, 800, 200)]}  # fmt: skip
ONE_ROW = 2 * 2 * 8192 * 32768  # operations of a row of an expert that has two matrices


def experts_s(*sets: str, groups: int = 1, stored: tuple[StoredSpec, ...] | None = None, **tables: Any) -> float:
    plan = plan_of(PAPER_MOE, groups, 1, "layers=1", "hosts=1", *sets, experts=groups)
    model = plan.model.model_copy(update={"stored": stored})
    dag = calibrated(
        lower(Plan.of(model, plan.cluster, plan.workload, plan.layout)), experts={"float16": EXPERTS}, **tables
    )
    return next(seconds(dag, task) for task in dag.tasks if task.kind == "experts") - OVERHEAD


def test_experts_by_those_that_have_rows_and_the_rows_of_one() -> None:
    """8 experts, of which a token has 2: 1,024 tokens are 256 rows of each; one token is a row of two."""
    one = "devices_per_host=1"
    assert experts_s(one) == pytest.approx(2048 * ONE_ROW / 200e12)
    rate = 1e12 * 2 ** (1 / 3)  # two of one to eight, in logarithms
    assert experts_s(one, "workload.batch=1") == pytest.approx(2 * ONE_ROW / rate)


def test_ranks_that_share_the_experts_pass_over_the_tokens_of_the_others() -> None:
    """Four ranks of two experts each: 512 of 2,048 rows are its own, 256 of an expert."""
    rate = 100e12 * 2 ** (1 / 3) * 0.25 ** (1 / 2)  # two experts of one to eight, four ranks of one to sixteen
    assert experts_s("devices_per_host=4", groups=4) == pytest.approx(512 * ONE_ROW / rate)


def test_quantised_experts_read_less_until_their_arithmetic_decides() -> None:
    """int4 with a scale of two bytes for 32: 4.5 bits of 16. Few rows read, many compute."""
    stored = (StoredSpec(weights=("w_up", "w_down"), number="int4", block=(1, 32), scale="float16"),)
    few, many = ("devices_per_host=1", "workload.batch=1"), ("devices_per_host=1", "workload.batch=16384")
    assert experts_s(*few, stored=stored) == pytest.approx(4.5 / 16 * experts_s(*few))
    assert experts_s(*many, stored=stored) == experts_s(*many)


FP8 = StoredSpec(weights=("w_q", "w_k", "w_v", "w_o", "w_up", "w_down"), number="float8", scale="float32",
                 activations="float8")  # fmt: skip
RATES = {"rows": [1, 4096], "columns": [1], "depth": [1], "rates": ["10 TFLOP/s", "500 TFLOP/s"]}


def product_s(stored: StoredSpec | None, batch: int, peak: dict[str, float] | None = None, **tables: Any) -> float:
    """Of a projection of 8,192 x 32,768 in float16, on one device."""
    sets = ("layers=1", "hosts=1", "devices_per_host=1", f"workload.batch={batch}")
    plan = plan_of(PAPER, 1, 1, *sets)
    model = plan.model.model_copy(update={"stored": (stored,) if stored else None})
    device = plan.cluster.device.model_copy(update={"peak": plan.cluster.device.peak | (peak or {})})
    cluster = plan.cluster.model_copy(update={"device": device})
    dag = lower(Plan.of(model, cluster, plan.workload, plan.layout))
    dag = calibrated(dag, matmul={"float16": RATES}, **tables)
    return seconds(dag, dag.task["l0.feed_forward.up.g0s0"]) - OVERHEAD


def test_a_product_of_quantised_numbers_has_the_rate_that_was_measured_of_them() -> None:
    factors = {"rows": [1, 4096], "columns": [1], "depth": [1], "rates": [1.5, 1.8]}
    tables = {"quantised": {"float8": {"matmul": factors}}}
    for batch, factor in ((1, 1.5), (4096, 1.8), (64, 1.5**0.5 * 1.8**0.5)):
        assert product_s(FP8, batch, **tables) == pytest.approx(product_s(None, batch) / factor)
    blocks = FP8.model_copy(update={"block": (128, 128)})
    assert product_s(blocks, 64, **tables) == product_s(FP8, 64, **tables)
    own = {"float8_blocks": {"matmul": factors | {"rates": [0.5, 0.5]}}}
    assert product_s(blocks, 64, quantised=tables["quantised"] | own) == pytest.approx(2 * product_s(None, 64))


def test_rates_of_quantised_products_count_before_factors_and_beside_no_rate_of_the_dtype() -> None:
    rates = RATES | {"columns": [32768], "depth": [8192], "rates": ["40 TFLOP/s", "900 TFLOP/s"]}
    factors = {"rows": [1, 4096], "columns": [1], "depth": [1], "rates": [1.5, 1.8]}
    tables = {"quantised": {"float8": {"products": rates, "matmul": factors}}}
    for batch, rate in ((1, 40e12), (4096, 900e12), (64, 40e12**0.5 * 900e12**0.5)):
        assert product_s(FP8, batch, **tables) == pytest.approx(2 * batch * 8192 * 32768 / rate)


def test_without_a_table_the_peaks_say_how_much_faster_it_is() -> None:
    assert product_s(FP8, 4096, {"float8": 2 * 989e12}) == pytest.approx(product_s(None, 4096) / (2 * 0.75))
    # A device without such products, and weights alone in fewer bits: the bytes are fewer, the arithmetic is not.
    weights_only = FP8.model_copy(update={"activations": None})
    for batch in (1, 4096):
        assert product_s(FP8, batch) == product_s(weights_only, batch, {"float8": 2 * 989e12})
    assert product_s(FP8, 16384) == pytest.approx(product_s(None, 16384))


def test_experts_of_quantised_numbers_have_factors_of_their_own() -> None:
    stored = (StoredSpec(weights=("w_up", "w_down"), number="float8", scale="float32", activations="float8"),)
    factors = {"rows": [1, 4096], "width": [1], "rates": [1.9, 1.2]}
    its = {"quantised": {"float8": {"experts": factors}}}
    for batch, factor in ((1, 1.9), (16384, 1.2)):
        sets = ("devices_per_host=1", f"workload.batch={batch}")
        assert experts_s(*sets, stored=stored, **its) == pytest.approx(experts_s(*sets) / factor)


@pytest.mark.parametrize(
    ("stored", "cluster", "said"),
    [
        (FP8, "h100:1", "; products of float8 weights in float8 as measured"),
        (FP8, "a100:1", "; products of float8 weights in float16, as NVIDIA A100-SXM4-80GB has no rate of float8"),
        (FP8.model_copy(update={"activations": None}), "h100:1", "; products of float8 weights in float16"),
        (None, "h100:1", "datasheet rates and default constants"),
    ],
)
def test_a_prediction_says_what_products_of_quantised_weights_are_of(
    stored: StoredSpec | None, cluster: str, said: str
) -> None:
    plan = plan_of(PAPER, 1, 1, "hosts=1", "devices_per_host=1")
    model = plan.model.model_copy(update={"stored": (stored,) if stored else None})
    assert foundation(model, load_cluster(cluster)).endswith(said)
