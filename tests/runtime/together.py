"""All ranks of a dag in this process: what most tests of the executor use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch

from helixctl.dag import Dag, Tensor
from helixctl.plan import Interval, Layout, Plan
from helixctl.spec import ModelSpec, WorkloadSpec
from helixctl.spec.load import load_cluster
from helixctl.verify import verify
from helixctl_runtime.check.reference import evaluate, relative_error
from helixctl_runtime.compile import compile_rank
from helixctl_runtime.compile.bound import BoundProgram
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.measure.walk import fused, walk_together
from helixctl_runtime.tensors.tensor_source import TensorSource
from tests.documents import SMALL

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ran:
    """The pieces of the output, and relative errors against float64.

    Attributes:
        error: of the piece with the largest.
        overall: of all pieces together: of a few numbers alone the error is a matter of chance.
        unpartitioned: of the unpartitioned computation.
    """

    programs: list[BoundProgram]
    outputs: list[torch.Tensor]
    error: float
    overall: float
    unpartitioned: float


def computes(dag: Dag) -> bool:
    """Whether a dag is proved to compute its model, by its plan's layout or by another that no axis describes.

    That it keeps to the layout (HX414) is the last of all proofs; what does not is refused, but runs all the same.
    """
    return {found.code for found in verify(dag)} <= {"HX414"}


@lru_cache(maxsize=32)
def _references(model: ModelSpec, workload: WorkloadSpec, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The output of a model with seeded numbers in float64, and in its own dtype; many layouts are held beside them."""
    one = Layout(groups=1, slices=1)
    plan = Plan.sketch(model, load_cluster(SMALL[1]), workload, one)

    def load(tensor: Tensor) -> torch.Tensor:
        return _seeded(tensor, seed, TORCH[tensor.given_dtype(model.dtype)])

    return evaluate(plan, load, torch.float64), evaluate(plan, load, TORCH[model.dtype])


@lru_cache(maxsize=256)
def _seeded(tensor: Tensor, seed: int, dtype: torch.dtype) -> torch.Tensor:
    """A whole tensor; all ranks of many layouts have regions of it (tests/runtime/test_seeded.py)."""
    return TensorSource(seed, None, None).region(tensor, tensor.full, dtype, CPU)


def run_together(dag: Dag, *, seed: int = 0, steps: int = 2, given: Mapping[str, torch.Tensor] | None = None) -> Ran:
    """Compile all ranks and walk some steps; ``given`` has whole tensors that replace seeded ones, by name."""
    given, dtype = given or {}, TORCH[dag.plan.model.dtype]

    def region(tensor: Tensor, part: tuple[Interval, ...]) -> torch.Tensor:
        due, place = TORCH[tensor.given_dtype(dag.plan.model.dtype)], tuple(slice(*interval) for interval in part)
        if tensor.name in given:
            return given[tensor.name][place].to(due)
        return _seeded(tensor, seed, due)[place].clone(memory_format=torch.contiguous_format)

    programs = [
        compile_rank(dag, rank, CPU, lambda v: region(dag.tensor[v.tensor], v.region)) for rank in range(len(dag.order))
    ]
    step = walk_together(dag, programs)
    with fused(programs):
        for _ in range(steps):
            step()
    if given:
        expected, plain = (evaluate(dag.plan, lambda t: region(t, t.full), kind) for kind in (torch.float64, dtype))
    else:
        expected, plain = _references(dag.plan.model, dag.plan.workload, seed)
    outputs, parts, errors = [], [], []
    for program in programs:
        for value_id, buffer in program.outputs.items():
            place = tuple(slice(start, stop) for start, stop in dag.value[value_id].region)
            outputs.append(buffer.data)
            parts.append(expected[place])
            errors.append(relative_error(buffer.data, expected[place]))
    flat = [torch.cat([t.flatten() for t in whole]) for whole in (outputs, parts)]
    return Ran(programs, outputs, max(errors), relative_error(*flat), relative_error(plain, expected))
