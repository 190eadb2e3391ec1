"""A plan with steps on one rank: its programs over one cache and one set of weights, bound to the process groups."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from helixctl.dag import Dag, Value
from helixctl_runtime.comm.group import Groups
from helixctl_runtime.compile import compile_rank
from helixctl_runtime.compile.bound import BoundProgram
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.generate.feed import Feed
from helixctl_runtime.generate.loop import Generated, Stage
from helixctl_runtime.measure.action_timers import ActionTimer, CommunicationTimer, NoTimer, TraceRecorder
from helixctl_runtime.measure.clock import Clock
from helixctl_runtime.measure.cuda_graph import capture_step
from helixctl_runtime.measure.step_trace import RankTrace
from helixctl_runtime.measure.walk import Replay, Walker
from helixctl_runtime.ranks import Rank
from helixctl_runtime.report.generation import RankGeneration
from helixctl_runtime.tensors.tensor_source import TensorSource

Moments = list[tuple[Any, Any]]


class BoundPlan:
    """One rank's part of a plan with a prefill and a decode step.

    Attributes:
        dags: of the prefill and of the decode step.
        programs: this rank's part of each.
        first: the number of each dag's start (``TaskNumbering.first``).
        stages: the prefill and the decode step, timed.
        weights_read_nbytes: what the rank asked for of the files that hold the weights.
    """

    def __init__(
        self, dags: Sequence[Dag], first: Sequence[int], rank: Rank, groups: Groups, numbers: TensorSource
    ) -> None:
        """Load the weights, and bind the steps; the cache is zero.

        Args:
            dags: of the prefill and of the decode step.
            first: the number of each dag's start.
            rank: this rank.
            groups: that of every set of ranks.
            numbers: where the weights come from.
        """
        self.dags, self.first, self._rank, self._groups = dags, first, rank, groups
        self.clock = Clock(rank.device, rank.rank)
        before = numbers.weights_read_nbytes
        self.programs = _programs(dags, rank, numbers)
        self.weights_read_nbytes = numbers.weights_read_nbytes - before
        self._timers = [CommunicationTimer(self.clock) for _ in self.programs]
        self.stages = self.bound(self._timers)

    @property
    def chunk(self) -> int:
        """Tokens of a sequence in a step of the prefill."""
        return self.dags[0].work.seq_len

    def bound(
        self, timers: Sequence[ActionTimer], moments: Sequence[Moments | None] = (None, None)
    ) -> tuple[Stage, Stage]:
        """The prefill and the decode step.

        Args:
            timers: of the actions of each.
            moments: of each a list that takes the begin and the end of every step.
        """
        each = zip(timers, moments, strict=True)
        prefill, decode = (self._stage(which, timer, its) for which, (timer, its) in enumerate(each))
        return prefill, decode

    def capture(self) -> None:
        """Replay decode steps from a CUDA graph from now on; a decode step must have run, whose inputs it has.

        What a step is given and what it leaves lies where the graph has it: the feed copies to and from there, and no
        length or token is known to the graph. Repeating a step is without effect, as it writes the same positions of
        the cache again. Before the replay that is compared, those positions are given the keys and values of other
        tokens.

        Raises:
            HelixError: HX514, it cannot be captured, or the replay writes other bits than the walk.
        """
        dag, program, cell = self.dags[1], self.programs[1], self._rank.progress.cell
        walker = Walker(program, self._groups, cell, NoTimer(), self.first[1])
        ids = [data for name, data in program.inputs.items() if dag.value[name].tensor == "input_ids"]
        vocabulary = dag.plan.model.vocabulary
        size = vocabulary.size if vocabulary else 1

        def other_tokens() -> None:
            before = [data.clone() for data in ids]
            for data in ids:
                data.add_(1).remainder_(size)
            walker()
            for data, its in zip(ids, before, strict=True):
                data.copy_(its)

        replay = capture_step(walker, [*program.outputs.values()], str(self._rank), other_tokens)
        self.stages = (self.stages[0], self._stage_of(1, Replay(replay, self.first[1]), None))

    def lap(self) -> tuple[float, ...]:
        """Seconds in communication since the last lap, of each step."""
        return tuple(timer.lap() for timer in self._timers)

    def measurement(self, made: Generated, communication_s: tuple[float, ...]) -> RankGeneration:
        """What this rank made, how long it took, and what it holds."""
        cuda = self._rank.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        prefill, decode = self.programs
        return RankGeneration(
            rank=self._rank.rank,
            made=made,
            communication_s=communication_s,
            cache_nbytes=prefill.state_nbytes,
            weight_nbytes=_bytes_of({**prefill.weights, **decode.weights}),
            buffer_nbytes=prefill.buffer_nbytes + decode.buffer_nbytes,
            peak_nbytes=peak,
            weights_read_nbytes=self.weights_read_nbytes,
        )

    def _stage(self, which: int, timer: ActionTimer, moments: Moments | None) -> Stage:
        cell = self._rank.progress.cell
        walker = Walker(self.programs[which], self._groups, cell, timer, self.first[which])
        return self._stage_of(which, walker, moments)

    def _stage_of(self, which: int, step: Walker | Replay, moments: Moments | None) -> Stage:
        cell = self._rank.progress.cell

        def walk() -> None:
            cell[0] = step.first
            begin = self.clock.now()
            step()
            if moments is not None:
                moments.append((begin, self.clock.now()))
            cell[1] += 1
            self.clock.settle()

        return Stage([Feed(self.dags[which], self.programs[which])], walk)


class TracedSteps:
    """The steps of a plan, with every action timed.

    Attributes:
        stages: the prefill and the decode step.
    """

    def __init__(self, plan: BoundPlan) -> None:
        """Bind the steps of a plan once more."""
        self._recorders = [TraceRecorder(program, plan.clock) for program in plan.programs]
        self._moments: list[Moments] = [[] for _ in self._recorders]
        self.stages = plan.bound(self._recorders, self._moments)

    def read(self) -> list[list[RankTrace]]:
        """The traces of the steps of each kind that have run."""
        return [its.read(moments) for its, moments in zip(self._recorders, self._moments, strict=True)]


def _programs(dags: Sequence[Dag], rank: Rank, numbers: TensorSource) -> list[BoundProgram]:
    """This rank's part of each step; the decode step has the weights and the cache of the prefill."""
    found: list[BoundProgram] = []
    for dag in dags:

        def load(value: Value, dag: Dag = dag) -> torch.Tensor:
            dtype = TORCH[value.dtype]
            if dag.tensor[value.tensor].role == "weight":
                return numbers.value(dag, value, dtype, rank.device)
            return torch.zeros(value.shape, dtype=dtype, device=rank.device)

        first = found[0] if found else None
        states, weights = (first.states, first.weights) if first else (None, None)
        found.append(compile_rank(dag, rank.rank, rank.device, load, states, weights))
    return found


def _bytes_of(weights: Mapping[Any, torch.Tensor]) -> int:
    """Bytes of the memory that weights lie in, once where several lie in one."""
    return sum(storage.nbytes() for storage in {tensor.untyped_storage() for tensor in weights.values()})
