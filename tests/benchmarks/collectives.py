"""Collectives between the CPU ranks of one host: by gloo, by the sockets and by the memory that ranks share.

    python tests/benchmarks/collectives.py [--ranks 2 4 8] [--kib 64 ... 8192] [--repeat N] [--json FILE]

Every way takes its turn on the same ranks, so that noise hits all. Prints, for each kind and each size of what a rank
sends to each other (of a reduce_scatter: of the whole that it sends), the median over the loops of the time of a
collective, on the slowest rank, and of the processor time of all threads of a rank, in the mean over the ranks. "-":
the program does not take this way for it. Sums of more ranks than the program reads from memory are shown as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402

from helixctl.dag import AllGather, AllReduce, AllToAll, Op, ReduceScatter, Task  # noqa: E402
from helixctl_runtime.comm import by_memory as memory  # noqa: E402
from helixctl_runtime.comm.by_links import by_links  # noqa: E402
from helixctl_runtime.comm.collectives import Issue, issue  # noqa: E402
from helixctl_runtime.comm.group import Group, groups_of  # noqa: E402
from helixctl_runtime.compile.bound import Exchange  # noqa: E402
from helixctl_runtime.ranks import Phase, Rank, run_ranks  # noqa: E402
from helixctl_runtime.report.environment import environment  # noqa: E402

OPS: dict[str, Op] = {
    "all_reduce": AllReduce(),
    "all_gather": AllGather("x"),
    "reduce_scatter": ReduceScatter("x"),
    "all_to_all": AllToAll("x", "y"),
}
WAYS = ("gloo", "sockets", "memory")
Cell = tuple[str, int, str]


@dataclass(frozen=True)
class Loops:
    """One rank's times, in seconds of a collective: by kind, KiB and way, of each loop (wall, processor)."""

    kib: list[int]
    loops: int
    repeat: int

    def __call__(self, rank: Rank) -> dict[Cell, list[tuple[float, float]]]:
        rank.init_process_group()
        members = tuple(range(rank.world_size))
        group = groups_of(rank.new_groups([members]), [members], rank.rank, rank.device, rank.timeout)[members]
        calls = {
            (kind, kib, way): call
            for kind in OPS
            for kib in self.kib
            for way, call in ways(kind, kib * 1024, rank.rank, members, group).items()
        }
        rank.progress.enter(Phase.CHECKING)
        times: dict[Cell, list[tuple[float, float]]] = {cell: [] for cell in calls}
        for loop in range(self.loops + 1):
            for cell, call in calls.items():
                repeat = max(1, self.repeat * 256 // max(256, cell[1]))
                dist.barrier()
                begin, processor = time.perf_counter(), time.process_time()
                for _ in range(repeat):
                    call().wait()
                spent = (time.perf_counter() - begin) / repeat, (time.process_time() - processor) / repeat
                if loop:  # the first warms up
                    times[cell].append(spent)
        return times


def ways(kind: str, nbytes: int, rank: int, members: tuple[int, ...], group: Group) -> dict[str, Issue]:
    """The calls that start a collective, by way."""
    numel, n = nbytes // 4, len(members)
    numel -= numel % n
    send = torch.zeros(numel)
    receive = {"all_gather": n * numel, "reduce_scatter": numel // n, "all_to_all": numel}.get(kind)
    task = Task("t", 0, "transfer", OPS[kind], members, (), (), 0, 0)
    exchange = Exchange(0, task, send, send if receive is None else torch.zeros(receive))
    assert group.links
    found = {
        "gloo": issue(exchange, rank, Group(group.process)),
        "sockets": by_links(exchange, rank, group.links),
        "memory": memory.by_memory(exchange, rank, group.links),
    }
    return {way: call for way, call in found.items() if call}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--kib", type=int, nargs="+", default=[64, 128, 256, 1024, 2048, 8192])
    parser.add_argument("--loops", type=int, default=7)
    parser.add_argument("--repeat", type=int, default=20, help="collectives of a loop, of at most 256 KiB")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    memory.MOST_SUMMED = max(options.ranks)  # type: ignore[misc]  # to see where the limit belongs
    rows = []
    for ranks in options.ranks:
        results: list[Any] = run_ranks(
            Loops(options.kib, options.loops, options.repeat), world_size=ranks, device="cpu", timeout=120,
            task_name=lambda _, place: str(place),
        )  # fmt: skip
        for kind in OPS:
            for kib in options.kib:
                row: dict[str, Any] = {"ranks": ranks, "kind": kind, "kib": kib}
                for way in WAYS:
                    if (kind, kib, way) in results[0]:
                        loops = [*zip(*(result[kind, kib, way] for result in results), strict=True)]
                        wall = statistics.median(max(wall for wall, _ in loop) for loop in loops)
                        spent = statistics.median(statistics.mean(cpu for _, cpu in loop) for loop in loops)
                        row |= {f"{way}_ms": round(wall * 1e3, 3), f"{way}_processor_ms": round(spent * 1e3, 3)}
                rows.append(row)
                cells = ", ".join(
                    f"{way} {row.get(f'{way}_ms', '-')} ({row.get(f'{way}_processor_ms', '-')})" for way in WAYS
                )
                print(f"{ranks} ranks, {kind} of {kib} KiB: ms (of a processor) {cells}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"environment": environment(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
