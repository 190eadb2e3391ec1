"""Derive the measured rates of the clusters by name: writes helixctl/spec/clusters/GPU.rates.json, by hand.

    python tests/benchmarks/rates.py WHEEL

From NVIDIA's tables (tests/benchmarks/nvidia.py), thinned and converted to rates; of the GPUs that we have measured
ourselves (docs/measurements/gpus/) products, attention of short prompts, elementwise work and the start of a task are
ours. The digest of each file goes into the yaml of its cluster. docs/adr/0018-rates-by-digest.md says why. Needs
pyarrow and numpy (the extra `tables`), and no GPU.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise, product
from math import inf, prod
from pathlib import Path
from typing import Any, Final
from zlib import crc32

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from helixctl.cost.interpolate import multilinear  # noqa: E402
from helixctl.spec import CalibrationSpec  # noqa: E402
from helixctl.spec.load import load_cluster  # noqa: E402
from tests.benchmarks.fitted import bounded, fitted, growing  # noqa: E402
from tests.benchmarks.nvidia import DTYPE, DTYPE_NBYTES, NAME, SHA256, SYSTEMS, Tables, by_first  # noqa: E402

CLUSTERS: Final = ROOT / "helixctl/spec/clusters"
OURS: Final = {gpu: ROOT / f"docs/measurements/gpus/{gpu}.cluster.yaml" for gpu in ("h100", "h200")}
# Where we have not measured what the start of a task takes in a CUDA graph: what it takes on an H100 and an H200.
TASK_OVERHEAD: Final = 1.05e-6
OWN_SHARE: Final = 0.5  # of a kernel's time that is its own, at least
DIGITS: Final = 3
GATED_FLOPS: Final = 6  # of an element of a row of three products
TILE: Final = 128  # queries that a kernel takes together

# The points that are kept. Of products on both sides of where tiles end: the A100's rates leap there.
ROWS: Final = (1, 3, 15, 16, 64, 65, 128, 129, 256, 257, 512, 513, 1024, 1025, 2048, 2561, 3585, 4096, 8192, 32768)
COLUMNS: Final = (128, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 10240, 16384, 65536)
DEPTH: Final = (128, 512, 1024, 1536, 2048, 2560, 4096, 8192, 65536)
HEADS: Final = (1, 4, 16, 64, 128, 256, 1024, 4096)
TOKENS: Final = (1, 16, 64, 128, 512, 1024, 2048, 4096, 16384)
KV_HEADS: Final = (1, 4, 16, 64, 128, 256, 1024, 4096)
KEYS: Final = (2, 128, 512, 1024, 2048, 8192, 32768, 131072)
WIDTHS: Final = (64, 128, 256)
IN_NO_CACHE: Final = 2**28  # bytes
LATENT_WIDTH: Final = 576
QUERY_HEADS: Final = (1, 2, 16, 32, 64, 128)  # of a head of keys
# Of latent attention: up to 16 query heads a cache is read as fast as for one; beyond, the arithmetic counts too.
LATENT_SEQUENCES: Final = (1, 4, 16, 64, 256, 1024)
LATENT_HEADS: Final = (1, 16, 32, 64, 128)
# Of experts the tables have the shapes of some models, on no grid: these rates are fitted to two thirds of them. The
# axes reach as far as the shapes: what lies beyond an end would be fitted to the end, and draw it away.
EXPERTS: Final = (
    (1, 8, 32, 128, 512), (1, 16, 64, 256, 1024, 4096), (2048, 6144), (16, 64, 128, 256, 1024, 4096, 14336),
    (1, 2, 16, 256),
)  # fmt: skip
# The powers of these sizes with which the work grows, and the rate of experts may: so more work takes no less time, and
# neither does a rank that is given the tokens of more ranks. A fit to few shapes would say otherwise between them.
WORK_OF_EXPERTS: Final = (1, 1, 1, 1, 0)
# Products of quantised numbers: rows, columns and depth of the rates that are fitted to every fourth shape. Kernels
# differ most by rows: the fast ones take rows that are a multiple of 16, and their tiles end at 64, 128, 256. Of some
# grids it is the one that met the fourth best where the rates were fitted to three quarters of it.
QUANTISED: Final = (
    (
        1, 3, 8, 15, 16, 17, 32, 33, 64, 65, 96, 128, 129, 192, 193, 256, 257, 384, 512, 513, 768, 1024, 1025, 1536,
        2048, 2049, 3072, 3073, 4096, 4097, 8192, 32768,
    ),
    (512, 1024, 2048, 4096, 6144, 8192, 16384, 65536),
    (512, 1024, 2048, 4096, 8192, 65536),
)  # fmt: skip
# Of an L40S the size of the weights decides more than the rows: its cache of 96 MB holds them from one run of a product
# to the next. Of an A100 a fifth as many shapes were measured (int8), with few odd numbers of rows: every second is
# fitted.
QUANTISED_OF: Final = {
    "a100": (
        (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192),
        (512, 1024, 2048, 3072, 4096, 6144, 8192, 16384, 65536),
        (512, 1024, 2048, 4096, 8192, 16384, 65536),
    ),
    "l40s": (
        (1, 8, 16, 17, 32, 64, 65, 128, 129, 256, 257, 512, 1024, 2048, 4096, 32768),
        (512, 1024, 2048, 3072, 4096, 5120, 6144, 8192, 10240, 12288, 16384, 65536),
        (512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 65536),
    ),
}  # fmt: skip
LEAST_QUANTISED: Final = 512  # columns and depth of products that rates are fitted to
# How many times the dtype's rate experts of quantised numbers have is smoother than a rate: a coarse grid has it.
EXPERTS_FACTORS: Final = ((1, 16, 64, 256, 1024, 4096), (16, 64, 128, 256, 1024, 4096))
# Every second size of a collective.
STEP: Final = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    options = parser.parse_args()
    tables = {gpu: Tables(options.wheel, gpu) for gpu in SYSTEMS}
    mixtures = of_experts({gpu: its.experts() for gpu, its in tables.items()})
    for gpu in SYSTEMS:
        text = written(derived(gpu, tables[gpu], mixtures[gpu]))
        (CLUSTERS / f"{gpu}.rates.json").write_text(text, encoding="utf-8", newline="\n")
        digest = f"sha256:{sha256(text.encode()).hexdigest()}"
        file = CLUSTERS / f"{gpu}.yaml"
        yaml = re.sub(r'(?m)^  digest: "?sha256:[0-9a-f]*"?', f"  digest: {digest}", file.read_text(encoding="utf-8"))
        file.write_text(yaml, encoding="utf-8", newline="\n")
        print(f"{gpu}: {len(text):,} bytes, {digest}")


def derived(gpu: str, tables: Tables, mixtures: dict[str, Any]) -> dict[str, Any]:
    """The document of one GPU, whose experts have these rates."""
    cluster = load_cluster(f"{gpu}:1")
    ours = measured_by_us(gpu)
    overhead = overhead_of(ours)
    matmul = as_they_are(ours) if ours else {DTYPE: products(tables.products(), overhead)}
    name = cluster.device.name
    tables_of = f"{name}: NVIDIA's tables in {NAME}"
    source = f"{tables_of} (bfloat16, also for float16)"
    if ours:
        theirs = f"longer prompts, caches, experts, collectives of {tables_of}"
        source = f"products, short prompts, elementwise work {ours.source}; {theirs}"
    return {
        "source": source,
        "derived_from": {
            NAME: {
                "url": "https://pypi.org/project/aiconfigurator-core/0.12.0/",
                "sha256": SHA256,
                "license": "Apache-2.0",
                "copyright": "Copyright (c) 2025-2026 NVIDIA CORPORATION & AFFILIATES. All rights reserved.",
                "changes": "medians over engines and versions, thinned, converted to rates",
            },
            **(
                {str(OURS[gpu].relative_to(ROOT)): {"sha256": sha256(OURS[gpu].read_bytes()).hexdigest()}}
                if ours
                else {}
            ),
        },
        "measured_on": {
            "memory_bandwidth": cluster.device.memory_bandwidth,
            "peak": {dtype: cluster.device.peak[dtype] for dtype in ("float16", "bfloat16")},
            "within_host": {
                "bandwidth": cluster.within_host.bandwidth,
                "latency": cluster.within_host.latency,
            },
        },
        "as": {"float16": DTYPE},
        "rates": {
            "task_overhead": overhead,
            "matmul": matmul,
            "attention": {DTYPE: prompts(tables.prompts(), overhead, ours)},
            "decode": {DTYPE: decodes(tables.decodes(), overhead, cluster.only.device.memory_bandwidth)},
            "latent_decode": {DTYPE: latent_decodes(tables.latent_decodes(), overhead)},
            "experts": {DTYPE: mixtures},
            "quantised": quantised(tables, QUANTISED_OF.get(gpu, QUANTISED), mixtures, overhead),
            "elementwise": dict(ours.elementwise) if ours else {},
            "collectives": collectives(tables.collectives()),
        },
    }


def measured_by_us(gpu: str) -> CalibrationSpec | None:
    return load_cluster(str(OURS[gpu])).calibration if gpu in OURS else None


def overhead_of(ours: CalibrationSpec | None) -> float:
    return ours.task_overhead if ours else TASK_OVERHEAD


def as_they_are(ours: CalibrationSpec) -> dict[str, Any]:
    """The products that we have measured, in all of their dtypes."""
    return {
        dtype: {name: getattr(table, name) for name in type(table).model_fields} for dtype, table in ours.matmul.items()
    }


def products(seconds: dict[tuple[int, ...], float], overhead: float) -> dict[str, Any]:
    """Where both columns and depth are the longest nothing was measured, so that the next shorter stand there."""

    def rate(m: int, n: int, k: int) -> float:
        nearest = next(s for s in ((m, n, k), (m, n, DEPTH[-2]), (m, COLUMNS[-2], DEPTH[-2])) if s in seconds)
        return digits(2 * prod(nearest) / own(seconds[nearest], overhead))

    rates = [rate(m, n, k) for m in ROWS for n in COLUMNS for k in DEPTH]
    return {"rows": ROWS, "columns": COLUMNS, "depth": DEPTH, "rates": rates}


def prompts(seconds: dict[tuple[int, ...], float], overhead: float, ours: CalibrationSpec | None) -> dict[str, Any]:
    """By heads x sequences at work together, tokens and width: medians over the ways to make up so many.

    Of prompts shorter than a tile of queries the engines' kernels and ours have little in common: torch's take a tile
    for each head. Where we have measured it the rate of a busy GPU is ours, and the tables have how few heads fall
    behind.
    """
    found: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    for (tokens, sequences, heads, _, width), takes in seconds.items():
        flops = 2 * sequences * heads * width * tokens * (tokens + 1)
        found[sequences * heads, tokens, width].append(flops / own(takes, overhead))
    widths, rates = filled(found, HEADS, TOKENS)
    if ours:
        table, points = ours.attention[DTYPE], list(product(TOKENS, widths))
        busy = dict(zip(points, rates[-len(points) :], strict=True))
        for i, (_, tokens, width) in enumerate(product(HEADS, TOKENS, widths)):
            if tokens < TILE:
                own_rate = multilinear(table.grid, table.rates, (tokens, width))
                rates[i] = digits(rates[i] / busy[tokens, width] * own_rate)
    return {"softmaxes": HEADS, "seq_len": TOKENS, "width": widths, "rates": rates}


def decodes(seconds: dict[tuple[int, ...], float], overhead: float, bandwidth: float) -> dict[str, Any]:
    """Bytes of the cache a second, by heads of keys x sequences, keys, width, and query heads of a head of keys.

    Many query heads a head were not measured where caches are many or long: there their rate grows as that of the next
    fewer does. What no cache of a GPU holds is read no faster than its memory is.
    """
    found: dict[int, dict[tuple[int, int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for (keys, sequences, heads, kv_heads, width), takes in seconds.items():
        cached = 2 * sequences * kv_heads * keys * width * DTYPE_NBYTES
        found[heads // kv_heads][sequences * kv_heads, keys, width].append(cached / own(takes, overhead))
    widths, rates = filled(found[QUERY_HEADS[0]], KV_HEADS, KEYS)
    tables: list[list[float]] = [rates]
    for count in QUERY_HEADS[1:]:
        tables.append(filled(found[count], KV_HEADS, KEYS, widths, tables[-1])[1])
    fastest = [
        bandwidth if 2 * caches * keys * width * DTYPE_NBYTES > IN_NO_CACHE else inf
        for caches, keys, width in product(KV_HEADS, KEYS, widths)
    ]
    rates = [min(rate, most) for most, *point in zip(fastest, *tables, strict=True) for rate in point]
    return {"caches": KV_HEADS, "keys": KEYS, "width": widths, "query_heads": QUERY_HEADS, "rates": rates}


def latent_decodes(seconds: dict[tuple[int, ...], float], overhead: float) -> dict[str, Any]:
    """Bytes of the latents a second, by sequences, keys, and query heads: more of them take no less time."""
    found: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    for (keys, sequences, heads), takes in seconds.items():
        cached = sequences * keys * LATENT_WIDTH * DTYPE_NBYTES
        found[sequences, keys, heads].append(cached / own(takes, overhead))
    heads, rates = filled(found, LATENT_SEQUENCES, KEYS, LATENT_HEADS)
    work = [sequences * keys for sequences, keys, _ in product(LATENT_SEQUENCES, KEYS, heads)]
    times = growing([its / rate for its, rate in zip(work, rates, strict=True)], (LATENT_SEQUENCES, KEYS, heads))
    rates = [digits(its / takes) for its, takes in zip(work, times, strict=True)]
    return {"sequences": LATENT_SEQUENCES, "keys": KEYS, "query_heads": heads, "rates": rates}


def of_experts(seconds: dict[str, dict[tuple[int, ...], float]]) -> dict[str, dict[str, Any]]:
    """Of every GPU: by the experts that have rows, the rows of one, hidden, width, and ranks that share the experts.

    Where a GPU's table has one rank alone, its rates fall with the ranks as those of the other GPUs do in the median.
    """
    rates: dict[str, list[float]] = {}
    most = [
        [(after / size) ** power for size, after in pairwise(axis)]
        for axis, power in zip(EXPERTS, WORK_OF_EXPERTS, strict=True)
    ]
    alone = {gpu for gpu, its in seconds.items() if all(shape[-1] == 1 for shape in its)}
    for gpu, its in seconds.items():
        grid = EXPERTS[:-1] if gpu in alone else EXPERTS
        found = {point[: len(grid)]: its for point, its in expert_rates(its, overhead_of(measured_by_us(gpu))).items()}
        rates[gpu] = fitted(grid, found, most[: len(grid)])
    ranks = len(EXPERTS[-1])
    falls = [
        statistics.median(rates[gpu][i] / rates[gpu][i - i % ranks] for gpu in rates if gpu not in alone)
        for i in range(prod(map(len, EXPERTS)))
    ]
    for gpu in alone:
        rates[gpu] = bounded(EXPERTS, [rates[gpu][i // ranks] * fall for i, fall in enumerate(falls)], most)
    axes = ("used", "rows", "hidden", "width", "ranks")
    return {
        gpu: dict(zip((*axes, "rates"), (*EXPERTS, list(map(digits, its))), strict=True)) for gpu, its in rates.items()
    }


def expert_rates(seconds: dict[tuple[int, ...], float], overhead: float) -> dict[tuple[float, ...], list[float]]:
    """Those to which rates are fitted, by their points."""
    found: dict[tuple[float, ...], list[float]] = defaultdict(list)
    for shape, takes in seconds.items():
        if fits_experts(shape):
            tokens, hidden, ffn, top_k, count, cut, parallel = shape
            rows, width = tokens * top_k / parallel, ffn / cut
            used = min(count / parallel, rows)
            flops = GATED_FLOPS * rows * hidden * width
            found[used, rows / used, hidden, width, parallel].append(flops / own(takes, overhead))
    return found


def quantised(
    tables: Tables, grid: Sequence[Sequence[int]], mixtures: dict[str, Any], overhead: float
) -> dict[str, Any]:
    """Rates of products of quantised numbers; of experts how many times the rates that stand here for bfloat16."""
    found: dict[str, Any] = {}
    for kind, seconds in sorted(by_first(tables.quantised_products()).items()):
        rates = {
            shape: [2 * prod(shape) / own(takes, overhead)]
            for shape, takes in seconds.items()
            if min(shape[1:]) >= LEAST_QUANTISED and fits_products(kind, shape)
        }
        found[kind] = {"products": fitted_table(("rows", "columns", "depth"), grid, rates)}
    for kind, seconds in tables.quantised_experts().items():
        if kind in found:
            points: dict[tuple[float, ...], list[float]] = defaultdict(list)
            for point, rate in expert_rates(seconds, overhead).items():
                whole = multilinear(EXPERTS, mixtures["rates"], point)
                points[point[1], point[3]] += [its / whole for its in rate]
            most = slower(mixtures["rates"])
            found[kind]["experts"] = fitted_table(("rows", "width"), EXPERTS_FACTORS, points, most)
    return found


def slower(rates: Sequence[float]) -> list[list[float]]:
    """How many times as long experts take at the next size of each axis of their factors, in all but a tenth of cases.

    No more may a factor grow there: more work in quantised numbers takes no less time either. Where the dtype's rates
    have a flat spot this gives way.
    """
    others, (rows, widths) = list(product(EXPERTS[0], EXPERTS[2], EXPERTS[4])), EXPERTS_FACTORS

    def longer(befores: list[tuple[int, int]], afters: list[tuple[int, int]]) -> float:
        def seconds(used: int, hidden: int, ranks: int, row: int, width: int) -> float:
            return used * row * hidden * width / multilinear(EXPERTS, rates, (used, row, hidden, width, ranks))

        pairs = product(zip(befores, afters, strict=True), others)
        found = sorted(seconds(*its, *after) / seconds(*its, *before) for (before, after), its in pairs)
        return found[len(found) // 10]

    return [
        [
            longer([(row, width) for width in widths], [(after, width) for width in widths])
            for row, after in pairwise(rows)
        ],
        [longer([(row, width) for row in rows], [(row, after) for row in rows]) for width, after in pairwise(widths)],
    ]


def fitted_table(
    axes: Sequence[str],
    grid: Sequence[Sequence[int]],
    measured: dict[tuple[float, ...], list[float]],
    most: Sequence[Sequence[float]] | None = None,
) -> dict[str, Any]:
    return dict(zip((*axes, "rates"), (*grid, [digits(rate) for rate in fitted(grid, measured, most)]), strict=True))


def fits_products(kind: str, shape: tuple[int, ...]) -> bool:
    """Whether rates are fitted to a product of quantised numbers: to every fourth, of int8 to every second."""
    return crc32(repr(shape).encode()) % (2 if kind == "int8" else 4) == 0


def fits_experts(shape: tuple[int, ...]) -> bool:
    """Whether rates are fitted to a shape: of every third model, cut and number of ranks none of the tokens are."""
    return crc32(repr(shape[1:]).encode()) % 3 != 0


def filled(
    found: dict[tuple[int, int, int], list[float]],
    heads: Sequence[int],
    lengths: Sequence[int],
    widths: Sequence[int] | None = None,
    instead: Sequence[float] | None = None,
) -> tuple[list[int], list[float]]:
    """The widths that were measured, and a rate for every point.

    Long sequences were not measured for many heads: there it is the rate of the most heads of that length, which keep
    all of the GPU busy.

    Args:
        found: rates by heads, length and width.
        heads, lengths: of the points.
        widths: of the points. None: all of ``WIDTHS`` that were measured at every length.
        instead: rates of all points. They stand where a length was measured for no such number of heads, and say how
            the rate grows beyond the most heads that were. None: it does not.
    """
    if widths is None:
        widths = [w for w in WIDTHS if all((heads[0], n, w) in found for n in lengths)]
    points = {its: i for i, its in enumerate(product(heads, lengths, widths))}
    rates: list[float] = []
    for count in heads:
        for length in lengths:
            for width in widths:
                most = max((h for h in heads if h <= count and (h, length, width) in found), default=None)
                if most is not None:
                    rate = statistics.median(found[most, length, width])
                    if instead is not None:  # as much more than the most that were measured as there
                        rate *= instead[len(rates)] / instead[points[most, length, width]]
                    rates.append(digits(rate))
                elif instead is not None:
                    rates.append(instead[len(rates)])
                else:
                    raise ValueError(f"nothing was measured of {heads[0]} to {count} heads, {length}, {width}")
    return list(widths), rates


def collectives(seconds: dict[tuple[Any, ...], float]) -> list[dict[str, Any]]:
    """Every second size, the largest among them."""
    made = []
    for kind, ranks in sorted({(kind, ranks) for kind, ranks, _ in seconds}):
        sizes = sorted(n for k, r, n in seconds if (k, r) == (kind, ranks))[::-1][::STEP][::-1]
        times = [digits(seconds[kind, ranks, n], DIGITS + 1) for n in sizes]
        made.append({"kind": kind, "ranks": ranks, "hosts": 1, "nbytes": sizes, "seconds": times})
    return made


def own(seconds: float, overhead: float) -> float:
    """A kernel's own time, without the start of a task."""
    return max(seconds - overhead, OWN_SHARE * seconds)


def digits(number: float, count: int = DIGITS) -> float:
    return float(f"{number:.{count}g}")


def written(data: dict[str, Any]) -> str:
    """JSON with a line for every list."""
    return _json(data, "") + "\n"


def _json(value: Any, indent: str) -> str:
    if isinstance(value, dict) and value:
        inner = indent + " "
        lines = (f"{inner}{json.dumps(key)}: {_json(item, inner)}" for key, item in value.items())
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(f"{indent} {_json(item, indent + ' ')}" for item in value) + f"\n{indent}]"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_number, value)) + "]"
    return _number(value) if isinstance(value, float) else json.dumps(value)


def _number(value: float) -> str:
    """The shortest text that reads back as the number: rates have few digits and many noughts."""
    if isinstance(value, int):
        return str(value)
    text = next(t for t in (f"{value:.{count}e}" for count in range(17)) if float(t) == value)
    mantissa, exponent = text.split("e")
    return min(repr(value), f"{mantissa}e{int(exponent)}", key=len)


if __name__ == "__main__":
    main()
