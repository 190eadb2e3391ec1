"""What single GPUs measured, beside what is predicted of them today: writes docs/measurements/gpu.md.

    python tests/benchmarks/gpus.py [--update]

Measured are the reports in docs/measurements/gpus/, which `make gpu` wrote; predictions are made anew for the same
models from the datasheet, from the cluster file that was calibrated on that GPU, and by the GPU's name. A run in which
an activation and the product behind it were two kernels is predicted so. Needs no GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from helixctl.api import load  # noqa: E402
from helixctl.cost.compute import _Device  # noqa: E402
from tests.benchmarks.tables import updated  # noqa: E402
from tests.gpu.steps import CASES, by_name, dag_of, datasheet, one_device, step_ms, task_us  # noqa: E402

GPUS = ("h100", "h200")
FOLDER, PAGE = ROOT / "docs/measurements/gpus", ROOT / "docs/measurements/gpu.md"
MODELS = {load(ROOT / model).name: model for model, _ in CASES}
SOURCES = ("datasheet", "calibrated", "by name")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="rewrite the tables in docs/measurements/gpu.md")
    options = parser.parse_args()
    made = tables()
    print("\n\n".join(made.values()))
    if options.update:
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")


def tables() -> dict[str, str]:
    """By the names of their places in the page."""
    reports = {(gpu, what): json.loads((FOLDER / f"{gpu}.{what}.json").read_text()) for gpu in GPUS for what in KINDS}
    steps = {}
    for gpu in GPUS:
        rows = [row for row in reports[gpu, "steps"]["steps"] if "failed" not in row]
        with in_two_kernels() if activations_apart(rows) else nullcontext():
            steps[gpu] = [compared(gpu, row) for row in rows]
    return {
        "checked": checked({gpu: reports[gpu, "one-gpu"] for gpu in GPUS}),
        "steps": step_table(steps),
        "kinds": kind_table(steps),
        "attention": attention_table({gpu: reports[gpu, "one-gpu"]["attention"] for gpu in GPUS}),
    }


KINDS = ("one-gpu", "steps")


def activations_apart(rows: list[dict[str, Any]]) -> bool:
    """Whether an activation of a gated network was a kernel of its own in a run: it was measured then."""
    measured = [{task["task"] for task in row["tasks"]} for row in rows]
    return any({f"l0.feed_forward.{n}.g0s0" for n in ("activation", "multiply")} <= tasks for tasks in measured)


@contextmanager
def in_two_kernels() -> Iterator[None]:
    """Predict as the executor was before docs/adr/0040-gated-products.md."""
    with patch("helixctl.program.merged.PAIRS", ()), patch.object(_Device, "gated", _Device.in_two_calls):
        yield


def compared(gpu: str, row: dict[str, Any]) -> dict[str, Any]:
    """A measured step with today's predictions of it and of its tasks."""
    keys = ("dtype", "layers")
    sets = [f"{key}={row[key]}" for key in keys] + [f"workload.{key}={row[key]}" for key in ("batch", "seq_len")]
    clusters = datasheet(gpu), one_device(load(FOLDER / f"{gpu}.cluster.yaml")), by_name(gpu)
    predicted, tasks = {}, {}
    for source, cluster in zip(SOURCES, clusters, strict=True):
        dag = dag_of(MODELS[row["model"]], sets, cluster)
        predicted[source] = step_ms(dag)
        tasks[source] = {t["task"]: task_us(dag, t["task"]) for t in row["tasks"]}
    return row | {"predicted": predicted, "predicted_tasks": tasks}


