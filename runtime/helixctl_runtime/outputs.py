"""The output of a run: held against the unpartitioned reference, and collected into one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from helixctl.dag import Dag, Tensor
from helixctl.dag.function import output_of
from helixctl.plan import Interval
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.files import Numbers, write_tensor
from helixctl_runtime.program import Program
from helixctl_runtime.ranks import Rank
from helixctl_runtime.reference import evaluate, relative_error

# A float64 run is compared with a float64 reference, whose own rounding is not zero.
_FLOAT64_TOLERANCE = 64 * torch.finfo(torch.float64).eps


@dataclass(frozen=True, slots=True)
class Check:
    """Relative errors against float64: of this rank's output, of the unpartitioned computation, and the tolerance."""

    error: float
    unpartitioned_error: float
    tolerance: float


def check_output(dag: Dag, program: Program, numbers: Numbers, rank: Rank) -> Check:
    """Compare this rank's output with the model computed unpartitioned in float64; all ranks call it."""
    device, dtype = rank.device, TORCH[dag.plan.model.dtype]
    expected = torch.empty(dag.tensor[output_of(dag.plan.model)].shape, dtype=torch.float64, device=device)
    unpartitioned = torch.empty(1, dtype=torch.float64, device=device)
    if rank.rank == 0:

        def load(tensor: Tensor) -> torch.Tensor:
            return numbers.region(tensor, tensor.full, dtype, device)

        with torch.inference_mode():
            expected.copy_(evaluate(dag.plan, load, torch.float64))
            unpartitioned.fill_(relative_error(evaluate(dag.plan, load, dtype), expected))
    dist.broadcast(expected, 0)
    dist.broadcast(unpartitioned, 0)
    errors = []
    for value_id, buffer in program.outputs.items():
        region = tuple(slice(start, stop) for start, stop in dag.value[value_id].region)
        errors.append(relative_error(buffer.data, expected[region]))
    floor = _FLOAT64_TOLERANCE if dtype == torch.float64 else 0.0
    return Check(max(errors, default=0.0), float(unpartitioned), max(2 * float(unpartitioned), floor))


def write_output_tensor(dag: Dag, program: Program, rank: Rank, path: str) -> None:
    """Collect the pieces of the output on rank 0, each from the first rank that holds it, and write the whole."""
    tensor = dag.tensor[output_of(dag.plan.model)]
    owner: dict[tuple[Interval, ...], int] = {}
    for value in sorted((v for v in dag.values if v.tensor == tensor.name), key=lambda v: v.rank):
        owner.setdefault(value.region, value.rank)
    mine = {}
    for value_id, buffer in program.outputs.items():
        value = dag.value[value_id]
        if owner[value.region] == rank.rank:
            mine[value.region] = buffer.in_order([buffer.parts(d)[0] for d in tensor.dims]).cpu()
    pieces: list[Any] = [None] * rank.world_size
    dist.all_gather_object(pieces, mine)
    if rank.rank == 0:
        whole = torch.empty(tensor.shape, dtype=TORCH[dag.plan.model.dtype])
        for found in pieces:
            for region, piece in found.items():
                whole[tuple(slice(start, stop) for start, stop in region)] = piece
        write_tensor(path, tensor.name, whole)
