"""The runtime against tests/interpreter.py, which was written from docs/formats.md alone, on dags of random specs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helixctl.dag import Dag
from helixctl.dag.retype import retyped
from helixctl.plan.layout import MESH_AXES
from helixctl.verify import verify
from helixctl_runtime.reference import evaluate
from helixctl_runtime.seeded import seeded_numbers
from tests.documents import PAPER, SMALL, SMALL_MOE, dag_of
from tests.interpreter import execute
from tests.runtime.together import run_together


def interpreted(dag: Dag) -> dict[str, np.ndarray]:
    """Every value of a dag by the interpreter, from the document's text."""
    return execute(json.loads(dag.to_json()))


def reference(dag: Dag) -> np.ndarray:
    return evaluate(dag.plan, lambda t: seeded_numbers(t, t.full, 0, torch.float64), torch.float64).numpy()


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_small_twin(dtype: str) -> None:
    dag = retyped(dag_of(SMALL, 4, 4, "layers=1"), dtype)
    ran, numbers = run_together(dag, steps=1), interpreted(dag)
    for rank, output in enumerate(ran.outputs):
        mine = numbers[f"output@{rank}"].astype(np.float64)
        assert distance(output.double().numpy(), mine) <= 2 * ran.unpartitioned


@st.composite
def small_dags(draw: st.DrawFn) -> Dag:
    """A dag of a random small model on a random legal layout."""
    groups, slices = draw(st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2), (3, 1), (1, 3), (3, 2)]))
    parts = slices * draw(st.integers(1, 2))  # softmax slices
    devices = groups * slices
    data, pipeline, microbatches, turns = (draw(st.integers(1, 2)) for _ in range(4))
    ways = draw(st.sampled_from([way for way in range(1, devices + 1) if devices % way == 0]))
    experts = draw(st.booleans())
    count = ways * draw(st.integers(1, 2)) + (ways == 1)
    mixture = (f"feed_forward.experts.count={count}", f"feed_forward.experts.top_k={draw(st.integers(1, count))}")
    return dag_of(
        SMALL_MOE if experts else SMALL, groups, slices,
        f"layers={pipeline * draw(st.integers(1, 2))}",
        f"hidden_size={devices * draw(st.integers(1, 3))}",
        f"attention.heads={groups * draw(st.integers(1, 2))}",
        f"attention.head_dim={parts * draw(st.integers(1, 3))}",
        f"attention.softmax_slices={parts}",
        f"attention.causal={draw(st.sampled_from(['true', 'false']))}",
        f"feed_forward.intermediate_size={devices * draw(st.integers(1, 3))}",
        f"feed_forward.activation={draw(st.sampled_from(['gelu', 'relu', 'silu']))}",
        f"workload.batch={data * microbatches * turns * draw(st.integers(1, 2))}",
        f"workload.seq_len={draw(st.integers(1, 4))}",
        "dtype=float64",
        *(mixture if experts else ()),
        data=data, pipeline=pipeline, microbatches=microbatches * turns, interleave=turns,
        experts=ways if experts else 1,
        placement="-".join(draw(st.permutations(MESH_AXES))),
        reduction_dtype=draw(st.sampled_from(["accumulator", "model"])),
        combine=draw(st.sampled_from(["concat", "reduce"])),
        gather_order=draw(st.sampled_from(["slices_first", "groups_first"])),
    )  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(small_dags())
def test_random_specs_are_proved_and_computed(dag: Dag) -> None:
    """Spec -> plan -> lower -> verify is clean; interpreter, runtime and reference agree on every rank."""
    assert verify(dag) == []
    expected, numbers = reference(dag), interpreted(dag)
    for program in run_together(dag, steps=1).programs:
        for name, buffer in program.outputs.items():
            part = expected[tuple(slice(*interval) for interval in dag.value[name].region)]
            assert distance(numbers[name], part) < 1e-12
            assert distance(buffer.data.numpy(), part) < 1e-12


def test_every_value_of_the_paper_s_layout_holds_its_region() -> None:
    """Not the output alone: values of one tensor agree wherever their regions meet."""
    dag = dag_of(SMALL, 4, 4, "layers=1", "dtype=float64", "workload.batch=2")
    numbers = interpreted(dag)
    for tensor in dag.tensors:
        values = [v for v in dag.values if v.tensor == tensor.name and not v.partial]
        whole = np.full(tensor.shape, np.nan)
        for v in sorted(values, key=lambda v: -v.numel):
            place = tuple(slice(*interval) for interval in v.region)
            if np.isnan(whole[place]).all():
                whole[place] = numbers[v.id]
            assert np.allclose(whole[place], numbers[v.id], rtol=1e-12, atol=1e-12), v.id
        assert not np.isnan(whole).any(), tensor.name


def test_the_paper_s_dag_is_the_small_twin_s_but_for_sizes() -> None:
    """What is tried on the small twin stands for the paper's model: the same tasks between the same values."""
    paper, small = dag_of(PAPER, 4, 4), dag_of(SMALL, 4, 4)
    assert [(t.id, t.inputs, t.outputs, t.ranks) for t in paper.tasks] == [
        (t.id, t.inputs, t.outputs, t.ranks) for t in small.tasks
    ]
