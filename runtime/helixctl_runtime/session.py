"""A session of one rank: the steps of plans, each over one cache and one set of weights, from prompts to tokens."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import torch
import torch.distributed as dist

from helixctl.dag import Tensor
from helixctl_runtime.agree import agree
from helixctl_runtime.bound_plan import BoundPlan, TracedSteps
from helixctl_runtime.check.generation import check_generation
from helixctl_runtime.comm.collectives import rank_sets
from helixctl_runtime.comm.group import groups_of
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.generate import Generated, Prompts
from helixctl_runtime.generate.loop import Kept, Stage, in_turns, turns, whole_logits
from helixctl_runtime.generate.margins import Draw, Margins, merged
from helixctl_runtime.generate.schedule import TRACED, WARM, Part, schedule
from helixctl_runtime.generate.text import Printer
from helixctl_runtime.measure.cuda_graph import uses_cuda_graph
from helixctl_runtime.measure.measure import exposed_s
from helixctl_runtime.measure.step_trace import RankTrace, typical_steps
from helixctl_runtime.measure.task_numbering import TaskNumbering
from helixctl_runtime.measure.walk import fused
from helixctl_runtime.ranks import Phase, Rank
from helixctl_runtime.report.generation import generation
from helixctl_runtime.report.generations import Generations
from helixctl_runtime.report.result import check_report
from helixctl_runtime.tensors.tensor_source import TensorSource, write_tensor


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
        head: what it prints ahead of this text.
        aside: it prints to standard error, because standard output is taken.
        source: of prompts that a file holds what the report says of it: ``path`` and ``notes``.
        trace: time every action in a short generation after the measured one.
        cuda_graph: replay decode steps from a CUDA graph; a short run comes before the measured one in any case.
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
    head: str = ""
    aside: bool = False
    source: dict[str, Any] | None = None
    check: bool = False
    trace: bool = False
    cuda_graph: bool = False

    def schedule(self, chunks: Sequence[int]) -> tuple[Part, ...]:
        """The steps in their order, by plans whose prefill takes ``chunks`` tokens of a sequence a step.

        Args:
            chunks: of each plan the tokens of a sequence in a step of its prefill.
        """
        steps = [-(-self.prompts.ids.shape[1] // chunk) for chunk in chunks]
        graph = self.cuda_graph and self.new > 1
        return schedule(steps, self.new, warm=self.warm or graph, traced=self.trace or graph)


@dataclass(frozen=True, slots=True)
class Generation:
    """What each rank is given; picklable, so that it can be sent to a spawned rank.

    Attributes:
        places: the dags of the prefill and of the decode step of one plan, or of each of several, in turn.
        asked: the same for all.
        digests: of the dags.
    """

    places: TaskNumbering
    asked: Asked
    digests: tuple[str, ...]

    def __call__(self, rank: Rank) -> Generations | None:
        """Be one rank; rank 0 returns the report of each plan, with the tokens."""
        return _Session(self, rank).run()


@dataclass(slots=True)
class _Seen:
    """What a rank keeps of the logits of one plan."""

    whole: torch.Tensor | None
    margins: Margins | None

    def keep(self, stage: Stage, step: int, sequences: torch.Tensor) -> None:
        if self.whole is not None:
            whole_logits(self.whole)(stage, step, sequences)
        if self.margins is not None:
            self.margins.keep(stage, step, sequences)


class _Session:
    def __init__(self, work: Generation, rank: Rank) -> None:
        self.places, self.asked, self.rank = work.places, work.asked, rank
        self.digests = work.digests
        self.numbers = TensorSource(self.asked.seed, self.asked.weights, None, self.asked.weights_prefix)

    def run(self) -> Generations | None:
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        rank, asked = self.rank, self.asked
        rank.init_process_group()
        agree(rank, self.digests, _shared(asked), self.numbers)
        sets = [ranks for dag in self.places.dags for ranks in rank_sets(dag)]
        groups = groups_of(rank.new_groups(sets), sets, rank.rank, rank.device, rank.timeout)
        dags, plans = self.places.dags, list[BoundPlan]()
        for at in range(0, len(dags), 2):
            first = [self.places.first(which) for which in (at, at + 1)]
            plans.append(BoundPlan(dags[at : at + 2], first, rank, groups, self.numbers))
        accounts = [self.numbers.account(plan.dags[0]) for plan in plans]
        self.numbers.close()
        able = [False] * rank.world_size
        dist.all_gather_object(able, all(plan.programs[1].on_device for plan in plans))
        # A graph holds decode steps alone: where one token comes after each prompt there are none.
        graph = uses_cuda_graph(able, wanted=asked.cuda_graph) and asked.new > 1
        rank.progress.enter(Phase.RUNNING)
        printer = self._printer()
        with fused([program for plan in plans for program in plan.programs]), torch.inference_mode():
            for plan in plans if asked.warm or graph else ():
                self._generate([self._turns(plan, new=min(WARM, asked.new))], [plan])
                plan.lap()
                if graph:
                    plan.capture()
            dist.barrier()
            seen = [self._room(plan, several=len(plans) > 1) for plan in plans]
            made = self._generate(
                [
                    self._turns(plan, ends=asked.ends, kept=its.keep, printer=None if number else printer)
                    for number, (plan, its) in enumerate(zip(plans, seen, strict=True))
                ],
                plans,
                rounds=asked.new + 1 if len(plans) > 1 else 0,
            )
            if printer:
                printer.end()
            communication = [plan.lap() for plan in plans]
            # Where all sequences have ended early, steps that were scheduled have not been taken.
            parts = asked.schedule([plan.chunk for plan in plans])
            rank.progress.cell[1] = sum(part.steps for part in parts if part.run != "traced")
            traced = [self._traced(plan) for plan in plans if asked.trace or graph]
        if graph:  # a replay cannot be timed inside
            each = zip(communication, made, traced, strict=True)
            communication = [(of[0], len(its.decode_s) * exposed_s(steps[1])) for of, its, steps in each]
        each_made = zip(plans, made, communication, strict=True)
        mine = [plan.measurement(its, seconds) for plan, its, seconds in each_made]
        gathered: list[Any] = [None] * rank.world_size
        dist.all_gather_object(gathered, (mine, seen, traced))
        if rank.rank:
            return None
        ranks, all_seen, traces = (list(zip(*each, strict=True)) for each in zip(*gathered, strict=True))
        reports = [
            generation(
                plan.dags,
                its,
                prompt_tokens=asked.prompts.lengths.tolist(),
                seed=asked.seed,
                started_at=started_at,
                source=asked.source,
                weights=account,
                cuda_graph=graph,
            )
            for plan, its, account in zip(plans, ranks, accounts, strict=True)
        ]
        for plan, report, its in zip(plans, reports, all_seen, strict=True):
            report["check"] = self._check(plan, report["tokens"], [each.whole for each in its]) if asked.check else None
        if asked.output:
            write_tensor(asked.output, "tokens", torch.tensor(reports[0]["tokens"], dtype=torch.int64))
        margins = [merged([each.margins for each in its]) for its in all_seen if its[0].margins]
        spans = [typical_steps(plan.dags, its) for plan, its in zip(plans, traces, strict=False) if asked.trace]
        return Generations(reports, margins, spans)

    def _turns(
        self,
        plan: BoundPlan,
        *,
        new: int | None = None,
        ends: tuple[int, ...] = (),
        kept: Kept | None = None,
        printer: Printer | None = None,
        stages: tuple[Stage, Stage] | None = None,
    ) -> Generator[None, None, Generated]:
        said = printer.add if printer else None
        new = new or self.asked.new
        how: dict[str, Any] = {"new": new, "ends": ends, "seed": self.asked.seed, "kept": kept, "said": said}
        how["meets"] = plan.dags[0].plan.layout.expert_data > 1
        return turns(*(stages or plan.stages), self.asked.prompts, chunk=plan.chunk, **how)

    def _traced(self, plan: BoundPlan) -> list[list[RankTrace]]:
        """The traces of the steps of each kind in a short generation, whose steps all ranks begin together."""
        traced = TracedSteps(plan)
        new = min(TRACED, self.asked.new)
        self._generate([self._turns(plan, new=new, stages=traced.stages)], [plan], rounds=new + 1)
        return traced.read()

    def _generate(
        self, runs: list[Generator[None, None, Generated]], plans: Sequence[BoundPlan], rounds: int = 0
    ) -> list[Generated]:
        """Without rounds no rank waits for others between steps; with them all ranks begin every turn together."""
        if not rounds:
            return in_turns(runs)
        cell = self.rank.progress.cell

        def together(which: int) -> None:
            cell[0] = plans[which].first[1]
            dist.barrier()

        # Replicas may be done earlier than others, and meet them all the same.
        return in_turns(runs, together, rounds)

    def _room(self, plan: BoundPlan, *, several: bool) -> _Seen:
        """Room for the logits of all tokens, where they are to be checked, and for the margins of plans to compare."""
        batch, vocab = plan.dags[1].tensor["logits"].shape
        whole = torch.full((batch, self.asked.new, vocab), torch.nan, dtype=torch.float64) if self.asked.check else None
        sampling, lengths = plan.dags[1].plan.workload.sampling, self.asked.prompts.lengths
        draw = None if sampling is None else Draw(sampling, self.asked.seed, lengths, vocab)
        return _Seen(whole, Margins(batch, self.asked.new, draw) if several else None)

    def _check(self, bound: BoundPlan, tokens: list[list[int]], kept: list[torch.Tensor]) -> dict[str, Any]:
        """How the logits of all ranks compare with one pass in float64; rank 0 calls it."""
        self.rank.progress.enter(Phase.CHECKING)
        whole = kept[0]
        for its in kept[1:]:
            whole = torch.where(torch.isnan(whole), its, whole)
        plan, prompts = bound.dags[0].plan, self.asked.prompts
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
        return Printer(self.asked.tokenizer, sys.stderr if self.asked.aside else sys.stdout, self.asked.head)


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
        "trace": asked.trace,
        "cuda-graph": asked.cuda_graph,
        "prompt": f"with the tokens {sha256(ids.encode()).hexdigest()[:12]}",
    }