def checked(reports: dict[str, dict[str, Any]]) -> str:
    """What `tests/gpu/one_gpu.py` ran, and how it ended."""
    lines = [
        "| GPU | torch, CUDA | kernels within rounding | walks within twice the plain error | graphs bit-equal |",
        "| --- | --- | --- | --- | --- |",
    ]
    for report in reports.values():
        kernels = report["kernels"] + report["real_kernels"]
        walks = [report["walk"], *report["dtypes"], *report["real"]]
        graphs = [walk["graph_bit_equal"] for walk in walks if "graph_bit_equal" in walk]
        environment = report["environment"]
        lines.append(
            f"| {environment['gpu']} | {environment['torch']}, {environment['cuda']} | {passed(kernels)} "
            f"| {passed(walks)} | {sum(graphs)} of {len(graphs)} |"
        )
    return "\n".join(lines)


def passed(rows: list[dict[str, Any]]) -> str:
    return f"{sum(row['passed'] for row in rows)} of {len(rows)}"


def step_table(steps: dict[str, list[dict[str, Any]]]) -> str:
    """Whole steps."""
    lines = [
        "| GPU | model | layers | sequences x tokens | measured, ms | by the datasheet | calibrated | by name |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    ratios: dict[tuple[str, str], list[float]] = defaultdict(list)
    for gpu, rows in steps.items():
        for row in rows:
            both = []
            for source in SOURCES:
                ms = row["predicted"][source]
                ratios[gpu, source].append(ms / row["step_ms"])
                both.append(f"{ms:.1f} ({ms / row['step_ms']:.2f})")
            lines.append(
                f"| {gpu.upper()} | {row['model']}, {row['dtype']} | {row['layers']} | {row['batch']:,} x "
                f"{row['seq_len']:,} | {row['step_ms']:.1f} | {' | '.join(both)} |"
            )
    for gpu in steps:
        both = [
            f"{statistics.median(its):.2f}, {min(its):.2f} to {max(its):.2f}"
            for its in (ratios[gpu, source] for source in SOURCES)
        ]
        lines.append(f"| {gpu.upper()} | all: median, range of the ratios | | | | {' | '.join(both)} |")
    return "\n".join(lines)


def kind_table(steps: dict[str, list[dict[str, Any]]]) -> str:
    """Predicted by measured, by kind of task."""
    found: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    longest: dict[str, float] = defaultdict(float)
    for gpu, rows in steps.items():
        for row in rows:
            for task in row["tasks"]:
                longest[task["kind"]] = max(longest[task["kind"]], task["us"])
                for source in SOURCES:
                    ratio = row["predicted_tasks"][source][task["task"]] / task["us"]
                    found[task["kind"]][gpu, source].append(ratio)
    columns = [(gpu, source) for gpu in steps for source in SOURCES]
    lines = [
        "| kind of task | longest, us | " + " | ".join(f"{gpu.upper()}, {source}" for gpu, source in columns) + " |",
        "| --- | --- |" + " --- |" * len(columns),
    ]
    for kind in sorted(found, key=lambda kind: -longest[kind]):
        cells = [
            f"{statistics.median(its):.2f} ({min(its):.2f} to {max(its):.2f})" if its else ""
            for its in (found[kind][column] for column in columns)
        ]
        lines.append(f"| {kind} | {longest[kind]:,.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def attention_table(reports: dict[str, list[dict[str, Any]]]) -> str:
    """TFLOP/s of torch's kernels, by tokens of a sequence."""
    backends = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION")
    names = ("flash", "cuDNN", "memory-efficient")
    rates = {
        (gpu, row["width"], row["tokens"], row["backend"]): row.get("tflop_per_s")
        for gpu, rows in reports.items()
        for row in rows
    }
    lines = [
        "| dims of a softmax | tokens | " + " | ".join(f"{g.upper()}, {n}" for g in reports for n in names) + " |",
        "| --- | --- |" + " --- |" * (len(reports) * len(names)),
    ]
    for width, tokens in dict.fromkeys((width, tokens) for _, width, tokens, _ in rates):
        cells = [rates.get((gpu, width, tokens, backend)) for gpu in reports for backend in backends]
        texts = ["-" if rate is None else f"{rate:.3g}" for rate in cells]
        lines.append(f"| {width} | {tokens:,} | {' | '.join(texts)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
