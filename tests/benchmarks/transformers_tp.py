"""The executor beside transformers' own tensor parallelism: one checkpoint, the same four ranks, steps in turn.

    pip install accelerate                    # transformers wants it for tp_plan
    python tests/benchmarks/transformers_tp.py [--steps N] [--json FILE]

A llama of hidden size 1024 in 8 layers, 4 sequences of 128 tokens, float32 on CPU ranks with gloo. transformers loads
it with ``tp_plan="auto"``; the executor runs the plan of four groups, with the residual stream replicated and sharded.
Every step of one is followed by a step of the others, so that noise hits all. Prints medians over the steps and the
ratio executor / transformers. A step takes as long as on its slowest rank.

All run on ranks of helixctl, which keep the memory that a step has freed (helixctl_runtime.ranks.heap). With
GLIBC_TUNABLES=glibc.malloc.perturb=0 in the environment these leave malloc alone, and all have glibc's own defaults, as
transformers has where torchrun starts it: the ratio is about the same. MALLOC_TRIM_THRESHOLD_ is no way to these
defaults: who sets it stops the thresholds of glibc from growing, which slows transformers down more than the executor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from helixctl_runtime.dtypes import TORCH  # noqa: E402
from helixctl_runtime.measure.action_timers import CommunicationTimer  # noqa: E402
from helixctl_runtime.measure.clock import Clock  # noqa: E402
from helixctl_runtime.measure.walk import Walker, fused  # noqa: E402
from helixctl_runtime.ranks import Phase, Rank, run_ranks  # noqa: E402
from helixctl_runtime.report.environment import environment  # noqa: E402
from helixctl_runtime.tensors.tensor_source import TensorSource  # noqa: E402
from tests.benchmarks.beside_transformers import RANKS, WARMUP, cluster_of_ranks, saved, tensor_parallel  # noqa: E402

WORK = WorkloadSpec(batch=4, seq_len=128, logits="all")
LAYOUTS = {
    "executor": Layout(groups=RANKS, slices=1, combine="reduce"),
    "executor, residual sharded": Layout(groups=RANKS, slices=1, combine="reduce", residual="sharded"),
}


@dataclass(frozen=True)
class Side:
    """One rank's part: every step of each in turn, after they were seen to compute one function."""

    dags: dict[str, Dag]
    folder: str
    ids: torch.Tensor
    steps: int

    def __call__(self, rank: Rank) -> dict[str, list[float]]:
        rank.init_process_group()
        sets = list(dict.fromkeys(ranks for dag in self.dags.values() for ranks in rank_sets(dag)))
        groups = groups_of(rank.new_groups(sets), sets, rank.rank, rank.device, rank.timeout)
        walks, programs = self._walkers(rank, groups)
        theirs = self._transformers(rank)
        rank.progress.enter(Phase.CHECKING)
        calls: dict[str, Callable[[], object]] = {"transformers": theirs, **walks}
        times: dict[str, list[float]] = {name: [] for name in calls}
        with torch.inference_mode():
            for step in range(self.steps + WARMUP):
                names = list(calls)[step % len(calls) :] + list(calls)[: step % len(calls)]
                for name in names:
                    dist.barrier()
                    begin = time.perf_counter()
                    calls[name]()
                    if step >= WARMUP:  # the first steps warm up
                        times[name].append(time.perf_counter() - begin)
            whole = theirs()
            for name, program in programs.items():
                ((value_id, mine),) = program.outputs.items()
                part = whole[tuple(slice(*interval) for interval in self.dags[name].value[value_id].region)]
                if not torch.allclose(mine.data, part, rtol=1e-4, atol=1e-4):
                    raise AssertionError(f"{name} computes another function than transformers")
        return times

    def _walkers(self, rank: Rank, groups: Any) -> tuple[dict[str, Callable[[], object]], dict[str, Any]]:
        numbers, found, programs = TensorSource(0, self.folder, None), {}, {}
        for name, dag in self.dags.items():

            def load(value: Any, dag: Dag = dag) -> torch.Tensor:
                if value.tensor == "input_ids":
                    return self.ids[tuple(slice(*interval) for interval in value.region)]
                return numbers.value(dag, value, TORCH[value.dtype], rank.device)

            program = compile_rank(dag, rank.rank, rank.device, load)
            walker = Walker(program, groups, rank.progress.cell, CommunicationTimer(Clock(rank.device, rank.rank)))

            def walk(walker: Walker = walker, program: Any = program) -> None:
                with fused([program]):
                    walker()

            found[name], programs[name] = walk, program
        return found, programs

    def _transformers(self, rank: Rank) -> Callable[[], torch.Tensor]:
        model = tensor_parallel(self.folder, rank)
        return lambda: model(self.ids, use_cache=False).logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ids = saved(Path(folder), WORK.batch, WORK.seq_len)
        model = load_model(folder).model
        cluster = cluster_of_ranks()
        dags = {name: lower(Plan.of(model, cluster, WORK, layout)) for name, layout in LAYOUTS.items()}
        for dag in dags.values():
            if found := verify(dag):
                sys.exit(str(found[0]))
        results: list[Any] = run_ranks(
            Side(dags, folder, ids, options.steps), world_size=RANKS, device="cpu", timeout=300,
            task_name=lambda _, place: str(place),
        )  # fmt: skip
    medians = {
        name: statistics.median(max(step) for step in zip(*(r[name] for r in results), strict=True))
        for name in results[0]
    }
    rows = [
        {"what": name, "step_ms": round(median * 1e3, 1), "ratio": round(median / medians["transformers"], 3)}
        for name, median in medians.items()
    ]
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    if options.json:
        data = {"environment": environment(), "transformers": transformers.__version__, "steps": options.steps}
        options.json.write_text(json.dumps({**data, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
