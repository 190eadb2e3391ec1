"""Decoding of a latent cache with three ways to cut it, predicted: the table of latent attention in docs/decode.md.

    python tests/benchmarks/latent.py [--update] [--json FILE]

Nothing here is measured. Weights are in bfloat16, also of models that are published in fp8. The latent of a token is
one head wide, so that groups hold copies of it; the three families are those of tests/benchmarks/decode.py, each with
as many groups as the search likes.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import chain
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from helixctl import collector  # noqa: E402
from helixctl.dag.retype import dequantised  # noqa: E402
from helixctl.solve.objective import simplicity  # noqa: E402
from helixctl.solve.problem import LayoutProblem, Specs  # noqa: E402
from helixctl.solve.space import space  # noqa: E402
from helixctl.spec.load import load_specs  # noqa: E402
from tests.benchmarks.decode import CONTEXTS, FAMILIES, MICROBATCHES, NAMES, PAGE, Row, best, described  # noqa: E402
from tests.benchmarks.tables import updated  # noqa: E402

MODELS: Final = ("DeepSeek-V3", "Kimi-K2-Instruct")
CLUSTERS: Final = ("h200:4x8", "h200:8x8")
BATCHES: Final = {"8k": 16, "128k": 16, "1M": 4}
OUTPUT_LEN: Final = 256
STAGES: Final = (1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="rewrite the table of docs/decode.md")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    with collector.paused():
        for model in MODELS:
            for cluster in CLUSTERS:
                for context in CONTEXTS:
                    rows.append(row(model, cluster, context))
                    print(line(rows[-1]), file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(made := table(rows))
    if options.update:
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), {"latent": made}), encoding="utf-8")


def row(model: str, cluster: str, context: str) -> Row:
    """The best layout of every family: null where no layout fits, no key where none is legal."""
    batch = BATCHES[context]
    work = (f"seq_len={CONTEXTS[context]}", f"output_len={OUTPUT_LEN}", f"batch={batch}")
    document, its = load_specs(model, cluster, tuple(f"workload.{field}" for field in work))
    specs = Specs(dequantised(document.model), its, document.workload)
    problem = LayoutProblem.of(specs, "tpot")
    of_stages = (space(*specs, {"pipeline": stages, "key_prefill": "key"}, MICROBATCHES, "tpot") for stages in STAGES)
    legal = sorted(chain.from_iterable(of_stages), key=simplicity)
    found: dict[str, Any] = {}
    for family, belongs in FAMILIES.items():
        if asked := [x for x in legal if belongs(x)]:
            found[family] = best(problem, asked)
    return {"model": model, "cluster": cluster, "context": context, "batch": batch, "best": found}


def table(rows: list[Row]) -> str:
    """A line for each row, with the layout of every family."""
    names = ["model", "cluster", "context", "batch", *NAMES.values()]
    return "\n".join([f"| {' | '.join(names)} |", "|---" * len(names) + "|", *map(line, rows)])


def line(row: Row) -> str:
    start = [row["model"], row["cluster"], row["context"], str(row["batch"])]
    cells = [described(row, family) if row["best"].get(family) else nothing(row, family) for family in FAMILIES]
    return "| " + " | ".join([*start, *cells]) + " |"


def nothing(row: Row, family: str) -> str:
    return "does not fit" if family in row["best"] else "not legal"


if __name__ == "__main__":
    main()
