"""Prefill under key slicing: by key, as it is, against by query rows, as it could be. Predictions, nothing measured.

    python tests/benchmarks/prefill_by_rows.py [--json FILE] [--cluster CLUSTER ...]

The cases are those of docs/measurements/decode-table.md. For each the layout of key slicing with the shortest time per
output token is searched, as tests/benchmarks/decode.py does. Of its prefill two forms of a layer's attention are
priced:

- by key: all rows of q are gathered inside the group, each slice attends over the positions of its own lane, and the
  partial outputs and log-sum-exps are exchanged and merged. That is what is lowered, so its tasks are priced.
- by rows: q and the output go by all-to-all between a share of the dims and a share of the rows, and a slice needs all
  positions: the keys and values of the cache's lanes are gathered inside the group, as much of them as there is room
  for, because how long a sequence is is data. All of this is taken to travel in one exchange to attention and in one
  back, rows to be shared so that every slice has as many pairs as another, and nothing to be copied: what a chunk takes
  at least.

A row says what a chunk takes in the attention of one layer in each form, what the whole prefill would gain, and the
time to the first token of the layout beside that of the best layout of tensor parallelism of the same case (each of
them chosen for its time per output token).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from helixctl import collector  # noqa: E402
from helixctl.cost.collectives import collective_cost  # noqa: E402
from helixctl.cost.tasks import TaskCosts  # noqa: E402
from helixctl.dag import AllToAll, Dag, Merge, Packed, PartialAttention, Task  # noqa: E402
from helixctl.lower import lower  # noqa: E402
from helixctl.plan import Layout, Plan  # noqa: E402
from helixctl.solve.objective import simplicity  # noqa: E402
from helixctl.solve.problem import LayoutProblem, Specs  # noqa: E402
from helixctl.solve.search import BUDGET, search  # noqa: E402
from helixctl.solve.space import space  # noqa: E402
from helixctl.spec import DTYPE_NBYTES  # noqa: E402
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
        its = [r for r in rows if r["context"] == context]
        pays = [r for r in its if r["rows_s"] < r["key_s"]]
        beside = [r for r in pays if r["ttft_by_rows_s"] < r["ttft_tp_s"]]
        print(f"{context}: {len(its)} cases, by rows pays in {len(pays)}, and is ahead of TP in {len(beside)} of these")


def every(clusters: list[str]) -> Iterator[Row]:
    """A row for each case in which a layout of key slicing fits; it is printed too."""
    for model in MODELS:
        for cluster in clusters:
            for context in CONTEXTS:
                for batch in BATCHES:
                    if found := row(model, cluster, context, batch):
                        print(json.dumps(found), flush=True)
                        yield found


def row(model: str, cluster: str, context: str, batch: int) -> Row | None:
    """Both forms, of the layout of key slicing with the shortest time per output token; None where none fits."""
    work = (f"seq_len={CONTEXTS[context]}", f"output_len={OUTPUT_LEN}", f"batch={batch}")
    document, its = load_specs(model, cluster, tuple(f"workload.{field}" for field in work))
    specs = Specs(document.model, its, document.workload)
    problem = LayoutProblem.of(specs, "tpot")
    of_stages = (space(*specs, {"pipeline": stages}, MICROBATCHES, "tpot") for stages in STAGES)
    legal = sorted(chain.from_iterable(of_stages), key=simplicity)
    kv_heads = document.model.attention.key_heads
    best = {}
    for family in ("tp", "key"):
        asked = [x for x in legal if FAMILIES[family](x) and (family == "tp" or x.groups <= kv_heads)]
        made = search(problem.bounded(asked), problem, BUDGET).best if asked else None
        if made is None or made.forecast is None or made.forecast.generation is None:
            return None
        best[family] = (made.layout, made.forecast.generation.ttft_s)
    layout, ttft_s = best["key"]
    plan = Plan.sketch(*specs, layout)
    key_s, rows_s = forms(plan)
    chunks = -(-document.workload.seq_len // plan.step("prefill").seq_len)
    layers = -(-document.model.layers // layout.pipeline)
    # Stages wait for each other's chunks, so that a chunk goes through all layers one after another.
    gain_s = (key_s - rows_s) * chunks * layers * layout.pipeline
    return {
        "model": model, "cluster": cluster, "context": context, "batch": batch, "layout": str(layout),
        "key_s": key_s, "rows_s": rows_s, "chunks": chunks,
        "ttft_s": ttft_s, "ttft_by_rows_s": ttft_s - gain_s, "ttft_tp_s": best["tp"][1],
    }  # fmt: skip


def forms(plan: Plan) -> tuple[float, float]:
    """Seconds of the attention of a layer in a chunk of the first microbatch on rank 0: by key, and by rows."""
    dag = lower(plan, only={0}, layers=range(1), microbatches=range(1), step="prefill")
    costs = TaskCosts(dag)
    by_key = [t for t in dag.tasks if t.level in {"exchange", "attend"} and _in_question(t)]
    return sum(costs.seconds(t) for t in by_key), by_rows(dag, plan.layout, by_key)


def _in_question(task: Task) -> bool:
    return isinstance(task.op, Packed | PartialAttention | Merge)


def by_rows(dag: Dag, layout: Layout, by_key: list[Task]) -> float:
    """Seconds of the same by rows, at least."""
    slices = layout.slices
    attend = next(t for t in by_key if isinstance(t.op, PartialAttention))
    exchange = next(t for t in by_key if isinstance(t.op, Packed))
    q, k, v, *_ = (dag.value[value] for value in attend.inputs)
    # What one slice has of q, k and v before the exchange; of the cache the lane that it holds.
    q_share, out_share = (q.numel * DTYPE_NBYTES[q.dtype] // slices,) * 2
    new = q.numel // q.shape[2] // q.shape[3] * k.shape[4] * (k.shape[5] + v.shape[5]) * DTYPE_NBYTES[k.dtype] // slices
    lanes = k.nbytes + v.nbytes
    there = (slices - 1) * (q_share // slices + new + lanes)
    back = (slices - 1) * (out_share // slices)
    moved = [
        replace(exchange, op=AllToAll(split="seq", gather="head_dim"), inputs=(), outputs=(), nbytes=nbytes)
        for nbytes in (there, back)
    ]
    # As many pairs as by key. Fewer rows attend, each to all positions.
    attention = TaskCosts(dag).seconds(attend)
    return attention + sum(collective_cost(t, dag.plan.cluster).seconds for t in moved)


if __name__ == "__main__":
    main()
