"""What ranks save that keep freed memory for their next step (helixctl_runtime.ranks.heap): processor time of one run.

    python tests/benchmarks/freed_memory.py [--runs N] [--json FILE] [COMMAND ...]

COMMAND are the words behind `helixctl`; by default a run of 16 CPU ranks. It runs with three settings of malloc in
turn, so that noise hits all:

- kept: as a rank sets malloc where the environment says nothing;
- glibc: glibc's own defaults. A rank leaves malloc alone where GLIBC_TUNABLES names glibc.malloc, and 0 is the default
  of glibc.malloc.perturb. These thresholds grow as mapped blocks are freed, up to 32 MiB for a block and twice that for
  the end of the heap (mallopt(3));
- static: MALLOC_TRIM_THRESHOLD_ at the value that it has at first. Who sets it stops the thresholds from growing, so
  that this is not glibc's default.

Processor time is that of the command and all of its ranks; page faults are those that needed no disk.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from helixctl_runtime.report.environment import environment  # noqa: E402

SETTINGS: Final[dict[str, dict[str, str]]] = {
    "kept": {},
    "glibc": {"GLIBC_TUNABLES": "glibc.malloc.perturb=0"},
    "static": {"MALLOC_TRIM_THRESHOLD_": str(128 << 10)},
}
OF_MALLOC: Final = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
COMMAND: Final = ("run", "plans/small/dense.4x4.plan.json", "--warmup", "5", "--iters", "50")
Row = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="of each setting")
    parser.add_argument("--json", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = options.command or list(COMMAND)
    found: dict[str, list[Row]] = {name: [] for name in SETTINGS}
    for run in range(options.runs):
        names = [*SETTINGS][run % len(SETTINGS) :] + [*SETTINGS][: run % len(SETTINGS)]
        for name in names:
            found[name].append(used(command, SETTINGS[name]))
            print(f"{name}: {found[name][-1]}", file=sys.stderr)
    data = {
        "environment": environment(),
        "command": " ".join(["helixctl", *command]),
        "runs": options.runs,
        "settings": SETTINGS,
        "medians": {name: medians(rows) for name, rows in found.items()},
        "saved": saved(found),
    }
    print(json.dumps(data, indent=1))
    if options.json:
        options.json.write_text(json.dumps(data, indent=1) + "\n")


def used(command: list[str], setting: dict[str, str]) -> Row:
    """What one run of the command uses, with all of its processes."""
    environ = {name: value for name, value in os.environ.items() if name not in OF_MALLOC} | setting
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "helixctl", *command], cwd=ROOT, env=environ, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return {"cpu_s": user + system, "system_s": system, "page_faults": after.ru_minflt - before.ru_minflt}


def medians(rows: list[Row]) -> dict[str, float]:
    return {key: round(statistics.median(row[key] for row in rows), 2) for key in rows[0]}


def saved(found: dict[str, list[Row]]) -> dict[str, Any]:
    """The share of processor time that kept memory saves: in the median, and turn by turn."""
    of_turns = {
        name: [1 - kept["cpu_s"] / row["cpu_s"] for kept, row in zip(found["kept"], rows, strict=True)]
        for name, rows in found.items()
        if name != "kept"
    }
    return {
        f"against {name}": {"median": round(statistics.median(all_), 3), "of each turn": [round(x, 3) for x in all_]}
        for name, all_ in of_turns.items()
    }


if __name__ == "__main__":
    main()
