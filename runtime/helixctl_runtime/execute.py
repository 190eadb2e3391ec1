"""Executing dags: every rank compiles its part of each, measures them in turn, and checks its output."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from datetime import UTC, datetime

import torch
import torch.distributed as dist

from helixctl.dag import Dag, Value
from helixctl_runtime.agree import agree
from helixctl_runtime.check.outputs import check_output, is_finite, write_output_tensor
from helixctl_runtime.comm.collectives import rank_sets
from helixctl_runtime.comm.group import groups_of
from helixctl_runtime.compile import compile_rank
from helixctl_runtime.compile.bound import BoundProgram
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.measure.cuda_graph import uses_cuda_graph
from helixctl_runtime.measure.expert_loads import Counts, count_choices, law_of
from helixctl_runtime.measure.measure import StepTimes, measure
from helixctl_runtime.measure.task_numbering import TaskNumbering
from helixctl_runtime.measure.walk import fused
from helixctl_runtime.ranks import Phase, Rank
from helixctl_runtime.report.result import RankMeasurement, Result, result
from helixctl_runtime.tensors.tensor_source import TensorSource


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is told.

    Attributes:
        warmup, iters: steps before and during the measurement; iters is at least 1. None: as many as the budget allows.
        budget_s: seconds for the steps whose number is not given.
        seed: of weights and inputs that come from no file.
        check: compare the output with the unpartitioned float64 reference.
        weights: a safetensors file or a folder of them, or None for seeded numbers.
        weights_prefix: what stands ahead of the weights' names, where the files hold several models.
        inputs: a safetensors file, or None for seeded numbers.
        output: safetensors file for the model's output, where one dag is run.
        trace_steps: steps after the measurement in which every action is timed; no more than iters are walked.
        cuda_graph: replay measured steps from CUDA graphs, or not; None: on a single CUDA rank whose steps allow it.
    """

    warmup: int | None = 100
    iters: int | None = 1000
    seed: int = 0
    check: bool = False
    weights: str | None = None
    inputs: str | None = None
    output: str | None = None
    trace_steps: int = 5
    weights_prefix: str | None = None
    cuda_graph: bool | None = None
    budget_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Work:
    """What each rank is given; picklable, so that it can be sent to a spawned rank.

    Attributes:
        places: the dags.
        options: the same for all.
        digests: of the dags, worked out once by whoever starts the ranks.
    """

    places: TaskNumbering
    options: Options
    digests: tuple[str, ...]

    def __call__(self, rank: Rank) -> list[Result] | None:
        """Be one rank; rank 0 returns the result of each dag."""
        return _Session(self, rank).run()


class _Session:
    def __init__(self, work: Work, rank: Rank) -> None:
        self.places, self.dags, self.digests = work.places, work.places.dags, work.digests
        self.options, self.rank = work.options, rank
        options = work.options
        self.numbers = TensorSource(options.seed, options.weights, options.inputs, options.weights_prefix)

    def run(self) -> list[Result] | None:
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self.rank.init_process_group()
        agree(self.rank, self.digests, _shared(self.options), self.numbers)
        if self.rank.peers:  # else whoever started the ranks has done it
            for dag in self.dags:
                self.numbers.check_heads(dag, (self.rank.rank, self.rank.world_size))
        sets = [ranks for dag in self.dags for ranks in rank_sets(dag)]
        groups = groups_of(self.rank.new_groups(sets), sets, self.rank.rank, self.rank.device, self.rank.timeout)
        loaded = [self._compile(dag) for dag in self.dags]
        programs = [program for program, _ in loaded]
        self.numbers.close()
        first = [self.places.first(which) for which in range(len(self.dags))]
        options = self.options
        able = [False] * self.rank.world_size
        dist.all_gather_object(able, all(program.on_device for program in programs))
        graph = uses_cuda_graph(able, wanted=options.cuda_graph)
        with fused(programs), torch.inference_mode():
            measured = measure(
                programs,
                first,
                groups,
                self.rank,
                warmup=options.warmup,
                iters=options.iters,
                trace_steps=options.trace_steps,
                graph=graph,
                budget_s=options.budget_s,
            )
            choices = [
                count_choices(program, groups, self.rank.progress.cell, at) if law_of(dag) else {}
                for dag, program, at in zip(self.dags, programs, first, strict=True)
            ]
        mine = [
            self._measurement(dag, *made, its, counts)
            for dag, made, its, counts in zip(self.dags, loaded, measured, choices, strict=True)
        ]
        gathered = [mine] * self.rank.world_size
        dist.all_gather_object(gathered, mine)
        if options.output:
            write_output_tensor(self.dags[0], programs[0], self.rank, options.output)
        if self.rank.rank:
            return None
        return [
            result(
                dag,
                ranks,
                seed=options.seed,
                warmup=ranks[0].measured.warmup,
                cuda_graph=graph,
                started_at=started_at,
                weights=self.numbers.account(dag),
            )
            for dag, ranks in zip(self.dags, zip(*gathered, strict=True), strict=True)
        ]

    def _compile(self, dag: Dag) -> tuple[BoundProgram, int]:
        """This rank's part of a dag, and the bytes of weight files that it took."""
        before = self.numbers.weights_read_nbytes

        def load(value: Value) -> torch.Tensor:
            return self.numbers.value(dag, value, TORCH[value.dtype], self.rank.device)

        program = compile_rank(dag, self.rank.rank, self.rank.device, load)
        return program, self.numbers.weights_read_nbytes - before

    def _measurement(
        self, dag: Dag, program: BoundProgram, read_nbytes: int, measured: StepTimes, choices: Counts
    ) -> RankMeasurement:
        cuda = self.rank.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        check = None
        if self.options.check:
            self.rank.progress.enter(Phase.CHECKING)
            check = check_output(dag, program, self.numbers, self.rank)
        return RankMeasurement(
            rank=self.rank.rank,
            measured=measured,
            weight_nbytes=program.weight_nbytes,
            buffer_nbytes=program.buffer_nbytes,
            proved_nbytes=program.proved_nbytes,
            peak_nbytes=peak,
            attention=sorted(b.name for b in program.attention),
            check=check,
            finite=all(is_finite(piece) for piece in program.outputs.values()),
            weights_read_nbytes=read_nbytes,
            choices=choices,
        )


def _shared(options: Options) -> dict[str, object]:
    """What all ranks have to be told alike; of files whether there are any."""
    return {
        "warmup": options.warmup,
        "iters": options.iters,
        "seed": options.seed,
        "check": options.check,
        "weights": options.weights is not None,
        "weights-prefix": options.weights_prefix,
        "input": options.inputs is not None,
        "output": options.output is not None,
        "cuda-graph": options.cuda_graph,
    }
