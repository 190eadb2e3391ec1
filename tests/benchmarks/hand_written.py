"""The executor beside the same layers written by hand in plain torch.distributed: same ranks, same run, interleaved.

    python tests/benchmarks/hand_written.py [--steps N] [--json FILE]

Every step of one is followed by a step of the other, so that noise hits both. Prints medians over the steps and the
ratio executor / by hand. A step takes as long as on its slowest rank.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from helixctl.dag import Dag  # noqa: E402
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
from tests.documents import SMALL, dag_of  # noqa: E402

# torch 2.13 renames it; 2.11 has only the old name.
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

# Groups, slices, and what differs from the small twin.
CASES: list[tuple[int, int, tuple[str, ...]]] = [
    (2, 2, ()),
    (2, 2, ("hidden_size=1024", "attention.head_dim=64", "feed_forward.intermediate_size=4096", "workload.batch=32")),
    (4, 4, ()),
    (1, 1, ()),
]


class ByHand:
    """A pre-norm transformer cut n x m, as one writes it without a compiler: about 60 lines of plain torch."""

    def __init__(self, dag: Dag, rank: Rank, groups: dict[tuple[int, ...], dist.ProcessGroup], load: Callable) -> None:
        plan, r = dag.plan, rank.rank
        self.layout, self.model, self.work, self.rank = plan.layout, plan.model, plan.workload, r
        self.inner = groups.get(self.layout.ranks_of_group(self.layout.group_of(r)))
        self.outer = groups.get(self.layout.ranks_of_slice(self.layout.slice_of(r)))
        self.x0 = load("input") if r == 0 else torch.empty(self.work.batch, self.work.seq_len, self.model.hidden_size)
        self.layers = []
        for i in range(self.model.layers):
            names = ("attention_norm", "w_q", "w_k", "w_v", "w_o", "feed_forward_norm", "w_up", "w_down")
            n1, wq, wk, wv, wo, n2, up, down = (load(f"l{i}.{name}") for name in names)
            qkv = torch.cat([w.flatten(1) for w in (wq, wk, wv)], dim=1)
            self.layers.append((n1, qkv, wo.flatten(0, 1), n2, up, down))

    def __call__(self) -> torch.Tensor:
        x = self.x0
        if self.layout.devices > 1:
            dist.broadcast(x, 0)
        for weights in self.layers:
            x = self.layer(x, *weights)
        return x

    def layer(self, x: torch.Tensor, n1: Any, w_qkv: Any, w_o: Any, n2: Any, w_up: Any, w_down: Any) -> torch.Tensor:
        b, s, hidden = x.shape
        a, n, m = self.model.attention, self.layout.groups, self.layout.slices
        heads, dims, width = a.heads // n, a.head_dim // m, a.softmax_width
        h = F.rms_norm(x, (hidden,), n1, self.model.norm.eps)
        q, k, v = ((h @ w_qkv).view(b, s, 3, heads * dims // width, width).permute(2, 0, 3, 1, 4)).unbind(0)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=a.causal).transpose(1, 2).reshape(b, s, heads, dims)
        if m > 1:
            o = gather(o, m, self.inner).permute(1, 2, 3, 0, 4).reshape(b, s, heads, a.head_dim)
        if n > 1:
            o = gather(o, n, self.outer).permute(1, 2, 0, 3, 4).reshape(b, s, a.heads, a.head_dim)
        p = o.flatten(2) @ w_o
        if n * m > 1:
            p = gather(p, n * m, None).permute(1, 2, 0, 3).reshape(b, s, hidden)
        x = x + p
        h = F.rms_norm(x, (hidden,), n2, self.model.norm.eps)
        y = F.gelu(h @ w_up) @ w_down
        if n * m > 1:
            dist.all_reduce(y)
        return x + y


def gather(x: torch.Tensor, ranks: int, group: dist.ProcessGroup | None) -> torch.Tensor:
    """All ranks' pieces, (ranks, *piece)."""
    parts = torch.empty(ranks * x.shape[0], *x.shape[1:])
    all_gather(parts, x.contiguous(), group=group)
    return parts.view(ranks, *x.shape)


@dataclass(frozen=True)
class Duel:
    """One rank's part: walk both in turn."""

    dag: Dag
    steps: int

    def __call__(self, rank: Rank) -> tuple[list[float], list[float]]:
        rank.init_process_group()
        sets = rank_sets(self.dag)
        processes = rank.new_groups(sets)
        groups = groups_of(processes, sets, rank.rank, rank.device, rank.timeout)
        numbers, dtype = TensorSource(0, None, None), TORCH[self.dag.plan.model.dtype]
        program = compile_rank(
            self.dag, rank.rank, rank.device, lambda v: numbers.value(self.dag, v, TORCH[v.dtype], rank.device)
        )
        walker = Walker(program, groups, rank.progress.cell, CommunicationTimer(Clock(rank.device, rank.rank)))
        value = {v.tensor: v for v in self.dag.values if v.rank == rank.rank and v.id not in self.dag.producer}
        by_hand = ByHand(
            self.dag, rank, processes, lambda name: numbers.value(self.dag, value[name], dtype, rank.device)
        )
        rank.progress.enter(Phase.CHECKING)
        times: tuple[list[float], list[float]] = ([], [])
        with torch.inference_mode(), fused([program]):
            for step in range(self.steps + 5):
                # Which one is first changes from step to step.
                for which in (0, 1) if step % 2 else (1, 0):
                    if rank.world_size > 1:
                        dist.barrier()
                    begin = time.perf_counter()
                    result = by_hand() if which else walker()
                    if step >= 5:  # the first steps warm up
                        times[which].append(time.perf_counter() - begin)
                    expected = result if which else None
                    if expected is not None:
                        (mine,) = program.outputs.values()
                        if step and not torch.allclose(mine.data, expected, rtol=1e-4, atol=1e-4):
                            raise AssertionError("the two compute different functions")
        return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for groups, slices, sets in CASES:
        dag = dag_of(SMALL, groups, slices, *sets)
        world = groups * slices
        results: list[Any] = run_ranks(
            Duel(dag, options.steps), world_size=world, device="cpu", timeout=120, task_name=lambda r, p: str(p)
        )
        medians = [
            statistics.median(max(t) for t in zip(*(r[which] for r in results), strict=True)) for which in (0, 1)
        ]
        model, work = dag.plan.model, dag.plan.workload
        row = {
            "layout": str(dag.plan.layout),
            "hidden_size": model.hidden_size,
            "tokens": work.tokens,
            "steps": options.steps,
            "executor_ms": round(medians[0] * 1e3, 3),
            "by_hand_ms": round(medians[1] * 1e3, 3),
            "ratio": round(medians[0] / medians[1], 3),
        }
        rows.append(row)
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"environment": environment(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
