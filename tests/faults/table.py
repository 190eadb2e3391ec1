"""All faults on 16 ranks: how each run ends, and after how many seconds.

python tests/faults/table.py [--update] [--ranks 16] [--timeout 10] [NAME...]

--update writes the table into docs/reliability.md. Exit status 1 where a run does not end as it must.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from tests.benchmarks.tables import updated  # noqa: E402
from tests.faults.faults import FAULTS, Fault, Setting, wrong  # noqa: E402

PAGE = ROOT / "docs/reliability.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only faults with this in their name")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--ranks", type=int, default=16, choices=(4, 16))
    parser.add_argument("--timeout", type=float, default=10)
    options = parser.parse_args()
    rows, failed = [], 0
    for fault in FAULTS:
        if options.names and not any(name in fault.name for name in options.names):
            continue
        row, problems = measure(fault, options.ranks, options.timeout)
        rows.append(row)
        print(row, *(f"    WRONG: {problem}" for problem in problems), sep="\n", flush=True)
        failed += bool(problems)
    if options.update and not failed:
        head = (
            f"{options.ranks} ranks, `--timeout {options.timeout:g}`. A star: the fault is there before the run, and "
            "the time is that from\nthe start of the command.\n\n"
            "| fault | ends after | exit status | the line | processes left |\n|---|--:|--:|---|--:|\n"
        )
        PAGE.write_text(updated(PAGE.read_text(), {"faults": head + "\n".join(rows) + "\n"}))
    return 1 if failed else 0


def measure(fault: Fault, ranks: int, timeout: float) -> tuple[str, list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(ranks, Path(folder), timeout)
        ended = fault.make(setting)
        problems = wrong(fault, setting, ended)
        if problems:
            problems.append(ended.text)
        if ended.seconds > fault.limit(setting) and not fault.there_before:
            problems.append(f"{ended.seconds:.1f} s, not {fault.limit(setting):g}")
        line = re.sub(rf"{re.escape(folder)}/|/\S+(?=/[\w-]+\.\w+)", "", "; ".join(ended.lines)).replace("|", "\\|")
        seconds = f"{ended.seconds:.1f} s" + ("*" if fault.there_before else "")
        return (
            f"| {fault.name} | {seconds} | {ended.status} | {f'`{line}`' if line else ''} | {ended.orphans} |",
            problems,
        )


if __name__ == "__main__":
    sys.exit(main())
