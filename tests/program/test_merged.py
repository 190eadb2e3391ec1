"""An activation is merged into the product behind it where nobody else needs what it makes, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch

from helixctl.dag import Dag, Multiply, Task
from helixctl.dag.retype import retyped
from helixctl.lower import lower
from helixctl.program import Compute, kernels, program_of
from helixctl.program import merged as merged_of
from helixctl_runtime.compile import compile_rank
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.measure.walk import fused, walk_together
from helixctl_runtime.tensors.tensor_source import TensorSource
from tests.program.models import LARGE, TINY, every_plan
from tests.runtime.models import real

ACTIVATION, PRODUCT = "l0.feed_forward.activation.g0s0", "l0.feed_forward.multiply.g0s0"
OUTPUT_GATE = {"attention": {"output_gate": True}}


@contextmanager
def without_merging() -> Iterator[None]:
    with patch("helixctl.program.merged.PAIRS", ()):
        yield


def test_one_kernel_computes_both() -> None:
    dag = real(1, 1, {"layers": 1})
    assert merged_of(dag, 0) == {PRODUCT: dag.task[ACTIVATION]}
    assert kernels(dag, 0) == {ACTIVATION: "next", PRODUCT: "both"}
    program = program_of(dag, 0)
    computed = {action.task.id: action for action in program.actions if isinstance(action, Compute)}
    assert computed.keys() == {task.id for task in dag.tasks} - {ACTIVATION}
    its, matrix = computed[PRODUCT], computed["l0.feed_forward.up.g0s0"].writes[0]
    assert its.merged == dag.task[ACTIVATION]
    gate, up = its.reads
    assert (gate.block, gate.start, up.block, up.start) == (matrix.block, 0, matrix.block, 41)


def test_so_is_the_gate_of_what_attention_makes() -> None:
    """The sigmoid is the second operand of the product."""
    dag = real(1, 1, {"layers": 1, **OUTPUT_GATE})
    assert merged_of(dag, 0)["l0.attend.gate.g0s0"] == dag.task["l0.attend.sigmoid.g0s0"]


def test_an_activation_without_a_product_is_a_kernel() -> None:
    assert merged_of(real(1, 1, {"feed_forward": {"gated": False}}), 0) == {}


def with_task(dag: Dag, task: Task) -> Dag:
    """The dag with another task in the place of the one with its id."""
    return replace(dag, tasks=tuple(task if task.id == t.id else t for t in dag.tasks))


def read_by_another(dag: Dag) -> Dag:
    product = dag.task[PRODUCT]
    made = replace(dag.value[product.outputs[0]], id="another")
    task = replace(product, id="another", outputs=("another",))
    order = (*dag.order[0], task.id)
    return replace(dag, values=(*dag.values, made), tasks=(*dag.tasks, task), order=(order,))


def read_twice(dag: Dag) -> Dag:
    (value,) = dag.task[ACTIVATION].outputs
    return with_task(dag, replace(dag.task[PRODUCT], inputs=(value, value)))


def not_at_once(dag: Dag) -> Dag:
    order = list(dag.order[0])
    order.remove("l0.distribute.norm.g0s0")
    order.insert(order.index(PRODUCT), "l0.distribute.norm.g0s0")
    return replace(dag, order=(tuple(order),))


def an_output(dag: Dag) -> Dag:
    tensors = tuple(replace(t, role="output") if t.name == "l0.activated" else t for t in dag.tensors)
    return replace(dag, tensors=tensors)


def of_two_dtypes(dag: Dag) -> Dag:
    (value,) = dag.task[ACTIVATION].outputs
    values = tuple(replace(v, dtype="float16") if v.id == value else v for v in dag.values)
    return replace(dag, values=values)


@pytest.mark.parametrize("change", [read_by_another, read_twice, not_at_once, an_output, of_two_dtypes])
def test_what_others_need_is_not_merged(change: Callable[[Dag], Dag]) -> None:
    dag = real(1, 1, {"layers": 1})
    assert merged_of(dag, 0)
    assert merged_of(change(dag), 0) == {}


def outputs(dag: Dag) -> list[torch.Tensor]:
    numbers, cpu = TensorSource(0, None, None), torch.device("cpu")
    programs = [
        compile_rank(dag, rank, cpu, lambda v: numbers.value(dag, v, TORCH[v.dtype], cpu))
        for rank in range(len(dag.order))
    ]
    with torch.inference_mode(), fused(programs):
        walk_together(dag, programs)()
    return [data for program in programs for data in program.outputs.values()]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("changes", [{}, OUTPUT_GATE, {"feed_forward": {"activation": "gelu_tanh"}}])
def test_the_bits_are_those_of_two_kernels(changes: dict[str, object], dtype: str) -> None:
    dag = retyped(real(2, 1, changes, microbatches=2), dtype)  # type: ignore[arg-type]
    both = outputs(dag)
    with without_merging():
        assert all(action.merged is None for action in program_of(dag, 0).actions if isinstance(action, Compute))
        apart = outputs(dag)
    assert all(map(torch.equal, both, apart))


def test_a_task_between_them_changes_no_bit() -> None:
    """An order that ``lower`` does not make: the second microbatch begins between the two."""
    dag = real(1, 1, microbatches=2)
    order = list(dag.order[0])
    product = next(name for name in order if isinstance(dag.task[name].op, Multiply))
    order.insert(order.index(product), order.pop(order.index("l0.embed.lookup.g0s0.b1")))
    late = replace(dag, order=(tuple(order),))
    assert merged_of(dag, 0).keys() - merged_of(late, 0).keys() == {product}
    assert all(map(torch.equal, outputs(dag), outputs(late)))


@pytest.mark.parametrize("name", TINY)
def test_it_takes_no_more_memory(name: str) -> None:
    tried = 0
    for devices, step in {1: 1, 2: 23, 4: 199}.items():
        for plan in every_plan(TINY[name], (7, 8, "last"), devices, large=False, step=step):
            dag = lower(plan)
            less = [program_of(dag, rank).nbytes for rank in range(devices)]
            with without_merging():
                more = [program_of(dag, rank).nbytes for rank in range(devices)]
            assert all(a <= b for a, b in zip(less, more, strict=True)), plan.layout
            tried += 1
    assert tried > 3


def test_it_takes_no_more_memory_in_real_models() -> None:
    for name in ("llama", "qwen2"):
        for plan in every_plan(LARGE[name], (8, 2048, "last"), 8, large=True, step=97):
            dag = lower(plan)
            less = program_of(dag, 0).nbytes
            with without_merging():
                assert less <= program_of(dag, 0).nbytes, plan.layout
