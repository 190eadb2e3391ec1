"""Where the time of a decode step goes, predicted: the tables of one layer and of one cache in docs/decode.md.

    python tests/benchmarks/decode_layer.py [--update]
    python tests/benchmarks/decode_layer.py --wheel WHEEL [--update]

Nothing here is measured by us. The first table has a layer of Llama-3.1-405B at 1M tokens on 64 B200 in one NVLink
domain, cut by heads and by keys; the second the rates at which caches of one head and of many are read. Both follow
from the rates that come with helixctl. With the wheel of NVIDIA's tables (tests/benchmarks/nvidia.py; needs pyarrow,
the extra `tables`) the third: heads of 131,072 positions there, beside twice as many of half the length.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Final

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from helixctl.cost.compute import decode_attention_cost  # noqa: E402
from helixctl.dag import Dag  # noqa: E402
from helixctl.lower import lower  # noqa: E402
from helixctl.plan import Layout, Plan  # noqa: E402
from helixctl.simulate import simulate  # noqa: E402
from helixctl.spec.load import load_cluster, load_specs  # noqa: E402
from helixctl.units import human_bytes, human_seconds  # noqa: E402
from tests.benchmarks.decode import DOMAIN, PAGE  # noqa: E402
from tests.benchmarks.nvidia import DTYPE, DTYPE_NBYTES, Seconds, Tables  # noqa: E402
from tests.benchmarks.tables import updated  # noqa: E402

MODEL: Final = "Llama-3.1-405B"
SETS: Final = ("layers=2", "workload.seq_len=1048576", "workload.output_len=512", "workload.batch=1")
LAYER: Final = "l1."  # of two; all layers are alike
LAYOUTS: Final = {
    "64 x 1": Layout(groups=64, slices=1, combine="reduce"),
    "8 x 8, slicing key": Layout(groups=8, slices=8, slicing="key", combine="reduce"),
}
# The kinds of task of a row, by level; every other kind is in the last row.
ROWS: Final = {
    "attention": ("attend cached_attention", "attend partial_attention"),
    "exchange of q, k and v, packed": ("exchange packed",),
    "exchange of the outputs with the log-sum-exps, packed": ("attend packed",),
    "two all_reduce": ("project all_reduce", "feed_forward all_reduce"),
}
GPUS: Final = ("b200", "h100")
KEYS, QUERIES, WIDTH = 131_072, 16, 128  # positions, query heads of a head of keys, and dims
HEADS: Final = (1, 2, 4, 8, 64)  # heads of keys on a device, of all of its sequences
HEADS_OF_WHEEL: Final = (1, 2, 4, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, help="of NVIDIA's tables: their rates by length, too")
    parser.add_argument("--update", action="store_true", help="rewrite the tables of docs/decode.md")
    options = parser.parse_args()
    made = {"layer": layer(), "cache-rates": cache_rates()}
    if options.wheel:
        made["long-caches"] = long_caches({gpu: Tables(options.wheel, gpu).decodes() for gpu in GPUS})
    print("\n\n".join(made.values()))
    if options.update:
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")


def layer() -> str:
    """Microseconds of a layer by part of the work, a column for each layout."""
    dags = {name: decode_step(layout) for name, layout in LAYOUTS.items()}
    times = [times_of_layer(dag) for dag in dags.values()]
    lines = [f"| | {' | '.join(dags)} |", "|---" * (1 + len(dags)) + "|"]
    lines.append(f"| cache that attention reads | {' | '.join(human_bytes(cache_nbytes(d)) for d in dags.values())} |")
    for name, kinds in ROWS.items():
        each = [sum(its.pop(kind, 0.0) for kind in kinds) for its in times]
        lines.append(f"| {name} | {' | '.join(human_seconds(s) if s else '-' for s in each)} |")
    lines.append(f"| all else | {' | '.join(human_seconds(sum(its.values())) for its in times)} |")
    return "\n".join(lines)


def decode_step(layout: Layout) -> Dag:
    document, cluster = load_specs(MODEL, DOMAIN, SETS)
    return lower(Plan.of(document.model, cluster, document.workload, layout), step="decode")


def times_of_layer(dag: Dag) -> dict[str, float]:
    """Seconds of what the first rank does in a layer, by level and kind of task."""
    timeline, found = simulate(dag), defaultdict[str, float](float)
    for task in dag.tasks:
        if task.id.startswith(LAYER) and 0 in task.ranks:
            found[f"{task.level} {task.kind}"] += timeline.seconds[task.id]
    return dict(found)


def cache_nbytes(dag: Dag) -> int:
    """Bytes of the keys and values of a layer that the first rank holds."""
    caches = [
        value for value in dag.values if value.rank == 0 and value.tensor in (f"{LAYER}k_cache", f"{LAYER}v_cache")
    ]
    return sum(value.nbytes for value in caches)


def cache_rates() -> str:
    """TB/s at which a device reads caches, by the rates that come with helixctl."""
    lines = [f"| heads of keys on a device | {' | '.join(map(str, HEADS))} |", "|---" * (1 + len(HEADS)) + "|"]
    for gpu in GPUS:
        cluster = load_cluster(f"{gpu}:1")
        sizes = {"batch": 1, "width": WIDTH, "keys": KEYS}
        seconds = [decode_attention_cost(cluster, DTYPE, heads=QUERIES * n, kv_heads=n, **sizes).seconds for n in HEADS]
        rates = [terabytes(n, KEYS) / s for n, s in zip(HEADS, seconds, strict=True)]
        lines.append(f"| {gpu.upper()}, TB/s | {' | '.join(f'{rate:.2f}' for rate in rates)} |")
    return "\n".join(lines)


def long_caches(measured: dict[str, Seconds]) -> str:
    """The rate of some heads of full length, by that of twice as many of half the length, as the tables have them."""
    head = " | ".join(f"{n} of {KEYS:,} beside {2 * n} of {KEYS // 2:,}" for n in HEADS_OF_WHEEL)
    lines = [f"| heads and positions | {head} |", "|---" * (1 + len(HEADS_OF_WHEEL)) + "|"]
    for gpu, seconds in measured.items():
        cells = [rate(seconds, n, KEYS) / rate(seconds, 2 * n, KEYS // 2) for n in HEADS_OF_WHEEL]
        lines.append(f"| {gpu.upper()} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")
    return "\n".join(lines)


def rate(seconds: Seconds, count: int, keys: int) -> float:
    """TB/s of so many heads of keys, of all sequences: the median of what was measured of them."""
    found = [
        terabytes(count, keys) / took
        for (its_keys, sequences, heads, kv_heads, width), took in seconds.items()
        if (its_keys, sequences * kv_heads, width) == (keys, count, WIDTH) and heads == QUERIES * kv_heads
    ]
    return statistics.median(found)


def terabytes(count: int, keys: int) -> float:
    """Of the keys and values of so many heads."""
    return 2 * DTYPE_NBYTES * WIDTH * count * keys / 1e12


if __name__ == "__main__":
    main()
