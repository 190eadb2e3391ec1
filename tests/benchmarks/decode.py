"""Decoding with three ways to cut the KV cache, predicted for H100 and B200: the tables of docs/decode.md and of
docs/measurements/decode-table.md.

    python tests/benchmarks/decode.py [--update] [--json FILE] [--picture]

Nothing here is measured. For each model, cluster, context and batch the layout with the shortest time per output token
is searched in each of three families, which cut the same heads and weights:

- tp: whole KV heads, copied where there are more groups than KV heads (slices=1);
- batch: slices that share the sequences (slicing=batch);
- key: slices that share the positions of the cache (slicing=key), at most as many groups as KV heads.

Replicas (data), up to 8 pipeline stages with up to two microbatches each, placement, gather order, combine and residual
are searched in all three. ``--picture`` draws the decode step of docs/decode.md, which needs Graphviz.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

import helixctl  # noqa: E402
from helixctl import collector  # noqa: E402
from helixctl.emit import emit  # noqa: E402
from helixctl.plan import Layout  # noqa: E402
from helixctl.solve.objective import simplicity  # noqa: E402
from helixctl.solve.problem import LayoutProblem, Specs  # noqa: E402
from helixctl.solve.search import BUDGET, search  # noqa: E402
from helixctl.solve.space import space  # noqa: E402
from helixctl.spec.load import load_specs  # noqa: E402
from helixctl.units import human_bytes, human_seconds  # noqa: E402
from tests.benchmarks.tables import updated  # noqa: E402

DOC: Final = ROOT / "docs/measurements/decode-table.md"
PAGE: Final = ROOT / "docs/decode.md"
PICTURE: Final = ROOT / "docs/decode-2x2.png"
MODELS: Final = ("Llama-3.1-70B", "Llama-3.1-405B")
GPUS: Final = ("h100", "b200")
HOSTS: Final = (1, 2, 4, 8)
DOMAIN: Final = "b200:1x64"  # as if NVLink joined 64 GPUs, as in a GB200 NVL72
CLUSTERS: Final = (*(f"{gpu}:{hosts}x8" for gpu in GPUS for hosts in HOSTS), DOMAIN)
CONTEXTS: Final = {"8k": 8_192, "128k": 131_072, "1M": 1_048_576}
BATCHES: Final = (1, 8, 32, 256)
OUTPUT_LEN: Final = 512
BUDGETS_MS: Final = (25, 50, 100)
OF_BUDGETS: Final = ("h100:8x8", "b200:8x8", DOMAIN)
LARGEST: Final = 256  # sequences
STAGES: Final = (1, 2, 4, 8)
MICROBATCHES: Final = 2  # of a stage, at most
# The rows that docs/decode.md speaks of: model, cluster, context, batch.
SHOWN: Final = (
    ("Llama-3.1-70B", "h100:1x8", "128k", 8),
    ("Llama-3.1-70B", "h100:2x8", "1M", 1),
    ("Llama-3.1-70B", "h100:8x8", "1M", 1),
    ("Llama-3.1-70B", "h100:8x8", "1M", 8),
    ("Llama-3.1-405B", "h100:4x8", "1M", 1),
    ("Llama-3.1-405B", "h100:8x8", "1M", 1),
    ("Llama-3.1-405B", "h100:8x8", "1M", 4),
    ("Llama-3.1-405B", "h100:8x8", "128k", 32),
    ("Llama-3.1-405B", "b200:8x8", "1M", 1),
    ("Llama-3.1-405B", DOMAIN, "1M", 1),
    ("Llama-3.1-405B", DOMAIN, "1M", 8),
    ("Llama-3.1-405B", DOMAIN, "1M", 16),
)
FAMILIES: Final[dict[str, Callable[[Layout], bool]]] = {
    "tp": lambda layout: layout.slices == 1,
    "batch": lambda layout: layout.slices > 1 and layout.slicing == "batch",
    "key": lambda layout: layout.slices > 1 and layout.slicing == "key",
}
NAMES: Final = {"tp": "TP", "batch": "batch slicing", "key": "key slicing"}
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="rewrite the tables of both pages")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", action="store_true", help="draw docs/decode-2x2.png and do nothing else")
    options = parser.parse_args()
    if options.picture:
        PICTURE.write_bytes(picture())
        return
    with collector.paused():
        rows = list(every())
        few = {"shown": shown(rows), "beside-tp": beside_tp(rows)}
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    made = tables(rows)
    print("\n\n".join([*made.values(), *few.values()]))
    if options.update:
        for page, its in ((DOC, made), (PAGE, few)):
            page.write_text(updated(page.read_text(encoding="utf-8"), its), encoding="utf-8")


def every() -> Iterator[Row]:
    """All rows; a line of progress for each model and cluster."""
    for model in MODELS:
        for cluster in CLUSTERS:
            begin = time.perf_counter()
            for context in CONTEXTS:
                more = powers(LARGEST) if cluster in OF_BUDGETS and context != "8k" else []
                for batch in sorted({*BATCHES, *more}):
                    yield row(model, cluster, context, batch)
            print(f"{model} on {cluster}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)


def powers(largest: int) -> list[int]:
    """The powers of two up to a number."""
    return [2**i for i in range(largest.bit_length())]


def row(model: str, cluster: str, context: str, batch: int) -> Row:
    """The best layout of every family: null where no layout fits, no key where none is legal."""
    work = (f"seq_len={CONTEXTS[context]}", f"output_len={OUTPUT_LEN}", f"batch={batch}")
    document, its = load_specs(model, cluster, tuple(f"workload.{field}" for field in work))
    specs = Specs(document.model, its, document.workload)
    problem = LayoutProblem.of(specs, "tpot")
    kv_heads = document.model.attention.key_heads
    of_stages = (space(*specs, {"pipeline": stages, "key_prefill": "key"}, MICROBATCHES, "tpot") for stages in STAGES)
    legal = sorted(chain.from_iterable(of_stages), key=simplicity)
    found = {}
    for family, belongs in FAMILIES.items():
        asked = [x for x in legal if belongs(x) and (family == "tp" or x.groups <= kv_heads)]
        if asked:
            found[family] = best(problem, asked)
    place = {"model": model, "cluster": cluster, "devices": its.devices, "context": context, "batch": batch}
    return place | {"best": found}


def best(problem: LayoutProblem, asked: list[Layout]) -> Row | None:
    """The layout with the shortest time per output token; None where none fits."""
    result = search(problem.bounded(asked), problem, BUDGET)
    if result.best is None or result.best.forecast is None:
        return None
    forecast, layout = result.best.forecast, result.best.layout
    its = forecast.generation
    assert its is not None
    return {
        "layout": str(layout),
        "time_per_output_token_s": its.time_per_output_token_s,
        "tokens_per_s_per_device": its.batch / its.time_per_output_token_s / layout.devices,
        "exposed_s": its.decode.exposed_s,
        "cache_nbytes": forecast.cache_nbytes,
        "memory_nbytes": forecast.memory_nbytes,
        "ttft_s": its.ttft_s,
        "optimal": result.open_bound is None,
    }


def tables(rows: list[Row]) -> dict[str, str]:
    """The tables of the page by the names of their places."""
    made = {"wins": wins([r for r in rows if r["batch"] in BATCHES])}
    made["budgets"] = budgets([r for r in rows if r["cluster"] in OF_BUDGETS and r["context"] != "8k"])
    for gpu in GPUS:
        for model in MODELS:
            its = [r for r in rows if r["model"] == model and r["cluster"].startswith(gpu) and r["cluster"] != DOMAIN]
            made[f"{gpu}-{model}"] = table([r for r in its if r["batch"] in BATCHES])
    for model in MODELS:
        its = [r for r in rows if r["model"] == model and r["cluster"] == DOMAIN and r["batch"] in BATCHES]
        made[f"domain-{model}"] = table(its)
    return made


def ranked(row: Row) -> list[str]:
    """The families with a layout that fits, the fastest first."""
    return sorted((family for family in FAMILIES if row["best"].get(family)), key=lambda family: seconds(row, family))


def seconds(row: Row, family: str) -> float:
    """The time per output token of the best layout of a family in which one fits."""
    return float(row["best"][family]["time_per_output_token_s"])


def table(rows: list[Row]) -> str:
    """A line for each row where something fits, and a sentence for the others."""
    lines = [
        f"| devices | context | batch | {' | '.join(NAMES.values())} | fastest | layout |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        if not (order := ranked(r)):
            continue
        cells = [cell(r, family, fastest=family == order[0]) for family in FAMILIES]
        best = f"{NAMES[order[0]]}{margin(r, order)}"
        start = [str(r["devices"]), r["context"], str(r["batch"])]
        lines.append("| " + " | ".join([*start, *cells, best, r["best"][order[0]]["layout"]]) + " |")
    nothing = [r for r in rows if not ranked(r)]
    if nothing:
        places = dict.fromkeys((r["devices"], r["context"]) for r in nothing)
        least = {at: min(r["batch"] for r in nothing if (r["devices"], r["context"]) == at) for at in places}
        said = [f"{n} devices, {context}: batch {least[n, context]}" for n, context in places]
        lines += ["", f"Nothing fits from this batch on: {'; '.join(said)}."]
    return "\n".join(lines)


def shown(rows: list[Row]) -> str:
    """The rows of docs/decode.md, with the layout of every family."""
    names = ["model", "cluster", "context", "batch", *NAMES.values()]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    places = {(r["model"], r["cluster"], r["context"], r["batch"]): r for r in rows}
    for place in SHOWN:
        cells = [described(places[place], family) for family in FAMILIES]
        lines.append("| " + " | ".join([*map(str, place), *cells]) + " |")
    return "\n".join(lines)


def beside_tp(rows: list[Row]) -> str:
    """The time of TP by that of key slicing at 1M tokens on 64 devices, for each batch where both fit."""
    its = [r for r in rows if r["context"] == "1M" and r["cluster"] in OF_BUDGETS and {"tp", "key"} <= {*ranked(r)}]
    batches = sorted({r["batch"] for r in its})
    lines = [f"| batch | {' | '.join(map(str, batches))} |", "|---" * (1 + len(batches)) + "|"]
    for model, cluster in dict.fromkeys((r["model"], r["cluster"]) for r in its):
        ratios = {
            r["batch"]: f"{seconds(r, 'tp') / seconds(r, 'key'):.2f}"
            for r in its
            if (r["model"], r["cluster"]) == (model, cluster)
        }
        lines.append(f"| {model}, {cluster} | {' | '.join(ratios.get(batch, '-') for batch in batches)} |")
    return "\n".join(lines)


def described(row: Row, family: str) -> str:
    """Time per output token, cache and layout; the fastest bold."""
    if family not in ranked(row):
        return "-"
    its = row["best"][family]
    time_of = human_seconds(seconds(row, family))
    time_of = f"**{time_of}**" if ranked(row)[0] == family else time_of
    layout = its["layout"].replace(f", slicing {family}", "").replace(", reduce", "").replace(", expanded prefill", "")
    return f"{time_of}, {human_bytes(its['cache_nbytes'])}: {layout}"


def margin(row: Row, order: list[str]) -> str:
    """By how much the fastest is ahead of the next."""
    if len(order) == 1:
        return ", alone"
    return f", {seconds(row, order[1]) / seconds(row, order[0]):.2f} x"


def cell(row: Row, family: str, *, fastest: bool) -> str:
    if family not in row["best"]:
        return "-"
    its = row["best"][family]
    if its is None:
        return "does not fit"
    each = its["tokens_per_s_per_device"]
    rate = f"{each:,.0f}" if each >= 100 else f"{each:.3g}"
    text = f"{human_seconds(seconds(row, family))}, {rate}/s, {human_bytes(its['cache_nbytes'])}"
    return f"**{text}**" if fastest else text


def wins(rows: list[Row]) -> str:
    """How often each family is the fastest, by context and batch."""
    names = ["context", "batch", "rows", *NAMES.values(), "TP / key: median", "least", "most"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for context in CONTEXTS:
        for batch in BATCHES:
            its = [r for r in rows if r["context"] == context and r["batch"] == batch and ranked(r)]
            if not its:
                continue
            first = [ranked(r)[0] for r in its]
            ratios = sorted(seconds(r, "tp") / seconds(r, "key") for r in its if {"tp", "key"} <= {*ranked(r)})
            spread = [f"{ratios[i]:.2f}" for i in (len(ratios) // 2, 0, -1)] if ratios else ["-"] * 3
            counts = [str(first.count(family)) for family in FAMILIES]
            lines.append("| " + " | ".join([context, str(batch), str(len(its)), *counts, *spread]) + " |")
    return "\n".join(lines)


def budgets(rows: list[Row]) -> str:
    """The largest batch, of the powers of two, that a family serves within a time per output token."""
    lines = [
        "| model | cluster | context | " + " | ".join(f"{ms} ms: TP, batch, key" for ms in BUDGETS_MS) + " |",
        "|---|---|---|" + "---|" * len(BUDGETS_MS),
    ]
    for model, cluster, context in dict.fromkeys((r["model"], r["cluster"], r["context"]) for r in rows):
        its = [r for r in rows if (r["model"], r["cluster"], r["context"]) == (model, cluster, context)]
        cells = [", ".join(largest(its, family, ms / 1e3) for family in FAMILIES) for ms in BUDGETS_MS]
        lines.append("| " + " | ".join([model, cluster, context, *cells]) + " |")
    return "\n".join(lines)


def largest(rows: list[Row], family: str, budget_s: float) -> str:
    inside = [r["batch"] for r in rows if r["best"].get(family) and seconds(r, family) <= budget_s]
    return str(max(inside, default="-"))


def picture() -> bytes:
    """A layer of a decode step of which two slices share the positions of the cache."""
    sets = ("layers=3", "workload.batch=4", "workload.seq_len=4096", "workload.output_len=64")
    model, cluster = helixctl.load("Llama-3.1-8B", sets), helixctl.load("h100:1x4")
    assert isinstance(model, helixctl.ModelDocument)
    assert isinstance(cluster, helixctl.ClusterSpec)
    layout = {"groups": 2, "slices": 2, "slicing": "key", "combine": "reduce"}
    dag = helixctl.lower_plan(helixctl.make_plan(model, cluster, layout=layout, plain=True).plan, "decode")
    drawn = emit(dag, "png", 1)
    assert isinstance(drawn, bytes)
    return drawn


if __name__ == "__main__":
    main()
