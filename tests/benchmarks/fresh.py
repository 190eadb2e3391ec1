"""Rows of a benchmark, each measured in a process of its own."""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def main(name: str, about: str | None, rows: Sequence[tuple[Any, ...]], measure: Callable[..., dict[str, Any]]) -> None:
    """Measure every row in a fresh process, print it, and write all with ``--json FILE``."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = []
    for row in rows:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found.append(pool.apply(measure, row))
        print(found[-1], flush=True)
    if arguments.json:
        made = {"benchmark": f"tests/benchmarks/{name}", "rows": found}
        arguments.json.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
