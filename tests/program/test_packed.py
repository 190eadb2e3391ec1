"""Packed exchanges: what is copied for them, what they bring, and that all ranks have one idea of what they send."""

from __future__ import annotations

import pytest

from helixctl.dag import AllGather, AllToAll, Dag, Packed
from helixctl.dag.ops import wire_kind
from helixctl.dag.retype import retyped
from helixctl.lower import lower
from helixctl.plan import Plan
from helixctl.program import Copy, Exchange, Program, Wait, program_of
from helixctl.spec import DTYPE_NBYTES, Dtype, StepName, WorkloadSpec
from helixctl.verify import verify
from tests.runtime.models import REAL, merged, plan_for

BARE = merged(REAL, {"layers": 1, "attention": {"qkv_bias": False, "qk_norm": False}})


def step_of(
    groups: int = 2, slices: int = 2, step: StepName = "decode", dtype: str = "bfloat16", batch: int = 4, **axes: object
) -> Dag:
    plan = plan_for(merged(BARE, {"dtype": dtype}), (batch, 5), groups, slices, **{"slicing": "key", **axes})
    work = WorkloadSpec(batch=batch, seq_len=5, output_len=6, prefill_tokens=12)
    return lower(Plan.of(plan.model, plan.cluster, work, plan.layout), step=step)


def packed_of(program: Program, name: str) -> tuple[Exchange, list[Copy], list[Copy]]:
    """A packed exchange, the copies that it takes, and those that unpack it."""
    copies = [action for action in program.actions if isinstance(action, Copy)]
    found = next(a for a in program.actions if isinstance(a, Exchange) and f".{name}" in a.task.id)
    ahead = [c for c in copies if c.place == found.place and c.unpacks is None]
    return found, ahead, [c for c in copies if c.unpacks == found.place]


def test_a_decode_step_by_key_has_two_exchanges_in_attention() -> None:
    packed = [task for task in step_of().tasks if isinstance(task.op, Packed)]
    assert [(task.id, task.level) for task in packed] == [
        ("l0.exchange.q_k_v.g0", "exchange"),
        ("l0.exchange.q_k_v.g1", "exchange"),
        ("l0.attend.part_lse.g0", "attend"),
        ("l0.attend.part_lse.g1", "attend"),
        ("l0.head.best_logit_best_token", "head"),
    ]
    assert packed[0].op == Packed((AllGather("head_dim"),) * 3)
    assert packed[2].op == Packed((AllToAll("head_dim", "key_lane"), AllGather("key_lane")))
    assert [wire_kind(task.op) for task in packed] == ["all_gather"] * 2 + ["all_to_all"] * 2 + ["all_gather"]


def test_a_pass_has_none() -> None:
    plan = plan_for(BARE, (4, 5), 2, 2, slicing="query")
    assert not any(isinstance(task.op, Packed) for task in lower(plan).tasks)


@pytest.mark.parametrize("batch", [1, 4])
def test_columns_of_one_product_are_sent_as_they_lie_and_read_where_they_arrive(batch: int) -> None:
    """Nothing is copied for the exchange of q, k and v, however many rows there are."""
    for rank in range(4):
        found, ahead, behind = packed_of(program_of(step_of(batch=batch), rank), "q_k_v")
        assert (ahead, behind) == ([], [])
        assert found.receive.numel == 2 * found.send.numel


def test_partial_softmaxes_take_a_copy_each_and_none_behind() -> None:
    dag = step_of()
    found, ahead, behind = packed_of(program_of(dag, 0), "part_lse")
    assert [len(copy.pairs) for copy in ahead] == [2]
    assert behind == []
    assert found.leave == found.arrive
    sent = [dag.value[name] for name in found.task.inputs if dag.value[name].rank == 0]
    part, lse = (value.nbytes for value in sent)
    words = -(-part // 2 // 8) + -(-lse // 8)  # to each of two ranks half of the dims, and all sums
    assert found.leave == (words, words)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize(
    "axes", [{"slices": 3, "groups": 1}, {"slices": 4}, {"slicing": "batch", "slices": 3}], ids=str
)
@pytest.mark.parametrize("step", ["prefill", "decode"])
def test_all_ranks_agree_on_what_is_sent(step: StepName, axes: dict[str, object], dtype: str) -> None:
    """Of pieces of all sizes: heads of 10 dims over 3 or 4 slices, sequences 4 over 3."""
    dag = step_of(step=step, dtype=dtype, **axes)  # type: ignore[arg-type]
    assert not verify(dag)
    programs = [program_of(dag, rank) for rank in range(len(dag.order))]
    seen = 0
    for task in dag.tasks:
        if not isinstance(task.op, Packed):
            continue
        its = [_exchange(programs[rank], task.id) for rank in task.ranks]
        seen += 1
        for at, exchange in enumerate(its):
            assert {exchange.send.dtype, exchange.receive.dtype} == {"int64"}
            if wire_kind(task.op) == "all_to_all":
                assert exchange.arrive == tuple(other.leave[at] for other in its)
            else:
                assert exchange.receive.numel == len(its) * its[0].send.numel == len(its) * exchange.send.numel
    assert seen


def _exchange(program: Program, task: str) -> Exchange:
    return next(a for a in program.actions if isinstance(a, Exchange) and a.task.id == task)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_every_part_begins_where_its_dtype_can(dtype: str) -> None:
    """Of odd numbers of elements too: best_logit of three sequences is 12 bytes, best_token begins at the 16th."""
    dag = step_of(batch=3, dtype=dtype)
    for rank in range(4):
        program = program_of(dag, rank)
        _, (copy,), _ = packed_of(program, "best_logit")
        starts = [target.start * DTYPE_NBYTES[target.dtype] for target, _ in copy.pairs]
        assert starts == [0, 16]


def test_a_packed_exchange_is_waited_for_once() -> None:
    for rank in range(4):
        program = program_of(step_of(), rank)
        waits = [action.place for action in program.actions if isinstance(action, Wait)]
        assert sorted(waits) == sorted({a.place for a in program.actions if isinstance(a, Exchange)})


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_a_packed_exchange_in_another_dtype(dtype: Dtype) -> None:
    """Its tensors keep their own dtypes: sums in float32, tokens as they are."""
    dag = retyped(step_of(), dtype)
    assert not verify(dag)
    wide = "float64" if dtype == "float64" else "float32"
    dtypes = {value.tensor.rpartition(".")[2]: value.dtype for value in dag.values}
    assert (dtypes["q"], dtypes["attention_lse"], dtypes["best_logit"], dtypes["best_token"]) == (
        dtype, wide, wide, "int64",
    )  # fmt: skip
