"""Our rates of single GPUs beside NVIDIA's measured tables, for docs/measurements/gpu.md.

    pip download --no-deps aiconfigurator-core==0.12.0
    python tests/benchmarks/silicon.py WHEEL [--update]

The wheel (Apache-2.0) holds what NVIDIA measured of matrix products and attention inside three engines; of a shape the
median of them counts. Beside it stand the cost model with the datasheet, and with the cluster file that
`helixctl calibrate` wrote on such a GPU. Needs pyarrow, and no GPU.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from helixctl.api import load  # noqa: E402
from helixctl.cost.compute import _Device  # noqa: E402
from helixctl.dag import Value  # noqa: E402
from helixctl.spec import ClusterSpec  # noqa: E402
from tests.benchmarks.gpus import FOLDER, GPUS, PAGE  # noqa: E402
from tests.benchmarks.tables import updated  # noqa: E402
from tests.gpu.steps import datasheet, one_device  # noqa: E402

DTYPE, NEAR = "bfloat16", 1.25
Shape = tuple[int, ...]
# What is compared: products and prompts of sizes that models have.
MOST = 2**31
ROWS = ((1, 16), (17, 256), (257, 1024), (1025, 8191), (8192, MOST), (1, MOST))
TOKENS = ((128, 511), (512, 2047), (2048, 8191), (8192, MOST), (128, MOST))
LEAST_WIDTH, LEAST_HEADS = 512, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--update", action="store_true", help="rewrite the table in docs/measurements/gpu.md")
    options = parser.parse_args()
    with zipfile.ZipFile(options.wheel) as wheel:
        text = table(wheel)
    print(text)
    if options.update:
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), {"silicon": text}), encoding="utf-8")


def table(wheel: zipfile.ZipFile) -> str:
    """Predicted by NVIDIA's: the median, and the share of points within a factor of 1.25."""
    lines = [
        "| | shapes | " + " | ".join(f"{gpu.upper()}, {name}" for gpu in GPUS for name in clusters(gpu)) + " |",
        "| --- | --- |" + " --- |" * (2 * len(GPUS)),
    ]
    for what, unit, ranges, measured, predicted in (
        ("product", "rows", ROWS, products, product_s),
        ("causal attention", "tokens", TOKENS, attentions, attention_s),
    ):
        found: dict[tuple[int, int], list[str]] = {span: [] for span in ranges}
        counts: dict[tuple[int, int], int] = {}
        for gpu in GPUS:
            shapes = dict(measured(wheel, f"{gpu}_sxm"))
            for cluster in clusters(gpu).values():
                device = _Device(cluster, DTYPE)
                ratios = {shape: predicted(device, shape) / seconds for shape, seconds in shapes.items()}
                for span in ranges:
                    its = [ratio for shape, ratio in ratios.items() if span[0] <= shape[0] <= span[1]]
                    near = sum(1 / NEAR <= ratio <= NEAR for ratio in its) / len(its)
                    found[span].append(f"{statistics.median(its):.2f}, {near:.0%}")
                    counts[span] = max(counts.get(span, 0), len(its))
        for (first, last), cells in found.items():
            end = f"{first:,} and more" if last == MOST else f"{first:,} to {last:,}"
            lines.append(f"| {what}, {end} {unit} | {counts[first, last]:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def clusters(gpu: str) -> dict[str, ClusterSpec]:
    return {"datasheet": datasheet(gpu), "calibrated": one_device(load(FOLDER / f"{gpu}.cluster.yaml"))}


def products(wheel: zipfile.ZipFile, system: str) -> Iterator[tuple[Shape, float]]:
    """(rows, columns, depth) and seconds."""

    def shape(row: dict[str, Any]) -> Shape | None:
        fits = row["gemm_dtype"] == DTYPE and min(row["n"], row["k"]) >= LEAST_WIDTH
        return (row["m"], row["n"], row["k"]) if fits else None

    return medians(wheel, system, "gemm", "gemm_perf", shape)


def attentions(wheel: zipfile.ZipFile, system: str) -> Iterator[tuple[Shape, float]]:
    """(tokens, sequences, heads, heads of keys, width) and seconds, of whole prompts."""

    def shape(row: dict[str, Any]) -> Shape | None:
        plain = row["step"] == row["window_size"] == 0 and row["attn_dtype"] == row["kv_cache_dtype"] == DTYPE
        if not plain or row["isl"] < TOKENS[0][0] or row["num_heads"] < LEAST_HEADS:
            return None
        heads = row["num_heads"]
        return row["isl"], row["batch_size"], heads, row["num_key_value_heads"] or heads, row["head_dim"]

    return medians(wheel, system, "attention", "context_attention_perf", shape)


def medians(
    wheel: zipfile.ZipFile, system: str, family: str, file: str, shape: Callable[[dict[str, Any]], Shape | None]
) -> Iterator[tuple[Shape, float]]:
    """Of every shape the median of what the engines took, in seconds."""
    import pyarrow.parquet as pq

    seconds: dict[Shape, list[float]] = defaultdict(list)
    for name in wheel.namelist():
        if f"/{system}/{family}/" in name and name.endswith(f"{file}.parquet"):
            for row in pq.read_table(BytesIO(wheel.read(name))).to_pylist():
                if (its := shape(row)) is not None:
                    seconds[its].append(row["latency"] * 1e-3)
    return ((its, statistics.median(all_)) for its, all_ in seconds.items())


def product_s(device: _Device, shape: Shape) -> float:
    m, n, k = shape
    return device.matmul(m, n, k, 2 * (m * n + m * k + n * k)).seconds + device.task_overhead.value


def attention_s(device: _Device, shape: Shape) -> float:
    tokens, sequences, heads, kv_heads, width = shape
    queries = Value("q", "q", 0, ((0, sequences), (0, tokens), (0, heads), (0, width)), DTYPE)
    flops = 2 * sequences * heads * width * tokens * (tokens + 1)
    nbytes = 4 * sequences * tokens * width * (heads + kv_heads)
    return device.attention(queries, tokens, width, flops, nbytes).seconds + device.task_overhead.value


if __name__ == "__main__":
    main()
