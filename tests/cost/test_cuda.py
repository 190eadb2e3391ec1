"""Attention, experts and routing on CUDA without a calibration: held against arithmetic by hand."""

from __future__ import annotations

from math import ceil

import pytest

from helixctl.cost import constants as c
from helixctl.cost.compute import _Device
from helixctl.cost.tasks import seconds
from helixctl.dag import Dag
from tests.documents import PAPER, PAPER_MOE, dag_of

ONE = ("layers=1", "devices_per_host=1", "hosts=1")
PEAK, STREAMING = 989e12, 3.35e12 * 0.9


def attend_s(dag: Dag, copied: int) -> float:
    """Of the kernel alone: without the start of a task and the copy of what it makes."""
    task = next(task for task in dag.tasks if task.kind == "attention")
    return seconds(dag, task) - c.TASK_OVERHEAD.value - 2 * copied / STREAMING


@pytest.mark.parametrize(
    ("how", "kept", "sorts"), [("temperature=1", 4096, False), ("top_k=64", 64, True), ("top_p=0.9", 4096, True)]
)
def test_a_draw_streams_its_logits_as_often_as_its_calls_do(how: str, kept: int, sorts: bool) -> None:
    """450 bytes for every token that is kept, 160 for every logit that is sorted, and the starts of 60 calls."""
    sizes = ("vocabulary.size=4096", "workload.batch=8", "workload.seq_len=4", "workload.output_len=4")
    dag = dag_of(PAPER, 1, 1, *ONE, *sizes, f"workload.sampling.{how}")
    task = next(task for task in dag.tasks if task.kind == "sample")
    nbytes = 8 * kept * 450 + (8 * 4096 * 160 if sorts else 0)
    assert seconds(dag, task) == pytest.approx(60 * c.TASK_OVERHEAD.value + nbytes / STREAMING, rel=1e-9)


def test_attention_over_one_token_is_as_many_tiles_as_heads_and_sequences() -> None:
    dag = dag_of(PAPER, 4, 4)
    tiles = 1024 * 4  # of 16 heads a group has 4, each rank a softmax of each
    assert attend_s(dag, tiles * 128 * 2) == pytest.approx(ceil(tiles / 132) * 2.6e-6, rel=1e-9)


def test_the_rate_of_attention_grows_with_the_keys() -> None:
    """Half of the share at 194 keys. 4 softmaxes of 128 dims, 2 sequences: 16 tiles of 128 rows each."""
    dag = dag_of(PAPER, 4, 4, "workload.batch=2", "workload.seq_len=2048")
    flops, tiles = 4 * 2 * 4 * 2048 * 2048 * 128, 2 * 4 * 16
    waves = ceil(tiles / 132) * 132 / tiles
    by_hand = flops / (PEAK * 0.63 * 2048 / (2048 + 194)) * waves
    assert attend_s(dag, 2 * 4 * 2048 * 128 * 2) == pytest.approx(by_hand, rel=1e-9)


def test_a_causal_row_sees_half_of_the_keys() -> None:
    plain, causal = (
        dag_of(PAPER, 4, 4, "workload.batch=64", "workload.seq_len=2048", f"attention.causal={value}")
        for value in ("false", "true")
    )
    copied = 64 * 4 * 2048 * 128 * 2
    ratio = attend_s(causal, copied) / attend_s(plain, copied)
    assert ratio == pytest.approx((2049 / 2 + 194) / (2048 + 194), rel=1e-6)


@pytest.mark.parametrize(
    ("width", "share"), [(32, 0.225), (64, 0.45), (80, 0.45), (128, 0.63), (256, 0.69), (512, 0.14)]
)
def test_the_share_is_that_of_the_nearest_width(width: int, share: float) -> None:
    slices = 512 // width
    sizes = ("workload.batch=64", "workload.seq_len=8192")
    heads = f"attention.head_dim={width}" if slices * width != 512 else f"attention.softmax_slices={slices}"
    dag = dag_of(PAPER, 1, 1, *ONE, *sizes, heads, *([] if slices * width == 512 else ["attention.softmax_slices=1"]))
    task = next(task for task in dag.tasks if task.kind == "attention")
    copied = dag.value[task.outputs[0]].nbytes
    rate = task.flops / attend_s(dag, copied)
    assert rate / PEAK * (8192 + 194) / 8192 == pytest.approx(share, rel=2e-3)  # the last wave is not full


def experts_s(dag: Dag) -> float:
    return next(seconds(dag, task) for task in dag.tasks if task.kind == "experts")


def test_grouped_products_take_half_a_tile_more_of_every_expert() -> None:
    """8 experts of 256 rows each: 2.5 tiles of 128, whole waves of all of them together."""
    device = _Device(dag_of(PAPER_MOE, 1, 1, *ONE, "dtype=bfloat16").plan.cluster, "bfloat16")
    cost = device.grouped(8, 2048, 14336, 4096, weight_nbytes=1)
    waves = ceil(8 * 2.5 * 56 / 132)
    by_hand = waves * 132 * 2 * 128 * 256 * 4096 / (PEAK * c.MATMUL_SHARE.value * 0.9)
    assert cost.seconds == pytest.approx(by_hand, rel=1e-9)


def test_few_rows_take_the_reading_of_the_weights() -> None:
    device = _Device(dag_of(PAPER_MOE, 1, 1, *ONE, "dtype=bfloat16").plan.cluster, "bfloat16")
    cost = device.grouped(8, 32, 14336, 4096, weight_nbytes=14336 * 4096 * 2)
    assert cost.seconds == pytest.approx(8 * 14336 * 4096 * 2 / (3.35e12 * 0.63), rel=1e-9)


def test_many_small_experts_pay_for_every_launch_unless_they_are_grouped() -> None:
    sizes = (*ONE, "feed_forward.experts.count=128", "hidden_size=2048", "feed_forward.intermediate_size=768")
    half, brain = (dag_of(PAPER_MOE, 1, 1, *sizes, f"dtype={dtype}") for dtype in ("float16", "bfloat16"))
    assert experts_s(half) - experts_s(brain) > 128 * c.TASK_OVERHEAD.value


def test_a_route_sorts_every_token() -> None:
    dag = dag_of(PAPER_MOE, 1, 1, *ONE)
    more = dag_of(PAPER_MOE, 1, 1, *ONE, "workload.batch=1048576")
    first, second = (next(seconds(d, t) for t in d.tasks if t.kind == "route") for d in (dag, more))
    assert second - first > (1048576 - 1024) * c.SORTED_ROW.value
