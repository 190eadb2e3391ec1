"""How long things take to start: `helixctl plan` of the paper's model as a whole process, and 16 local ranks.

python tests/benchmarks/start.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

import torch.distributed as dist  # noqa: E402

from helixctl_runtime.comm.collectives import rank_sets  # noqa: E402
from helixctl_runtime.ranks import Rank, run_ranks  # noqa: E402
from helixctl_runtime.report.environment import environment  # noqa: E402
from tests.documents import PAPER, SMALL, dag_of  # noqa: E402


@dataclass(frozen=True)
class Up:
    """A worker that joins, makes the groups of a 4 x 4 plan, and says when all ranks had come to the first barrier."""

    groups: list[tuple[int, ...]]

    def __call__(self, rank: Rank) -> float:
        rank.init_process_group()
        rank.new_groups(self.groups)
        dist.barrier()
        return time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    rows: dict[str, Any] = {"environment": environment(), "runs": options.runs}
    layout = ("--plain", "--groups", "4", "--slices", "4")
    plan = [sys.executable, "-m", "helixctl", "plan", *PAPER, *layout, "-o", "/dev/null"]
    rows["plan_s"] = spread(
        [timed(lambda: subprocess.run(plan, check=True, capture_output=True)) for _ in range(options.runs)]
    )
    rows["help_s"] = spread(
        [
            timed(lambda: subprocess.run([*plan[:3], "--help"], check=True, capture_output=True))
            for _ in range(options.runs)
        ]
    )
    rows["16_ranks_to_first_barrier_s"] = spread([sixteen_ranks() for _ in range(options.runs)])
    print(json.dumps(rows, indent=1))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def sixteen_ranks() -> float:
    """Seconds from the call until the last of 16 ranks is past the first barrier, torch being imported already."""
    begin = time.monotonic()
    ends: list[Any] = run_ranks(
        Up(rank_sets(dag_of(SMALL, 4, 4))), world_size=16, device="cpu", timeout=30, task_name=lambda r, p: str(p)
    )
    return max(ends) - begin


def timed(call: Any) -> float:
    begin = time.monotonic()
    call()
    return time.monotonic() - begin


def spread(seconds: list[float]) -> dict[str, float]:
    return {
        "min": round(min(seconds), 3),
        "median": round(statistics.median(seconds), 3),
        "max": round(max(seconds), 3),
    }


if __name__ == "__main__":
    main()
