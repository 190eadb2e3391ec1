"""The compiled program: right numbers for every layout and dtype, no copy of what is gathered, buffers used again."""

from __future__ import annotations

import pytest
import torch

from helixctl.dag import AllGather, AllReduce, Attention
from helixctl.dag.function import hidden_states
from helixctl.dag.retype import retyped
from helixctl.lower.builder import Builder
from helixctl_runtime.compile.bound import Compute, Exchange, Wait
from helixctl_runtime.kernels import attention
from tests.documents import SMALL, TINY, dag_of, plan_of
from tests.lower.test_lower import AXES
from tests.runtime.together import computes, run_together
from tests.runtime.unusual import attend, distribute, project

LAYOUTS = [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4), (4, 2), (8, 1), (4, 4), (16, 1), (8, 2)]


# In each run a layout has one dtype, by turns, and in the sweep the others.
DTYPES = ("float32", "float16", "bfloat16")


@pytest.mark.parametrize(
    ("groups", "slices", "dtype"),
    [
        pytest.param(*layout, dtype, marks=() if i % len(DTYPES) == j else pytest.mark.sweep)
        for i, layout in enumerate(LAYOUTS)
        for j, dtype in enumerate(DTYPES)
    ],
)
def test_every_layout_computes_the_model(groups: int, slices: int, dtype: str) -> None:
    ran = run_together(retyped(dag_of(SMALL, groups, slices, "layers=2"), dtype))
    assert len(ran.outputs) == groups * slices
    assert 0 < ran.error <= 2 * ran.unpartitioned
    assert all(torch.equal(ran.outputs[0], other) for other in ran.outputs)


