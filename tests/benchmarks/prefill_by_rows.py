"""Prefill under key slicing, by key and by query rows: which is priced lower. Predictions, nothing measured.

    python tests/benchmarks/prefill_by_rows.py [--json FILE] [--cluster CLUSTER ...]

The cases are those of docs/measurements/decode-table.md. For each the layout of key slicing with the shortest time per
output token is searched, as tests/benchmarks/decode.py does, and its time to the first token predicted in both forms of
prefill (``key_prefill``). Beside it stands that of the best layout of tensor parallelism of the same case, chosen for
its time per output token as well. Prints a line of JSON for each case, and for each context how often which is sooner.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from helixctl import collector  # noqa: E402
from helixctl.plan import Layout, illegalities  # noqa: E402
from helixctl.solve.candidate import Candidate  # noqa: E402
from helixctl.solve.objective import simplicity  # noqa: E402
from helixctl.solve.problem import LayoutProblem, Specs  # noqa: E402
from helixctl.solve.search import BUDGET, search  # noqa: E402
from helixctl.solve.space import space  # noqa: E402
from helixctl.spec.load import load_specs  # noqa: E402
from tests.benchmarks.decode import (  # noqa: E402
    BATCHES,
    CLUSTERS,
    CONTEXTS,
    FAMILIES,
    MICROBATCHES,
    MODELS,
    OUTPUT_LEN,
    STAGES,
)

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cluster", nargs="*", default=CLUSTERS)
    options = parser.parse_args()
    with collector.paused():
        rows = list(every(options.cluster))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    for context in CONTEXTS:
        print(summary(context, [r for r in rows if r["context"] == context]))


def summary(context: str, rows: Sequence[Row]) -> str:
    """How often by rows is the sooner, by how much, and how often either form is sooner than tensor parallelism."""
    gains = sorted(1 - r["by_rows_s"] / r["by_key_s"] for r in rows if r["by_rows_s"] < r["by_key_s"])
    spread = f", by {gains[0]:.1%} to {gains[-1]:.1%}" if gains else ""
    ahead = [sum(r[form] < r["tp_s"] for r in rows) for form in ("by_key_s", "by_rows_s")]
    before = f"sooner than TP: {ahead[0]} by key, {ahead[1]} by rows"
    return f"{context}: {len(rows)} cases, by rows sooner in {len(gains)}{spread}; {before}"


def every(clusters: Sequence[str]) -> Iterator[Row]:
    """A row for each case in which a layout of key slicing fits, and prefill has a row for each of its slices."""
    for model in MODELS:
        for cluster in clusters:
            for context in CONTEXTS:
                for batch in BATCHES:
                    if found := row(model, cluster, context, batch):
                        print(json.dumps(found), flush=True)
                        yield found


def row(model: str, cluster: str, context: str, batch: int) -> Row | None:
    """The times to the first token of one case."""
    work = (f"seq_len={CONTEXTS[context]}", f"output_len={OUTPUT_LEN}", f"batch={batch}")
    document, its = load_specs(model, cluster, tuple(f"workload.{field}" for field in work))
    specs = Specs(document.model, its, document.workload)
    problem = LayoutProblem.of(specs, "tpot")
    fixed = ({"pipeline": stages, "key_prefill": "key"} for stages in STAGES)
    legal = sorted(chain.from_iterable(space(*specs, axes, MICROBATCHES, "tpot") for axes in fixed), key=simplicity)
    by_key, tp = (best(problem, legal, family) for family in ("key", "tp"))
    if by_key is None or tp is None:
        return None
    layout = by_key.layout.model_copy(update={"key_prefill": "query"})
    if illegalities(layout, document.model, document.workload, its.devices):
        return None
    by_rows = problem.simulate(layout)
    place = {"model": model, "cluster": cluster, "context": context, "batch": batch, "layout": str(by_key.layout)}
    return place | {"by_key_s": ttft_s(by_key), "by_rows_s": ttft_s(by_rows), "tp_s": ttft_s(tp)}


def best(problem: LayoutProblem, legal: Sequence[Layout], family: str) -> Candidate | None:
    """The layout of a family with the shortest time per output token; None where none fits."""
    kv_heads = problem.specs.model.attention.key_heads
    asked = [x for x in legal if FAMILIES[family](x) and (family == "tp" or x.groups <= kv_heads)]
    return search(problem.bounded(asked), problem, BUDGET).best if asked else None


def ttft_s(candidate: Candidate) -> float:
    """Seconds to the first token."""
    assert candidate.forecast is not None
    assert candidate.forecast.generation is not None
    return candidate.forecast.generation.ttft_s


if __name__ == "__main__":
    main()
