"""The output of a run: held against the unpartitioned reference, and collected into one file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from helixctl.dag import Dag, Tensor
from helixctl.dag.function import output_of
from helixctl.plan import Interval
from helixctl_runtime.check.reference import evaluate, relative_error
from helixctl_runtime.compile.bound import BoundProgram
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.ranks import Rank
from helixctl_runtime.tensors.tensor_source import TensorSource, write_tensor

# A float64 run is compared with a float64 reference, whose own rounding is not zero.
_FLOAT64_TOLERANCE = 64 * torch.finfo(torch.float64).eps


@dataclass(frozen=True, slots=True)
class Check:
    """How the output compares with float64.

    Attributes:
        error: of the output of all ranks, relative.
        unpartitioned_error: of the unpartitioned computation in the run's dtype.
        tolerance: the largest error that passes.
        not_finite: weights and inputs that hold NaN or infinity, each with the first place; rank 0 knows them.
    """

    error: float
    unpartitioned_error: float
    tolerance: float
    not_finite: tuple[str, ...] = ()


def check_output(dag: Dag, program: BoundProgram, numbers: TensorSource, rank: Rank) -> Check:
    """Compare the output with the model computed unpartitioned in float64; all ranks call it, and all are told."""
    device, dtype = rank.device, TORCH[dag.plan.model.dtype]
    expected = None
    bad: dict[str, str] = {}
    numbers_of = torch.empty(2, dtype=torch.float64, device=device)  # the unpartitioned error, the expected norm
    if rank.rank == 0:

        def load(tensor: Tensor) -> torch.Tensor:
            found = numbers.region(tensor, tensor.full, TORCH[tensor.given_dtype(dag.plan.model.dtype)], device)
            if not is_finite(found):
                bad[tensor.name] = _first_not_finite(tensor.name, found)
            return found

        with torch.inference_mode():
            expected = evaluate(dag.plan, load, torch.float64)
            numbers_of[0] = relative_error(evaluate(dag.plan, load, dtype), expected)
            numbers_of[1] = torch.linalg.vector_norm(expected)
    dist.broadcast(numbers_of, 0)
    unpartitioned, norm = numbers_of.tolist()
    mine: dict[tuple[Interval, ...], float] = {}
    for region in _owners(dag):  # no rank but the first holds more of the expected output than one region
        shape = [stop - start for start, stop in region]
        part = torch.empty(shape, dtype=torch.float64, device=device)
        if expected is not None:
            part.copy_(expected[tuple(slice(*interval) for interval in region)])
        dist.broadcast(part, 0)
        for value_id, piece in program.outputs.items():
            if dag.value[value_id].region == region:
                mine[region] = float(torch.linalg.vector_norm(piece.to(torch.float64) - part))
    error = _worst_whole(mine, rank) / norm
    return Check(error, unpartitioned, tolerance_of(unpartitioned, dtype), tuple(bad.values()))


def tolerance_of(unpartitioned: float, dtype: torch.dtype) -> float:
    """The largest error that passes, by that of the unpartitioned computation in the dtype of a run."""
    return max(2 * unpartitioned, _FLOAT64_TOLERANCE if dtype == torch.float64 else 0.0)


def is_finite(numbers: torch.Tensor) -> bool:
    """Whether there is no NaN and no infinity."""
    return bool(torch.isfinite(numbers).all())


def _first_not_finite(name: str, numbers: torch.Tensor) -> str:
    where = (~torch.isfinite(numbers)).nonzero()[0].tolist()
    return f"{name} is {float(numbers[tuple(where)])} at {where}"


def _worst_whole(mine: dict[tuple[Interval, ...], float], rank: Rank) -> float:
    """The norm of the difference of the whole output, of every region the copy that differs most; infinite for NaN."""
    found: list[Any] = [None] * rank.world_size
    dist.all_gather_object(found, mine)
    worst: dict[tuple[Interval, ...], float] = {}
    for differences in found:
        for region, difference in differences.items():
            worst[region] = max(worst.get(region, 0.0), difference if difference == difference else math.inf)  # noqa: PLR0124  NaN
    return math.hypot(*worst.values())


def write_output_tensor(dag: Dag, program: BoundProgram, rank: Rank, path: str) -> None:
    """Collect the pieces of the output on rank 0, each from the first rank that holds it, and write the whole."""
    owner, name = _owners(dag), output_of(dag.plan.model)
    mine = {}
    for value_id, piece in program.outputs.items():
        region = dag.value[value_id].region
        if owner[region] == rank.rank:
            mine[region] = piece.cpu()
    pieces: list[Any] = [None] * rank.world_size
    dist.all_gather_object(pieces, mine)
    if rank.rank == 0:
        whole = torch.empty(dag.tensor[name].shape, dtype=TORCH[dag.plan.model.dtype])
        for found in pieces:
            for region, piece in found.items():
                whole[tuple(slice(start, stop) for start, stop in region)] = piece
        write_tensor(path, name, whole)


def _owners(dag: Dag) -> dict[tuple[Interval, ...], int]:
    """The regions of the output that ranks hold at the end of a step, each with the first rank that holds it."""
    held = (v for v in dag.values if v.tensor == output_of(dag.plan.model))
    owner: dict[tuple[Interval, ...], int] = {}
    for value in sorted(held, key=lambda v: v.rank):
        owner.setdefault(value.region, value.rank)
    return owner
