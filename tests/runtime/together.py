"""All ranks of a dag in this process: what most tests of the executor use."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from helixctl.dag import Dag
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.files import Numbers
from helixctl_runtime.program import Program, compile_rank
from helixctl_runtime.reference import evaluate, relative_error
from helixctl_runtime.walk import fused, walk_together

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ran:
    """The pieces of the output, and relative errors against float64: the largest, and that of the unpartitioned."""

    programs: list[Program]
    outputs: list[torch.Tensor]
    error: float
    unpartitioned: float


def run_together(dag: Dag, *, seed: int = 0, steps: int = 2) -> Ran:
    """Compile all ranks and walk some steps."""
    numbers = Numbers(seed, None, None)
    dtype = TORCH[dag.plan.model.dtype]
    programs = [
        compile_rank(dag, rank, CPU, lambda v: numbers.value(dag, v, TORCH[v.dtype], CPU))
        for rank in range(len(dag.order))
    ]
    step = walk_together(dag, programs)
    with fused(programs):
        for _ in range(steps):
            step()
    expected = evaluate(dag.plan, lambda t: numbers.region(t, t.full, dtype, CPU), torch.float64)
    plain = evaluate(dag.plan, lambda t: numbers.region(t, t.full, dtype, CPU), dtype)
    outputs, errors = [], []
    for program in programs:
        for value_id, buffer in program.outputs.items():
            region = tuple(slice(start, stop) for start, stop in dag.value[value_id].region)
            outputs.append(buffer.data)
            errors.append(relative_error(buffer.data, expected[region]))
    return Ran(programs, outputs, max(errors), relative_error(plain, expected))
