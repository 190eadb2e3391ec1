"""A decode step of the executor, of plain torch.distributed by hand, and of transformers: same ranks, steps in turn.

    pip install accelerate                    # transformers wants it for tp_plan
    python tests/benchmarks/decode_step.py [--steps N] [--json FILE]

A llama of hidden size 1024 in 8 layers, 4 sequences with 128 tokens in the cache, float32 on four CPU ranks with gloo.
A step takes a token of every sequence and makes the next one, greedily. The executor runs two layouts: tensor parallel
4, and 2 x 2 with the cache cut by key; for each there is the same mathematics written by hand. transformers loads the
checkpoint with ``tp_plan="auto"``. Every step of one is followed by a step of the others, so that noise hits all, and
all steps are alike: each begins with 128 tokens in the cache. A step takes as long as on its slowest rank. Prints
medians over the steps, and the ratios executor / by hand and executor / transformers of these medians.

The prefill of the 128 tokens is timed in the same way, executor beside transformers, a few times.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
import transformers  # noqa: E402

from helixctl.dag import Dag  # noqa: E402
from helixctl.lower import lower  # noqa: E402
from helixctl.plan import Layout, Plan  # noqa: E402
from helixctl.spec import WorkloadSpec  # noqa: E402
from helixctl.spec.load import load_model  # noqa: E402
from helixctl.verify import verify  # noqa: E402
from helixctl_runtime.comm.collectives import rank_sets  # noqa: E402
from helixctl_runtime.comm.group import groups_of  # noqa: E402
from helixctl_runtime.compile import compile_rank  # noqa: E402
from helixctl_runtime.compile.bound import BoundProgram  # noqa: E402
from helixctl_runtime.dtypes import TORCH  # noqa: E402
from helixctl_runtime.generate import Feed  # noqa: E402
from helixctl_runtime.generate.loop import Stage  # noqa: E402
from helixctl_runtime.measure.action_timers import CommunicationTimer  # noqa: E402
from helixctl_runtime.measure.clock import Clock  # noqa: E402
from helixctl_runtime.measure.walk import Walker, fused  # noqa: E402
from helixctl_runtime.ranks import Phase, Rank, run_ranks  # noqa: E402
from helixctl_runtime.report.environment import environment  # noqa: E402
from helixctl_runtime.tensors.tensor_source import TensorSource  # noqa: E402
from tests.benchmarks.beside_transformers import RANKS, WARMUP, cluster_of_ranks, saved, tensor_parallel  # noqa: E402
from tests.benchmarks.decode_by_hand import ByHand  # noqa: E402

CACHED = 128
WORK = WorkloadSpec(batch=4, seq_len=CACHED, output_len=64, logits="last")
LAYOUTS = {
    "4 x 1": Layout(groups=RANKS, slices=1, combine="reduce"),
    "2 x 2 by key": Layout(groups=2, slices=2, slicing="key", combine="reduce"),
}


@dataclass(frozen=True)
class Side:
    """One rank's part: every step of each in turn, after they were seen to choose the same tokens.

    Attributes:
        dags: of the prefill and of the decode step, by layout.
        folder: of the checkpoint.
        ids: the prompts, (batch, 128).
        steps, prefills: how many are timed.
    """

    dags: dict[str, tuple[Dag, Dag]]
    folder: str
    ids: torch.Tensor
    steps: int
    prefills: int

    def __call__(self, rank: Rank) -> dict[str, dict[str, list[tuple[float, float]]]]:
        """Seconds and seconds of CPU of every call, by step and by whose."""
        rank.init_process_group()
        sets = [ranks for pair in self.dags.values() for dag in pair for ranks in rank_sets(dag)]
        processes = rank.new_groups(sets)
        groups = groups_of(processes, sets, rank.rank, rank.device, rank.timeout)
        with torch.inference_mode():
            theirs = _Transformers(self.folder, rank)
            prefills: dict[str, Callable[[], torch.Tensor]] = {"transformers": lambda: theirs.prefill(self.ids)}
            decodes: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"transformers": theirs.decode}
            for name, dags in self.dags.items():
                ours = _Executor(dags, self.folder, rank, groups)
                prefills[f"executor, {name}"] = lambda ours=ours: ours.prefill(self.ids)  # type: ignore[misc]
                decodes[f"executor, {name}"] = ours.decode
                expected = prefills["transformers"]()
                if not torch.equal(ours.prefill(self.ids), expected):
                    raise AssertionError(f"{name}: another token behind the prompt than transformers'")
                decodes[f"by hand, {name}"] = ours.by_hand(processes)
            rank.progress.enter(Phase.CHECKING)
            decode = _in_turn(decodes, self.steps, expected.unsqueeze(1), theirs.settle)
            prefill = _in_turn({name: lambda _, run=run: run() for name, run in prefills.items()}, self.prefills)
        return {"decode": decode, "prefill": prefill}


def _in_turn(
    calls: dict[str, Callable[[Any], torch.Tensor]],
    steps: int,
    ids: torch.Tensor | None = None,
    settle: Callable[[], object] = lambda: None,
) -> dict[str, list[tuple[float, float]]]:
    """Call each once a step, another one first each time; ``settle`` is called ahead of each, outside the time."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    order = list(calls)
    for step in range(steps + WARMUP):
        tokens = {}
        for name in order[step % len(order) :] + order[: step % len(order)]:
            settle()
            dist.barrier()
            begin, cpu = time.perf_counter(), time.process_time()
            tokens[name] = calls[name](ids)
            spent = time.perf_counter() - begin, time.process_time() - cpu
            if step >= WARMUP:  # the first steps warm up
                times[name].append(spent)
        for name, made in tokens.items():
            if not torch.equal(made, tokens["transformers"]):
                raise AssertionError(f"{name} chooses other tokens than transformers")
    return times


