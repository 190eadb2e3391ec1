"""A session of one rank: the steps of a plan over one cache and one set of weights, from prompts to tokens."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import torch
import torch.distributed as dist

from helixctl.dag import Dag, Tensor, Value
from helixctl_runtime.agree import agree
from helixctl_runtime.check.generation import check_generation
from helixctl_runtime.comm.collectives import rank_sets
from helixctl_runtime.compile import compile_rank
from helixctl_runtime.compile.bound import BoundProgram
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.generate import Feed, Generated, Prompts, generate
from helixctl_runtime.generate.loop import Stage
from helixctl_runtime.generate.text import Printer
from helixctl_runtime.measure.action_timers import CommunicationTimer
from helixctl_runtime.measure.clock import Clock
from helixctl_runtime.measure.task_numbering import TaskNumbering
from helixctl_runtime.measure.walk import Walker, fused
from helixctl_runtime.ranks import Phase, Rank
from helixctl_runtime.report.generation import RankGeneration, generation
from helixctl_runtime.report.result import check_report
from helixctl_runtime.tensors.tensor_source import TensorSource, write_tensor

# Tokens after the prompt in the run that comes before the measured one.
_WARM: int = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """What a generation is told.

    Attributes:
        prompts: what to continue; the plan's batch.
        new: tokens after each prompt, at most.
        ends: tokens that end a sequence.
        seed: of weights that come from no file, and of the random numbers where tokens are drawn.
        warm: whether a short run comes before the measured one.
        check: compare the logits of every token with one pass of the unpartitioned model in float64.
        weights, weights_prefix: as of ``execute.Options``.
        output: safetensors file for the tensor ``tokens``, int64 (batch, new).
        tokenizer: a tokenizer.json with which rank 0 prints the text after the first prompt as it comes.
        aside: it prints to standard error, because standard output is taken.
        source: of prompts that a file holds what the report says of it: ``path`` and ``notes``.
    """

    prompts: Prompts
    new: int
    ends: tuple[int, ...] = ()
    seed: int = 0
    warm: bool = True
    weights: str | None = None
    weights_prefix: str | None = None
    output: str | None = None
    tokenizer: str | None = None
    aside: bool = False
    source: dict[str, Any] | None = None
    check: bool = False


@dataclass(frozen=True, slots=True)
class Generation:
    """What each rank is given; picklable, so that it can be sent to a spawned rank.

    Attributes:
        places: the dags of the prefill and of the decode step.
        asked: the same for all.
        digests: of the dags.
    """

    places: TaskNumbering
    asked: Asked
    digests: tuple[str, ...]

    def __call__(self, rank: Rank) -> dict[str, Any] | None:
        """Be one rank; rank 0 returns the report, with the tokens."""
        return _Session(self, rank).run()


class _Session:
    def __init__(self, work: Generation, rank: Rank) -> None:
        self.places, self.asked, self.rank = work.places, work.asked, rank
        self.digests = work.digests
        self.numbers = TensorSource(self.asked.seed, self.asked.weights, None, self.asked.weights_prefix)

    def run(self) -> dict[str, Any] | None:
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        rank, asked = self.rank, self.asked
        rank.init_process_group()
        agree(rank, self.digests, _shared(asked), self.numbers)
        groups = rank.new_groups([ranks for dag in self.places.dags for ranks in rank_sets(dag)])
        programs = self._programs()
        read_nbytes = self.numbers.weights_read_nbytes
        account = self.numbers.account(self.places.dags[0])
        self.numbers.close()
        clock = Clock(rank.device, rank.rank)
        timers = [CommunicationTimer(clock) for _ in programs]
        prefill, decode = (self._stage(i, its, groups, timers[i], clock) for i, its in enumerate(programs))
        chunk = self.places.dags[0].work.seq_len
        rank.progress.enter(Phase.RUNNING)
        printer = self._printer()
        with fused(programs), torch.inference_mode():
            if asked.warm:
                generate(prefill, decode, asked.prompts, chunk=chunk, new=min(_WARM, asked.new), seed=asked.seed)
                for timer in timers:
                    timer.lap()
            dist.barrier()
            said = printer.add if printer else None
            logits = self._empty_logits()
            how: dict[str, Any] = {"new": asked.new, "ends": asked.ends, "seed": asked.seed}
            made = generate(prefill, decode, asked.prompts, chunk=chunk, said=said, logits=logits, **how)
        if printer:
            printer.end()
        kept: list[Any] = [None] * rank.world_size
        dist.all_gather_object(kept, logits)
        mine = self._measurement(programs, made, [timer.lap() for timer in timers], read_nbytes)
        gathered = [mine] * rank.world_size
        dist.all_gather_object(gathered, mine)
        if rank.rank:
            return None
        report = generation(
            self.places.dags,
            gathered,
            prompt_tokens=asked.prompts.lengths.tolist(),
            seed=asked.seed,
            started_at=started_at,
            source=asked.source,
            weights=account,
        )
        report["check"] = None if logits is None else self._check(report["tokens"], kept)
        if asked.output:
            write_tensor(asked.output, "tokens", torch.tensor(report["tokens"], dtype=torch.int64))
        return report

    def _empty_logits(self) -> torch.Tensor | None:
        """Room for the logits of all tokens, where they are to be checked."""
        if not self.asked.check:
            return None
        batch, vocab = self.places.dags[1].tensor["logits"].shape
        return torch.full((batch, self.asked.new, vocab), torch.nan, dtype=torch.float64)

    def _check(self, tokens: list[list[int]], kept: list[torch.Tensor]) -> dict[str, Any]:
        """How the logits of all ranks compare with one pass in float64; rank 0 calls it."""
        self.rank.progress.enter(Phase.CHECKING)
        whole = kept[0]
        for its in kept[1:]:
            whole = torch.where(torch.isnan(whole), its, whole)
        plan, prompts = self.places.dags[0].plan, self.asked.prompts
        ids = [row[:length].tolist() for row, length in zip(prompts.ids, prompts.lengths.tolist(), strict=True)]

        def load(tensor: Tensor) -> torch.Tensor:
            return self.numbers.region(tensor, tensor.full, TORCH[plan.model.dtype], torch.device("cpu"))

        check, chosen = check_generation(plan, load, ids, torch.tensor(tokens), whole, self.asked.seed)
        found = check_report([check]) or {}
        counted = {"wrong_tokens": chosen.wrong, "tokens_unlike_float64": chosen.unlike_float64}
        return found | {"passed": found["passed"] and not chosen.wrong} | counted

    def _printer(self) -> Printer | None:
        if self.asked.tokenizer is None or self.rank.rank:
            return None
        return Printer(self.asked.tokenizer, sys.stderr if self.asked.aside else sys.stdout)

    def _programs(self) -> list[BoundProgram]:
        """This rank's part of each step; the decode step has the weights and the cache of the prefill."""
        found: list[BoundProgram] = []
        for dag in self.places.dags:

            def load(value: Value, dag: Dag = dag) -> torch.Tensor:
                dtype = TORCH[value.dtype]
                if dag.tensor[value.tensor].role == "weight":
                    return self.numbers.value(dag, value, dtype, self.rank.device)
                return torch.zeros(value.shape, dtype=dtype, device=self.rank.device)

            first = found[0] if found else None
            states, weights = (first.states, first.weights) if first else (None, None)
            found.append(compile_rank(dag, self.rank.rank, self.rank.device, load, states, weights))
        return found

    def _stage(
        self,
        which: int,
        program: BoundProgram,
        groups: dict[tuple[int, ...], dist.ProcessGroup],
        timer: CommunicationTimer,
        clock: Clock,
    ) -> Stage:
        cell = self.rank.progress.cell
        walker = Walker(program, groups, cell, timer, self.places.first(which))

        def walk() -> None:
            cell[0] = walker.first
            walker()
            cell[1] += 1
            clock.settle()

        return Stage([Feed(self.places.dags[which], program)], walk)

    def _measurement(
        self, programs: list[BoundProgram], made: Generated, communication_s: list[float], read_nbytes: int
    ) -> RankGeneration:
        cuda = self.rank.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        prefill, decode = programs
        return RankGeneration(
            rank=self.rank.rank,
            made=made,
            communication_s=tuple(communication_s),
            cache_nbytes=sum(t.nbytes for t in prefill.states.values()),
            weight_nbytes=_bytes_of({**prefill.weights, **decode.weights}),
            buffer_nbytes=prefill.buffer_nbytes + decode.buffer_nbytes,
            peak_nbytes=peak,
            weights_read_nbytes=read_nbytes,
        )


def _bytes_of(weights: dict[Any, torch.Tensor]) -> int:
    """Bytes of the memory that weights lie in, once where several lie in one."""
    return sum(storage.nbytes() for storage in {tensor.untyped_storage() for tensor in weights.values()})


def _shared(asked: Asked) -> dict[str, object]:
    """What all ranks have to be told alike; of files whether there are any."""
    ids = json.dumps([asked.prompts.ids.tolist(), asked.prompts.lengths.tolist()])
    up_to = f" (up to one of {', '.join(map(str, asked.ends))})" if asked.ends else ""
    return {
        "generate": f"{asked.new}{up_to}",
        "check": asked.check,
        "seed": asked.seed,
        "weights": asked.weights is not None,
        "weights-prefix": asked.weights_prefix,
        "prompt": f"with the tokens {sha256(ids.encode()).hexdigest()[:12]}",
    }
