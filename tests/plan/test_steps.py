"""The steps of a plan: which tokens each takes, and how the positions of the cache are dealt."""

from __future__ import annotations

import pytest

from helixctl.plan import Layout, illegalities
from helixctl.plan.layout import full_extents
from helixctl.plan.sharding import Shares
from helixctl.plan.steps import chunk, step_of, steps_of
from helixctl.spec import Step, WorkloadSpec
from tests.documents import SMALL, specs


def work(**fields: int) -> WorkloadSpec:
    return WorkloadSpec.model_validate({"batch": 64, "seq_len": 4096, "output_len": 512, "logits": "last", **fields})


def test_one_pass_has_one_step_and_a_generation_two() -> None:
    one, layout = WorkloadSpec(batch=3, seq_len=5), Layout(groups=1, slices=1)
    assert steps_of(one) == ("pass",)
    assert step_of(one, layout) == Step("pass", 3, 5, "all")
    assert steps_of(work()) == ("prefill", "decode")
    with pytest.raises(ValueError, match="no step decode; the steps are pass"):
        step_of(one, layout, "decode")


@pytest.mark.parametrize(
    ("data", "prefill_tokens", "tokens"),
    [(1, 8192, 128), (2, 8192, 256), (64, 8192, 4096), (1, 64, 1), (1, 1, 1), (1, 1000, 15), (1, 1100, 16)],
)
def test_the_sequences_of_a_replica_go_on_together(data: int, prefill_tokens: int, tokens: int) -> None:
    """As many tokens of each as the step may have, in whole blocks of the cache where it may have one."""
    workload, layout = work(prefill_tokens=prefill_tokens), Layout(groups=1, slices=1, data=data)
    assert chunk(workload, layout) == tokens
    assert step_of(workload, layout, "prefill").seq_len == tokens
    assert step_of(workload, layout, "decode").seq_len == 1


def test_predictions_are_of_the_mean_step() -> None:
    layout, workload = Layout(groups=1, slices=1), work()
    prefill, decode = (step_of(workload, layout, name) for name in ("prefill", "decode"))
    assert prefill.cached == sum(range(0, 4096, 128)) // 32
    assert decode.cached == 4096 + sum(range(511)) // 511
    assert prefill.positions == decode.positions == 4608


@pytest.mark.parametrize(("slices", "block"), [(1, 16), (2, 16), (3, 16), (4, 5), (8, 1)])
def test_every_position_has_one_place(slices: int, block: int) -> None:
    """The lanes of all slices hold each position once, and no more positions than a turn of all lanes beside them."""
    model, _, _ = specs(SMALL, "attention.softmax_slices=1", "attention.head_dim=16", "attention.kv_heads=1")
    layout = Layout(groups=1, slices=slices, slicing="key", key_block=block)
    step = step_of(work(seq_len=100, output_len=7), layout, "decode")
    extents = full_extents(model, step)
    cycles, lanes, size = (extents[dim] for dim in ("key_cycle", "key_lane", "key_offset"))
    assert (lanes, size) == (slices, block)
    assert 107 <= cycles * lanes * size < 107 + lanes * size
    shares = Shares(layout, model, step)
    held = []
    for rank in range(slices):
        (first, last) = shares.cut(shares.of("k_cache").made, rank).get("key_lane", (0, 1))
        held += [(c * lanes + j) * size + o for c in range(cycles) for j in range(first, last) for o in range(size)]
    assert sorted(held) == list(range(cycles * lanes * size))


def test_which_slicings_a_cache_has() -> None:
    model, _, _ = specs(SMALL, "attention.softmax_slices=1")
    query, key = (Layout(groups=1, slices=2, slicing=name) for name in ("query", "key"))
    one = WorkloadSpec(batch=4, seq_len=8)
    assert illegalities(query, model, one, 2) == []
    assert illegalities(query, model, work(), 2) == ["2 slices by query rows would cut no KV cache; by key they do"]
    assert illegalities(key, model, work(), 2) == []
    assert illegalities(key, model, one, 2) == ["2 slices of a KV cache, and one pass has none"]
    stream = Layout(groups=4, slices=1, residual="sharded")
    assert illegalities(stream, model, work(), 4) == []
    assert illegalities(stream, model, work(batch=3), 4) == ["4 shares of a residual stream of 1 rows in 3 sequences"]


def test_fields_that_came_later_are_left_out_of_documents() -> None:
    assert "output_len" not in WorkloadSpec().model_dump()
    assert "key_block" not in Layout(groups=1, slices=1).model_dump()
    assert work().model_dump()["output_len"] == 512
