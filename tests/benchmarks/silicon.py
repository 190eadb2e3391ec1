"""The cost model beside NVIDIA's measured tables of five GPUs, for docs/measurements/silicon.md.

    pip download --no-deps aiconfigurator-core==0.12.0
    python tests/benchmarks/silicon.py WHEEL [--update] [--sample]

Twice: by the rates that come with helixctl, and by datasheet. What is on the grid of those rates, which were derived
from the same tables (tests/benchmarks/rates.py), is left out. A sample of the rest is kept in the repository, for
tests/cost/test_silicon.py. Needs pyarrow (the extra `tables`), and no GPU.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from helixctl.cost.collectives import collective_cost  # noqa: E402
from helixctl.cost.compute import _Device, _experts, _Less, decode_attention_cost  # noqa: E402
from helixctl.dag import Experts, Value  # noqa: E402
from helixctl.spec import CalibrationSpec, ClusterSpec  # noqa: E402
from helixctl.spec.load import load_cluster  # noqa: E402
from helixctl.spec.rates import rates_of  # noqa: E402
from helixctl.spec.routing import EVEN  # noqa: E402
from tests.benchmarks.nvidia import DTYPE, DTYPE_NBYTES, NAME, SYSTEMS, Seconds, Shape, Tables  # noqa: E402
from tests.benchmarks.rates import fits_experts, fits_products  # noqa: E402
from tests.benchmarks.tables import updated  # noqa: E402

SAMPLE: Final = ROOT / "tests/cost/silicon.sample.json"
SAMPLED: Final = 100
PAGE: Final = ROOT / "docs/measurements/silicon.md"
NEAR: Final = 1.25
NEAR_EXPERTS: Final = 1.5  # the engines' own times of one shape differ by that, in the median
MOST: Final = 2**40
# What is compared: products, prompts and caches of sizes that models have.
LEAST_WIDTH, LEAST_HEADS, LEAST_EXPERT = 512, 4, 64
LATENT: Final = (576, 512)  # dims of a softmax, and of the values, which are part of the keys
Span = tuple[int, int]


@dataclass(frozen=True)
class Kind:
    """What is compared: which shapes of a table, in which spans of one of their sizes, and what the model says."""

    name: str
    unit: str
    measured: Callable[[Tables], Seconds]
    wanted: Callable[[Shape], bool]
    size: Callable[[Shape], int]
    spans: tuple[Span, ...]
    predicted: Callable[[ClusterSpec, Shape], float]
    fitted: Callable[[CalibrationSpec, Shape], bool]
    near: float = NEAR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--update", action="store_true", help="rewrite the tables in docs/measurements/silicon.md")
    parser.add_argument("--sample", action="store_true", help="rewrite the sample of the tables that the tests use")
    options = parser.parse_args()
    of_gpu = {gpu: Tables(options.wheel, gpu) for gpu in SYSTEMS}
    measured = {kind: {gpu: held_out(kind, gpu, kind.measured(of_gpu[gpu])) for gpu in SYSTEMS} for kind in KINDS}
    if options.sample:
        SAMPLE.write_text(sample(measured), encoding="utf-8")
    made = tables(measured)
    print("\n\n".join(made.values()))
    if options.update:
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")


def tables(measured: Mapping[Kind, Mapping[str, Seconds]]) -> dict[str, str]:
    """By the names of their places in the page."""
    head = [
        f"| | shapes | {' | '.join(gpu.upper() for gpu in SYSTEMS)} |",
        "| --- | --- |" + " --- |" * len(SYSTEMS),
    ]
    found: dict[str, list[str]] = {"by-name": list(head), "by-datasheet": list(head)}
    for kind, of_gpu in measured.items():
        for name, rows in found.items():
            ratios = {gpu: ratios_of(kind, clusters(gpu)[name], seconds) for gpu, seconds in of_gpu.items()}
            rows += [row(kind, span, ratios) for span in kind.spans]
    return {name: "\n".join(rows) for name, rows in found.items()}


def ratios_of(kind: Kind, cluster: ClusterSpec, seconds: Seconds) -> list[tuple[int, float]]:
    """The size of every shape, and predicted by measured."""
    return [(kind.size(shape), kind.predicted(cluster, shape) / took) for shape, took in seconds.items()]


def sample(measured: Mapping[Kind, Mapping[str, Seconds]]) -> str:
    """Some shapes of every kind and GPU, the same ones every time, in the largest span of the kind."""
    found: dict[str, Any] = {"from": f"{NAME}, Apache-2.0 (NOTICE)", "seconds": {}}
    for kind, of_gpu in measured.items():
        first, last = kind.spans[-1]
        for gpu, seconds in of_gpu.items():
            shapes = sorted(shape for shape in seconds if first <= kind.size(shape) <= last)
            if not shapes:
                continue
            some = sorted(random.Random(0).sample(shapes, min(SAMPLED, len(shapes))))
            found["seconds"].setdefault(kind.name, {})[gpu] = [
                [*shape, float(f"{seconds[shape]:.4g}")] for shape in some
            ]
    return re.sub(r"\],\s*\[", "],\n[", json.dumps(found, separators=(",", ":"))) + "\n"


def held_out(kind: Kind, gpu: str, seconds: Seconds) -> Seconds:
    rates = rates_of(clusters(gpu)["by-name"])
    if rates is None:
        raise SystemExit(f"{gpu} has no rates")
    return {s: took for s, took in seconds.items() if kind.wanted(s) and not kind.fitted(rates, s)}


def row(kind: Kind, span: Span, ratios: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    first, last = span
    its = {gpu: [ratio for size, ratio in found if first <= size <= last] for gpu, found in ratios.items()}
    counts = sorted({len(found) for found in its.values() if found})
    shapes = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    end = f"{first:,} and more" if last == MOST else f"{first:,} to {last:,}"
    cells = " | ".join(cell(found, kind.near) for found in its.values())
    return f"| {kind.name}, {end} {kind.unit} | {shapes} | {cells} |"


def cell(ratios: Sequence[float], near: float) -> str:
    """Predicted by measured: the median, and the share of shapes within a factor."""
    if not ratios:
        return "-"
    share = sum(1 / near <= ratio <= near for ratio in ratios) / len(ratios)
    return f"{statistics.median(ratios):.2f}, {share:.0%}"


def clusters(gpu: str) -> dict[str, ClusterSpec]:
    """A host of such GPUs, with and without what was measured."""
    named = load_cluster(f"{gpu}:8")
    return {"by-name": named, "by-datasheet": named.model_copy(update={"measured": None})}


def product_s(cluster: ClusterSpec, shape: Shape) -> float:
    device, (m, n, k) = _Device(cluster, DTYPE), shape
    nbytes = DTYPE_NBYTES * (m * n + m * k + n * k)
    return device.matmul(m, n, k, nbytes).seconds + device.task_overhead.value


def quantised_s(cluster: ClusterSpec, shape: Shape) -> float:
    """Of weights in so many bits, and of activations that are read in the dtype and rounded."""
    device, (kind, m, n, k) = _Device(cluster, DTYPE), shape
    weights = n * k // (2 if kind == "float4" else 1)
    nbytes = DTYPE_NBYTES * (m * n + m * k) + weights
    less = _Less(DTYPE_NBYTES * n * k - weights, kind)
    return device.matmul(m, n, k, nbytes, less).seconds + device.task_overhead.value


def prompt_s(cluster: ClusterSpec, shape: Shape) -> float:
    device, (tokens, sequences, heads, kv_heads, width) = _Device(cluster, DTYPE), shape
    queries = Value("q", "q", 0, ((0, sequences), (0, tokens), (0, heads), (0, width)), DTYPE)
    flops = 2 * sequences * heads * width * tokens * (tokens + 1)
    nbytes = 2 * DTYPE_NBYTES * sequences * tokens * width * (heads + kv_heads)
    return device.attention(queries, tokens, width, width, flops, nbytes).seconds + device.task_overhead.value


def decode_s(cluster: ClusterSpec, shape: Shape) -> float:
    keys, sequences, heads, kv_heads, width = shape
    sizes = {"batch": sequences, "heads": heads, "kv_heads": kv_heads, "width": width, "keys": keys}
    return decode_attention_cost(cluster, DTYPE, **sizes).seconds


def latent_decode_s(cluster: ClusterSpec, shape: Shape) -> float:
    (keys, sequences, heads), device = shape, _Device(cluster, DTYPE)
    return device.decode(sequences, heads, 1, LATENT, keys, once=True).seconds + device.task_overhead.value


def experts_s(cluster: ClusterSpec, shape: Shape) -> float:
    """Of one rank, whose task has the tokens of all and its own part of the experts."""
    device, (tokens, hidden, ffn, top_k, count, cut, parallel) = _Device(cluster, DTYPE), shape
    sizes = {"x": (1, tokens, hidden), "gates": (1, tokens, count // parallel)}
    sizes |= dict.fromkeys(("w_up", "w_down", "w_gate"), (count // parallel, hidden, ffn // cut))
    values = {
        name: Value(name, name, 0, tuple((0, size) for size in its), DTYPE) for name, its in sizes.items()
    }  # fmt: skip
    tensors = {name: SimpleNamespace(shape=(count, *its[1:]), storage=None) for name, its in sizes.items()}
    dag: Any = SimpleNamespace(value=values, tensor=tensors, work=SimpleNamespace(routing=EVEN))
    task: Any = SimpleNamespace(inputs=tuple(sizes))
    return _experts(dag, task, Experts("silu", top_k), device).seconds + device.task_overhead.value


def rows_of_an_expert(shape: Shape) -> int:
    """Of one that has rows; rounded."""
    tokens, _, _, top_k, count, _, _ = shape
    return max(1, round(tokens * top_k / count))


def collective_s(cluster: ClusterSpec, shape: Shape) -> float:
    kind, ranks, nbytes = shape
    task: Any = SimpleNamespace(ranks=tuple(range(ranks)), nbytes=nbytes, op=SimpleNamespace(kind=kind))
    return collective_cost(task, cluster).seconds


def product_fitted(rates: CalibrationSpec, shape: Shape) -> bool:
    return _on_grid(rates.matmul[DTYPE].grid, shape)


def quantised_fitted(_: CalibrationSpec, shape: Shape) -> bool:
    return fits_products(shape[0], shape[1:])


def prompt_fitted(rates: CalibrationSpec, shape: Shape) -> bool:
    tokens, sequences, heads, _, width = shape
    return _on_grid(rates.attention[DTYPE].grid, (sequences * heads, tokens, width))


def decode_fitted(rates: CalibrationSpec, shape: Shape) -> bool:
    keys, sequences, heads, kv_heads, width = shape
    return _on_grid(rates.decode[DTYPE].grid, (sequences * kv_heads, keys, width, heads // kv_heads))


def latent_decode_fitted(rates: CalibrationSpec, shape: Shape) -> bool:
    keys, sequences, heads = shape
    return _on_grid(rates.latent_decode[DTYPE].grid, (sequences, keys, heads))


def experts_fitted(_: CalibrationSpec, shape: Shape) -> bool:
    return fits_experts(shape)


def collective_fitted(rates: CalibrationSpec, shape: Shape) -> bool:
    kind, ranks, nbytes = shape
    return any((t.kind, t.ranks) == (kind, ranks) and nbytes in t.nbytes for t in rates.collectives)


def _on_grid(grid: Sequence[Sequence[int]], point: Sequence[int]) -> bool:
    return all(size in axis for axis, size in zip(grid, point, strict=True))


def _kinds() -> Iterator[Kind]:
    yield Kind(
        "product", "rows", Tables.products, lambda s: min(s[1:]) >= LEAST_WIDTH, lambda s: s[0],
        ((1, 16), (17, 256), (257, 1024), (1025, 8191), (8192, MOST), (1, MOST)), product_s, product_fitted,
    )  # fmt: skip
    for numbers in ("float8", "float8_blocks", "float4", "int8"):
        yield Kind(
            f"product in {numbers.replace('_', ' in ')}", "rows", Tables.quantised_products,
            lambda s, numbers=numbers: s[0] == numbers and min(s[2:]) >= LEAST_WIDTH, lambda s: s[1],
            ((1, 256), (257, MOST), (1, MOST)), quantised_s, quantised_fitted,
        )  # fmt: skip
    yield Kind(
        "causal attention", "tokens", Tables.prompts, lambda s: s[2] >= LEAST_HEADS, lambda s: s[0],
        ((128, 511), (512, 2047), (2048, 8191), (8192, MOST), (128, MOST)), prompt_s, prompt_fitted,
    )  # fmt: skip
    yield Kind(
        "attention over a cache", "keys", Tables.decodes, lambda s: s[4] in WIDTHS, lambda s: s[0],
        ((2, 127), (128, 1023), (1024, 8191), (8192, MOST), (128, MOST)), decode_s, decode_fitted,
    )  # fmt: skip
    yield Kind(
        "the same, a head of keys for each query head", "keys", Tables.decodes,
        lambda s: s[4] in WIDTHS and s[2] == s[3], lambda s: s[0], ((2, 127), (128, MOST)), decode_s, decode_fitted,
    )  # fmt: skip
    yield Kind(
        "latent attention over a cache", "keys", Tables.latent_decodes, lambda _: True, lambda s: s[0],
        ((2, 127), (128, 1023), (1024, 8191), (8192, MOST), (128, MOST)), latent_decode_s, latent_decode_fitted,
    )  # fmt: skip
    yield Kind(
        "experts", "rows of an expert", Tables.experts, lambda s: s[2] // s[5] >= LEAST_EXPERT, rows_of_an_expert,
        ((1, 8), (9, 64), (65, 512), (513, MOST), (1, MOST)), experts_s, experts_fitted, NEAR_EXPERTS,
    )  # fmt: skip
    for kind in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all"):
        yield Kind(
            kind, "bytes received", Tables.collectives, lambda s, kind=kind: s[0] == kind, lambda s: s[2],
            ((1, MOST),), collective_s, collective_fitted,
        )  # fmt: skip
    yield Kind(
        "all four", "bytes received", Tables.collectives, lambda _: True, lambda s: s[2],
        ((1, 65_535), (65_536, 2**24 - 1), (2**24, MOST), (1, MOST)), collective_s, collective_fitted,
    )  # fmt: skip


WIDTHS: Final = (64, 128, 256)  # the others are those of latent attention, whose keys are not its values
KINDS: Final = tuple(_kinds())


if __name__ == "__main__":
    main()
