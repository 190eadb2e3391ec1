"""Executing a dag: every rank compiles its part, walks it, measures, and checks its output."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist

from helixctl.dag import Dag
from helixctl.errors import fail
from helixctl.plan import Interval
from helixctl_runtime.collectives import groups_of
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.files import Numbers, write_tensor
from helixctl_runtime.program import Program, compile_rank
from helixctl_runtime.ranks import Phase, Rank
from helixctl_runtime.reference import evaluate, relative_error
from helixctl_runtime.report import RankMeasurement, report
from helixctl_runtime.walk import Walker, fused

# A float64 run is compared with a float64 reference, whose own rounding is not zero.
_FLOAT64_TOLERANCE = 64 * torch.finfo(torch.float64).eps


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is told.

    Attributes:
        warmup, iters: steps before and during the measurement; iters is at least 1.
        seed: of weights and inputs that come from no file.
        check: compare the output with the unpartitioned float64 reference.
        weights, inputs: safetensors files, or None for seeded numbers.
        output: safetensors file for the model's output.
    """

    warmup: int = 100
    iters: int = 1000
    seed: int = 0
    check: bool = False
    weights: str | None = None
    inputs: str | None = None
    output: str | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What each rank is given; picklable, so that it can be sent to a spawned rank."""

    dag: Dag
    options: Options

    def __call__(self, rank: Rank) -> dict[str, Any] | None:
        """Be one rank; rank 0 returns the report of all."""
        return _Session(self.dag, self.options, rank).run()


class _Session:
    def __init__(self, dag: Dag, options: Options, rank: Rank) -> None:
        self.dag, self.options, self.rank = dag, options, rank
        self.dtype = TORCH[dag.plan.model.dtype]
        self.numbers = Numbers(options.seed, options.weights, options.inputs)

    def run(self) -> dict[str, Any] | None:
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self.rank.init_process_group()
        self._agree()
        groups = self.rank.new_groups(groups_of(self.dag))
        program = compile_rank(self.dag, self.rank.rank, self.rank.device, self._load)
        walker = Walker(program, groups, self.rank.device, self.rank.progress.cell)
        with fused([program]), torch.inference_mode():
            steps = self._measure(walker)
        measured = self._measurement(program, steps, walker.stopwatch.lap())
        gathered = [measured] * self.rank.world_size
        dist.all_gather_object(gathered, measured)
        if self.options.output:
            self._write(program)
        if self.rank.rank:
            return None
        return report(self.dag, gathered, seed=self.options.seed, warmup=self.options.warmup, started_at=started_at)

    def _agree(self) -> None:
        """All ranks hold one document, or none goes on.

        Raises:
            HelixError: HX503.
        """
        digests = [self.dag.digest] * self.rank.world_size
        dist.all_gather_object(digests, self.dag.digest)
        others = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
        if others:
            message = f"rank {others[0]} holds the dag {digests[others[0]][:19]}..., rank 0 {digests[0][:19]}..."
            raise fail("HX503", message, "give all hosts the same file, --dtype and version of helixctl")

    def _load(self, value: Any) -> torch.Tensor:
        return self.numbers.value(self.dag, value, TORCH[value.dtype], self.rank.device)

    def _measure(self, walker: Walker) -> list[float]:
        """Walk the warm-up and the measured steps; seconds of every measured one."""
        progress, warmup = self.rank.progress, self.options.warmup
        progress.enter(Phase.RUNNING)
        for step in range(warmup):
            progress.cell[0], progress.cell[1] = 0, step
            walker()
        dist.barrier()
        if self.rank.device.type == "cuda":
            return self._measure_cuda(walker)
        walker.stopwatch.lap()
        times = []
        for step in range(warmup, warmup + self.options.iters):
            progress.cell[0], progress.cell[1] = 0, step
            begin = time.perf_counter()
            walker()
            times.append(time.perf_counter() - begin)
        return times

    def _measure_cuda(self, walker: Walker) -> list[float]:
        """As on CPU, but a step lies between two events of the compute stream: the host runs ahead of the device."""
        torch.cuda.synchronize()
        walker.stopwatch.lap()
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(self.options.iters + 1)]
        marks[0].record()
        for step, mark in enumerate(marks[1:]):
            self.rank.progress.cell[0], self.rank.progress.cell[1] = 0, self.options.warmup + step
            walker()
            mark.record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) * 1e-3 for a, b in pairwise(marks)]

    def _measurement(self, program: Program, steps: list[float], communication_s: float) -> RankMeasurement:
        cuda = self.rank.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        error, unpartitioned, tolerance = self._check(program) if self.options.check else (None, None, None)
        return RankMeasurement(
            rank=self.rank.rank,
            step_s=steps,
            communication_s=communication_s,
            weight_nbytes=program.weight_nbytes,
            buffer_nbytes=program.buffer_nbytes,
            peak_nbytes=peak,
            attention=sorted(b.name for b in program.attention),
            error=error,
            unpartitioned_error=unpartitioned,
            tolerance=tolerance,
        )

    def _check(self, program: Program) -> tuple[float, float, float]:
        """Relative error of this rank's output, that of the unpartitioned computation, and what is tolerated."""
        self.rank.progress.enter(Phase.CHECKING)
        device = self.rank.device
        shape = self.dag.tensor["output"].shape
        expected = torch.empty(shape, dtype=torch.float64, device=device)
        unpartitioned = torch.empty(1, dtype=torch.float64, device=device)
        if self.rank.rank == 0:

            def load(tensor: Any) -> torch.Tensor:
                return self.numbers.region(tensor, tensor.full, self.dtype, device)

            with torch.inference_mode():
                expected.copy_(evaluate(self.dag.plan, load, torch.float64))
                unpartitioned.fill_(relative_error(evaluate(self.dag.plan, load, self.dtype), expected))
        dist.broadcast(expected, 0)
        dist.broadcast(unpartitioned, 0)
        errors = []
        for value_id, buffer in program.outputs.items():
            region = tuple(slice(start, stop) for start, stop in self.dag.value[value_id].region)
            errors.append(relative_error(buffer.data, expected[region]))
        floor = _FLOAT64_TOLERANCE if self.dtype == torch.float64 else 0.0
        return max(errors, default=0.0), float(unpartitioned), max(2 * float(unpartitioned), floor)

    def _write(self, program: Program) -> None:
        """Collect the pieces of the output on rank 0, each from the first rank that holds it, and write the whole."""
        owner: dict[tuple[Interval, ...], int] = {}
        for value in sorted((v for v in self.dag.values if v.tensor == "output"), key=lambda v: v.rank):
            owner.setdefault(value.region, value.rank)
        mine = {}
        for value_id, buffer in program.outputs.items():
            value = self.dag.value[value_id]
            if owner[value.region] == self.rank.rank:
                mine[value.region] = buffer.in_order([buffer.parts(d)[0] for d in self.dag.tensor["output"].dims]).cpu()
        pieces: list[Any] = [None] * self.rank.world_size
        dist.all_gather_object(pieces, mine)
        if self.rank.rank == 0:
            whole = torch.empty(self.dag.tensor["output"].shape, dtype=self.dtype)
            for found in pieces:
                for region, piece in found.items():
                    whole[tuple(slice(start, stop) for start, stop in region)] = piece
            write_tensor(str(self.options.output), "output", whole)