@pytest.mark.parametrize(
    "sets",
    [
        ("attention.causal=true",),
        ("attention.softmax_slices=16", "attention.causal=true"),
        ("feed_forward.activation=silu",),
        ("feed_forward.activation=relu",),
        ("hidden_size=480", "attention.head_dim=24"),
        ("workload.seq_len=1",),
        ("workload.batch=1", "workload.seq_len=37"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_models(sets: tuple[str, ...], dtype: str) -> None:
    ran = run_together(retyped(dag_of(SMALL, 2, 2, "layers=2", *sets), dtype))
    assert 0 < ran.error <= 2 * ran.unpartitioned


def test_16_softmax_slices_give_one_output_for_all_five_partitions() -> None:
    outputs = [
        run_together(dag_of(SMALL, g, 16 // g, "layers=2", "attention.softmax_slices=16")).outputs[0]
        for g in (1, 2, 4, 8, 16)
    ]
    assert all(torch.allclose(outputs[0], other, rtol=1e-5, atol=1e-5) for other in outputs)


def test_the_paper_s_softmax_is_another_function() -> None:
    """The tolerance tells functions apart: the same weights with one softmax per head are far away."""
    sliced = run_together(dag_of(SMALL, 4, 1, "layers=1"))
    whole = run_together(dag_of(SMALL, 4, 1, "layers=1", "attention.softmax_slices=1"))
    distance = torch.linalg.vector_norm(sliced.outputs[0] - whole.outputs[0]) / torch.linalg.vector_norm(
        whole.outputs[0]
    )
    assert float(distance) > 1000 * sliced.error


def test_a_sliced_head_equals_narrower_heads() -> None:
    """softmax_slices = s is, to the bit, attention with s times as many heads of head_dim / s."""
    q, k, v = torch.randn(3, 2, 5, 4, 8)
    sliced, narrow = torch.empty(2, 5, 4, 8), torch.empty(2, 5, 16, 2)
    attention(Attention(2, causal=False), (q, k, v), 0, sliced)()
    attention(Attention(2, causal=False), [t.reshape(2, 5, 16, 2) for t in (q, k, v)], 0, narrow)()
    assert torch.equal(sliced.reshape(2, 5, 16, 2), narrow)


def test_float64_agrees_to_rounding() -> None:
    assert run_together(dag_of(SMALL, 4, 4, "dtype=float64", "layers=2")).error < 1e-14


def test_a_run_depends_on_the_seed_and_on_nothing_else() -> None:
    dag = dag_of(SMALL, 2, 2, "layers=1")
    once, again, other = (run_together(dag, seed=s, steps=n).outputs[0] for s, n in ((0, 1), (0, 3), (1, 1)))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_what_is_gathered_is_not_copied() -> None:
    """A 4 x 4 step computes exactly one kernel per compute task: no rearranging between gather and product."""
    dag = dag_of(SMALL, 4, 4)
    program = run_together(dag, steps=1).programs[5]
    kernels = [a for a in program.actions if isinstance(a, Compute)]
    assert len(kernels) == sum(not dag.task[name].is_collective for name in dag.order[5])
    reduces = [a for a in program.actions if isinstance(a, Exchange) and isinstance(a.task.op, AllReduce)]
    assert len(reduces) == 4
    assert all(a.send.data_ptr() == a.receive.data_ptr() for a in reduces)


def test_every_collective_is_waited_for_once_and_before_its_use() -> None:
    program = run_together(dag_of(SMALL, 4, 4, "layers=2"), steps=1).programs[0]
    issued = [a for a in program.actions if isinstance(a, Exchange)]
    waits = [a.exchange for a in program.actions if isinstance(a, Wait)]
    assert waits == issued
    for exchange in issued:
        assert program.actions.index(exchange) < [getattr(a, "exchange", None) for a in program.actions].index(exchange)


def test_buffers_are_used_again_from_layer_to_layer() -> None:
    two, four = (run_together(dag_of(SMALL, 4, 1, f"layers={n}"), steps=1).programs[0].buffer_nbytes for n in (2, 4))
    assert two == four


def gathered_feed_forward(b: Builder, layer: int) -> None:
    """Not ours: the activation is gathered, and every rank makes all of ``down`` from a whole ``w_down``."""
    p = f"l{layer}."
    for rank in b.ranks:
        cut = b.cut(b.shares.of("w_up").made, rank)
        b.own(p + "feed_forward_norm", rank)
        b.own(p + "w_up", rank, cut)
        b.own(p + "w_down", rank)
        b.compute("feed_forward", "norm", rank, p + "feed_forward_in")
        b.compute("feed_forward", "up", rank, p + "up", cut)
        b.compute("feed_forward", "activation", rank, p + "activated", cut)
    b.collective(layer, "feed_forward", "gather", AllGather("ffn"), b.ranks, p + "activated", "full")
    for rank in b.ranks:
        b.compute("feed_forward", "down", rank, p + "down")
        b.compute("feed_forward", "add", rank, hidden_states(b.model, layer + 1))


def test_a_gathered_piece_in_another_order_is_laid_out_again() -> None:
    builder = Builder(plan_of(SMALL, 2, 1, *TINY, "dtype=float64"))
    for level in (distribute, attend, project, gathered_feed_forward):
        level(builder, 0)
    dag = builder.build()
    assert computes(dag)
    ran = run_together(dag, steps=1)
    assert ran.error < 1e-14
    kernels = [a for a in ran.programs[0].actions if isinstance(a, Compute)]
    assert len(kernels) == sum(t.ranks == (0,) for t in dag.tasks) + 1


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize(("groups", "slices"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_every_axis_computes_the_model(groups: int, slices: int, axes: dict[str, int | str]) -> None:
    ran = run_together(dag_of(SMALL, groups, slices, "layers=2", **axes))
    assert 0 < ran.error <= 2 * ran.unpartitioned


def test_half_precision_with_stages_and_sums() -> None:
    axes = {"combine": "reduce", "pipeline": 2, "microbatches": 2}
    ran = run_together(retyped(dag_of(SMALL, 4, 1, **axes), "float16"))
    assert 0 < ran.error <= 2 * ran.unpartitioned