class _Executor:
    """The executor's two steps of one layout."""

    def __init__(self, dags: tuple[Dag, Dag], folder: str, rank: Rank, groups: Any) -> None:
        self.dags, self.rank = dags, rank
        self.numbers = TensorSource(0, folder, None)
        programs: list[BoundProgram] = []
        self.stages = []
        for dag in dags:

            def load(value: Any, dag: Dag = dag) -> torch.Tensor:
                dtype = TORCH[value.dtype]
                if dag.tensor[value.tensor].role == "weight":
                    return self.numbers.value(dag, value, dtype, rank.device)
                return torch.zeros(value.shape, dtype=dtype, device=rank.device)

            held = (programs[0].states, programs[0].weights) if programs else (None, None)
            programs.append(compile_rank(dag, rank.rank, rank.device, load, *held))
            walker = Walker(programs[-1], groups, rank.progress.cell, CommunicationTimer(Clock(rank.device, rank.rank)))
            self.stages.append(Stage([Feed(dag, programs[-1])], walker))
        self.programs = programs
        self.made = torch.empty(WORK.batch, dtype=torch.int64)

    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        return self._step(0, ids, 0)

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        return self._step(1, ids, CACHED)

    def _step(self, which: int, ids: torch.Tensor, length: int) -> torch.Tensor:
        counts = (torch.full((WORK.batch,), each) for each in (length, ids.shape[1]))
        with fused([self.programs[which]]):
            self.stages[which](ids, *counts, self.made)
        return self.made.clone()

    def by_hand(self, processes: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        """The same decode step by hand, with the weights, and with a copy of the cache."""
        dag, layout, r = self.dags[1], self.dags[1].plan.layout, self.rank.rank
        value = {v.tensor: v for v in dag.values if v.rank == r and v.id not in dag.producer}
        states = {dag.value[v].tensor: data for v, data in self.programs[1].states.items()}

        def load(name: str) -> torch.Tensor:
            if name in states:
                return states[name]
            return self.numbers.value(dag, value[name], torch.float32, self.rank.device)

        step = ByHand(dag, r, processes.get(layout.ranks_of_group(layout.group_of(r))), load)
        return lambda ids: step(ids, CACHED)


class _Transformers:
    """transformers' steps, tensor parallel over all ranks."""

    def __init__(self, folder: str, rank: Rank) -> None:
        self.model = tensor_parallel(folder, rank)
        self.cache: Any = None

    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        self.cache = transformers.DynamicCache(config=self.model.config)
        return self.decode(ids)

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        made = self.model(ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        return made.logits[:, -1].argmax(-1)

    def settle(self) -> None:
        """Take what a step added out of the cache."""
        if added := self.cache.get_seq_length() - CACHED:
            self.cache.crop(-added)


def summary(results: list[Any], step: str) -> list[dict[str, Any]]:
    """A row for each: quantiles of a step's time, the median of the ranks' CPU time, and ratios of medians."""
    rows: dict[str, dict[str, Any]] = {}
    for name in results[0][step]:
        ranks = [r[step][name] for r in results]
        times = [max(wall for wall, _ in each) * 1e3 for each in zip(*ranks, strict=True)]
        cpu = [sum(spent for _, spent in each) * 1e3 for each in zip(*ranks, strict=True)]
        p10, p50, p90 = (statistics.quantiles(times, n=10)[i] for i in (0, 4, 8))
        rows[name] = {"step": step, "what": name, "p10_ms": p10, "p50_ms": p50, "p90_ms": p90,
                      "cpu_ms_of_all_ranks": statistics.median(cpu)}  # fmt: skip
    for name, row in rows.items():
        whose, _, layout = name.partition(", ")
        if whose == "executor":
            for other, key in ((f"by hand, {layout}", "by_hand"), ("transformers", "transformers")):
                if other in rows:
                    row[f"ratio_to_{key}"] = row["p50_ms"] / rows[other]["p50_ms"]
    return [{k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in rows.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--prefills", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ids = saved(Path(folder), WORK.batch, CACHED)
        model = load_model(folder).model
        cluster = cluster_of_ranks()
        dags = {}
        for name, layout in LAYOUTS.items():
            plan = Plan.of(model, cluster, WORK, layout)
            dags[name] = lower(plan, step="prefill"), lower(plan, step="decode")
            for dag in dags[name]:
                if found := verify(dag):
                    sys.exit(str(found[0]))
        results: list[Any] = run_ranks(
            Side(dags, folder, ids, options.steps, options.prefills), world_size=RANKS, device="cpu", timeout=300,
            task_name=lambda _, place: str(place),
        )  # fmt: skip
    rows = [row for step in ("decode", "prefill") for row in summary(results, step)]
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    if options.json:
        data = {"environment": environment(), "transformers": transformers.__version__}
        when = datetime.now(UTC).isoformat(timespec="seconds")
        data |= {"made_at": when, "load": os.getloadavg(), "steps": options.steps, "prefills": options.prefills}
        options.json.write_text(json.dumps({**data, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
