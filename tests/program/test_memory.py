"""What is proved is what is allocated, to the byte, for every legal layout of models of all kinds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from helixctl.cost.memory import peak_nbytes, peaks_below_fullest
from helixctl.dag import Dag, Value
from helixctl.dag.retype import retyped
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.program import Copy, Programs, program_of, programs_of
from helixctl.program import alike as alike_module
from helixctl.solve.proof import together
from helixctl.spec import ModelSpec, WorkloadSpec
from helixctl.spec.load import load_cluster
from helixctl.verify import verify
from helixctl_runtime.compile import compile_rank
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.run import Options, run
from tests.documents import SMALL
from tests.program.models import LARGE, TINY, every_plan
from tests.runtime.models import real

CPU = torch.device("cpu")


def numbers(value: Value) -> torch.Tensor:
    return torch.zeros(value.shape, dtype=TORCH[value.dtype])


def allocated(dag: Dag) -> Iterator[int]:
    for rank in range(len(dag.order)):
        program = compile_rank(dag, rank, CPU, numbers)
        yield program.weight_nbytes + program.buffer_nbytes


def prove(name: str, logits: str, steps: dict[int, int]) -> int:
    """Compare both for every ``step``-th layout of a number of devices; the number of layouts that were tried."""
    tried = 0
    for devices, step in steps.items():
        for plan in every_plan(TINY[name], (7, 8, logits), devices, large=False, step=step):
            dag = lower(plan)
            assert list(allocated(dag)) == peak_nbytes(dag), plan.layout
            tried += 1
    return tried


@pytest.mark.parametrize("name", TINY)
def test_what_is_allocated_is_what_is_proved(name: str) -> None:
    assert prove(name, "last", {1: 1, 2: 11, 3: 29, 4: 97}) > 5


@pytest.mark.sweep
@pytest.mark.parametrize("logits", ["all", "last"])
@pytest.mark.parametrize("name", TINY)
def test_what_is_allocated_is_what_is_proved_in_more_layouts(name: str, logits: str) -> None:
    assert prove(name, logits, {1: 1, 2: 7, 3: 13, 4: 41, 6: 149}) > 5


@pytest.mark.sweep
@pytest.mark.parametrize("name", TINY)
def test_it_is_so_for_every_legal_layout_of_few_devices(name: str) -> None:
    assert prove(name, "last", {1: 1, 2: 1, 3: 9}) > 10


def test_steps_with_a_cache() -> None:
    """Weights, the cache and an arena for each step; a rank of the executor holds the first two once."""
    tried = 0
    for slicing, slices in (("batch", 2), ("key", 2), ("head_dim", 1)):
        for pipeline, microbatches in ((1, 1), (2, 2)):
            layout = Layout.model_validate(
                {"groups": 2, "slices": slices, "slicing": slicing, "pipeline": pipeline, "microbatches": microbatches}
            )
            cluster = load_cluster(SMALL[1]).model_copy(update={"devices_per_host": layout.devices})
            work = WorkloadSpec(batch=6, seq_len=20, output_len=3, prefill_tokens=30, logits="last")
            plan = Plan.of(ModelSpec.model_validate(TINY["real"] | {"layers": 2}), cluster, work, layout)
            dags, held = [lower(plan, step=step) for step in plan.steps], []
            for rank in range(layout.devices):
                prefill = compile_rank(dags[0], rank, CPU, numbers)
                decode = compile_rank(dags[1], rank, CPU, numbers, prefill.states, prefill.weights)
                for dag, program in zip(dags, (prefill, decode), strict=True):
                    allocated = program.weight_nbytes + program.buffer_nbytes + program.state_nbytes
                    assert allocated == peak_nbytes(dag)[rank] == program.proved_nbytes
                assert all(decode.weights[form] is data for form, data in prefill.weights.items())
                held.append(prefill.weight_nbytes + prefill.state_nbytes + prefill.buffer_nbytes + decode.buffer_nbytes)
            assert max(held) == together(dags)
            tried += 1
    assert tried == 6


def test_ranks_that_share_a_program_would_each_have_such_a_one() -> None:
    for plan in every_plan(TINY["real"], (7, 8, "last"), 6, large=False, step=97):
        dag = lower(plan)
        programs = Programs(dag)
        for rank in programs.ranks:
            own, shared = program_of(dag, rank), programs[rank]
            assert [(b.nbytes, b.first, b.last) for b in own.blocks] == [
                (b.nbytes, b.first, b.last) for b in shared.blocks
            ]
            assert own.nbytes == shared.nbytes
            assert [type(a) for a in own.actions] == [type(a) for a in shared.actions]


def test_the_programs_of_a_dag_are_shared_while_they_are_held() -> None:
    dag, other = replace(real(1, 2)), replace(real(1, 2))  # not the one that other tests hold
    held = programs_of(dag)
    assert programs_of(dag) is held
    assert dag == other
    assert programs_of(other) is not held
    place = id(dag)
    del held, dag
    assert place not in alike_module._HELD


def test_so_it_is_in_steps_with_a_cache() -> None:
    """Heads, lanes of the cache and shares of the vocabulary are other ones; sizes and lifetimes are not."""
    model = ModelSpec.model_validate(TINY["real"] | {"layers": 2})
    work = WorkloadSpec(batch=6, seq_len=20, output_len=3, prefill_tokens=30, logits="last")
    cluster = load_cluster(SMALL[1]).model_copy(update={"devices_per_host": 4})
    shared = 0
    for axes in (
        {"groups": 2, "slices": 2, "slicing": "key"},
        {"groups": 2, "slices": 2, "slicing": "batch"},
        {"groups": 4},
    ):
        plan = Plan.of(model, cluster, work, Layout.model_validate({"slices": 1, **axes}))
        for step in plan.steps:
            dag = lower(plan, step=step)
            programs = Programs(dag)
            for rank in programs.ranks:
                own, its = program_of(dag, rank), programs[rank]
                assert [(b.nbytes, b.first, b.last) for b in own.blocks] == [
                    (b.nbytes, b.first, b.last) for b in its.blocks
                ], (plan.layout, rank)
                assert own.nbytes == its.nbytes
                assert [a.moved for a in own.actions if isinstance(a, Copy)] == [
                    a.moved for a in its.actions if isinstance(a, Copy)
                ]
                shared += its.rank != rank
    assert shared >= 6  # the ranks of four groups of heads


def test_ranks_that_do_the_same_share_a_program() -> None:
    dag = real(1, 4, {"attention": {"kv_heads": 6}}, data=2)
    programs = Programs(dag)
    assert len({id(programs[rank]) for rank in programs.ranks}) < len(programs.ranks)


def test_of_the_fullest_ranks_memory_is_exact() -> None:
    """The arenas of others are not searched to the end: somewhere this is seen."""
    tried, spared = 0, 0
    for name in LARGE:
        for plan in every_plan(LARGE[name], (8, 2048, "last"), 8, large=True, step=41):
            dag = lower(plan)
            exact, found = peak_nbytes(dag), peaks_below_fullest(dag)
            most = max(exact)
            assert [n for n in exact if n == most] == [n for n in found if n == most], plan.layout
            assert all(one == other or one <= other < most for one, other in zip(exact, found, strict=True))
            assert exact.index(most) == found.index(most)
            tried, spared = tried + 1, spared + (found != exact)
    assert tried > 20
    assert spared > 3


def test_of_each_kind_of_hosts_the_fullest_are_exact() -> None:
    model = ModelSpec.model_validate(LARGE["llama"] | {"layers": 2})
    work = WorkloadSpec(batch=8, seq_len=256, logits="last")
    cluster = load_cluster("h100:1x4+l40s:1x4")
    for layout in (Layout(groups=1, slices=1, pipeline=2, data=4), Layout(groups=2, slices=2, data=2)):
        dag = lower(Plan.of(model, cluster, work, layout))
        exact, found = peak_nbytes(dag), peaks_below_fullest(dag)
        for ranks in (slice(0, 4), slice(4, 8)):
            assert max(exact[ranks]) == max(found[ranks])


@pytest.mark.parametrize("slicing", ["batch", "query"])
def test_a_report_has_both(slicing: str) -> None:
    dag = retyped(real(2, 2, slicing=slicing, microbatches=2, interleave=2), "bfloat16")
    assert verify(dag) == []
    results = run([dag], ["real"], Options(warmup=1, iters=1, check=True), device="cpu", timeout=30)
    assert results is not None
    memory = results[0].report["memory"]
    assert memory == {"proved_nbytes": max(peak_nbytes(dag)), "allocated_nbytes": max(peak_nbytes(dag))}
    assert results[0].report["check"]["passed"]
