"""The paper's experiment, predicted: every table of docs/paper.md.

    python tests/benchmarks/paper.py            print the tables
    python tests/benchmarks/paper.py --update   write them into docs/paper.md

Nothing here is measured: every number follows from plans/paper and the constants of helixctl/cost.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT)]

from helixctl.cost.memory import peak_nbytes  # noqa: E402
from helixctl.cost.tasks import sources  # noqa: E402
from helixctl.lower import lower  # noqa: E402
from helixctl.paper import MEASURED, METHODS, MODELS, Case, Comparison, Row, Way, comparisons  # noqa: E402
from helixctl.paper.between_hosts import BEST, WORST  # noqa: E402
from helixctl.paper.experiment import MEGATRON  # noqa: E402
from helixctl.plan import Layout, Plan  # noqa: E402
from helixctl.simulate import forecast  # noqa: E402
from helixctl.units import human_bytes, human_seconds  # noqa: E402
from tests.benchmarks.tables import updated  # noqa: E402

PAGE = ROOT / "docs/paper.md"
MATMUL = 798e12  # FLOP/s of an 8192-cube product, measured on an H100 SXM (helixctl/cost/constants.py)
LENGTHS = (1, 128, 2048)


def limit(case: Case) -> float:
    """Tokens/s of all devices at the measured matrix-product rate, without attention scores and memory."""
    model, cluster, work = case.specs
    dag = lower(Plan.sketch(model, cluster, work, Layout(groups=1, slices=1, data=cluster.devices)))
    products = sum(t.flops for t in dag.tasks if t.kind in {"linear", "experts", "route"})
    return cluster.devices * MATMUL / (products / work.tokens)


def tables() -> dict[str, str]:
    """Every table of the page, by name."""
    return {name: make() for name, make in (QUICK | SLOW).items()}


def one_token(cluster: str | None = None) -> str:
    """The paper's table beside ours at one token per sequence, over what is published between hosts."""
    lines = []
    for each in comparisons(cluster):
        for way, method in METHODS.items():
            tps, tpot = each.reported(way)
            cells = [_banded(each, way, text) for text in (_tps, _overhead, _step)]
            lines.append([each.model, method.label, f"{tps:,}", f"{tpot:.2f}", *cells])
        gains = f"{each.reported_gain:+.1%}", f"{each.gain:+.1%} ({each.gains[0]:+.1%} to {each.gains[1]:+.1%})"
        lines.append([each.model, "*Helix against TP=8, PP=2*", gains[0], "", gains[1], "", ""])
    return _markdown(
        ["model", "method", "paper: tokens/s", "paper: TPOT, ms", "ours: tokens/s", "ours: overhead, ms", "ours: step"],
        lines,
    )


def measured() -> str:
    """The same with rates and collectives inside a host as they were measured."""
    return one_token(MEASURED)


def between_hosts() -> str:
    """The ends of what is published between hosts, and how to ask for them."""
    link = Case("dense").specs.cluster.only.between_hosts
    assert link is not None
    lines = [
        [name, f"{end.nic_share:.0%}", human_seconds(end.all_reduce_s), _shown_sets(end.sets(link)), end.sources]
        for name, end in (("best", BEST), ("worst", WORST))
    ]
    return _markdown(["end", "of a NIC's rate", "an all-reduce starts in", "as options", "sources"], lines)


def _shown_sets(sets: tuple[str, ...]) -> str:
    return " ".join(f"`--set '{text}'`" for text in sets)


def longer() -> str:
    """The two methods at longer sequences, as plain as in the paper and with the rest of the layout searched."""
    lines = []
    for model in MODELS:
        for length in LENGTHS:
            case = Case(model, f"workload.seq_len={length}")
            rows = [
                ("TP=8, PP=2, 4 microbatches", case.row(**MEGATRON, microbatches=4)),
                ("the same, sums in float16", case.row(**MEGATRON, microbatches=4, reduction_dtype="model")),
                ("the same, residual stream sharded", case.row(**MEGATRON, microbatches=4, residual="sharded")),
                ("TP=8, PP=2, the rest searched", case.best(groups=8, slices=1, data=1, pipeline=2)),
                ("Helix 4 x 4", case.row(groups=4, slices=4)),
                ("4 x 4, the rest searched", case.best(groups=4, slices=4)),
            ]
            for name, row in rows:
                memory = human_bytes(row.forecast.memory_nbytes)
                cells = [model, str(length), name, str(row.layout), _tps(row), _overhead(row), _step(row), memory]
                lines.append(cells)
    return _markdown(
        ["model", "tokens a sequence", "method", "layout", "tokens/s", "overhead, ms", "step", "memory"], lines
    )


def winners() -> str:
    """The best plan of the whole space in each case."""
    lines = []
    for model in MODELS:
        for length in LENGTHS:
            case = Case(model, f"workload.seq_len={length}")
            best, base = case.best(), case.row(**MEGATRON, microbatches=4)
            searched = case.best(groups=8, slices=1, data=1, pipeline=2)
            tps = best.forecast.tokens_per_s
            lines.append([
                model,
                str(length),
                str(best.layout),
                _tps(best),
                f"{tps / base.forecast.tokens_per_s:.2f} x",
                f"{tps / searched.forecast.tokens_per_s:.2f} x",
                f"{limit(case) / 1e6:.2f}M",
                f"{tps / limit(case):.0%}",
            ])  # fmt: skip
    return _markdown(
        ["model", "tokens a sequence", "best plan", "tokens/s", "over TP=8, PP=2, 4 microbatches",
         "over the best TP=8, PP=2", "limit", "of the limit"],
        lines,
    )  # fmt: skip


def peers() -> str:
    """TP=8, PP=2 at 1,024 tokens per microbatch, as other planners are set up."""
    lines = []
    for parts in (1, 2, 8, 32):
        for dtype in ("accumulator", "model"):
            case = Case("dense", f"workload.batch={parts}", "workload.seq_len=1024")
            row = case.row(**MEGATRON, microbatches=parts, reduction_dtype=dtype)
            turns = case.row(**MEGATRON, microbatches=parts, reduction_dtype=dtype, interleave=2) if parts > 1 else None
            kept = "float32" if dtype == "accumulator" else "float16"
            lines.append([str(parts), kept, _tps(row), _tps(turns) if turns else "-"])
    return _markdown(["microbatches", "sums in", "tokens/s", "two microbatches taking turns: tokens/s"], lines)


def gather() -> str:
    """Bytes between hosts in the concat level, by gather order."""
    case, lines = Case("dense"), []
    for order in ("slices_first", "groups_first"):
        dag = lower(Plan.of(*case.specs, Layout(groups=4, slices=4, gather_order=order)))  # type: ignore[arg-type]
        found = forecast(dag)
        concat = sum(k.between_hosts_nbytes for k in found.kinds if k.level == "concat")
        lines.append([
            order, human_bytes(concat), human_bytes(found.between_hosts_nbytes), human_seconds(found.step_s),
            human_bytes(max(peak_nbytes(dag))),
        ])  # fmt: skip
    return _markdown(["gather_order", "concat, between hosts", "all levels", "step", "memory"], lines)


def sources_list() -> str:
    """The constants that the four rows rest on."""
    found: dict[str, None] = {}
    for model in ("dense", "MoE top-2"):
        case = Case(model)
        for axes in ({**MEGATRON, "microbatches": 4}, {"groups": 4, "slices": 4}):
            layout = Layout.model_validate({**axes, "experts": 8 if case.name == "moe" else 1})
            found |= dict.fromkeys(sources(lower(Plan.of(*case.specs, layout))))  # type: ignore[arg-type]
    return "".join(f"- {line}\n" for line in found)


QUICK = {
    "one-token": one_token,
    "measured": measured,
    "between-hosts": between_hosts,
    "peers": peers,
    "gather": gather,
    "sources": sources_list,
}
SLOW = {"longer": longer, "winners": winners}


def _banded(comparison: Comparison, way: Way, text: Callable[[Row], str]) -> str:
    """A figure, and in brackets those at both ends, the smaller first."""
    best, worst = (rows[way] for rows in comparison.ends)
    first, last = (worst, best) if text is _tps else (best, worst)
    return f"{text(comparison.rows[way])} ({text(first)} to {text(last)})"


def _tps(row: Row) -> str:
    tps = row.forecast.tokens_per_s
    return f"{tps / 1e6:.2f}M" if tps >= 1e6 else f"{tps / 1e3:.0f}k"


def _overhead(row: Row) -> str:
    return f"{row.forecast.sync_overhead_per_token_ms:.3f}"


def _step(row: Row) -> str:
    return human_seconds(row.forecast.step_s)


def _markdown(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in rows)


def main() -> None:
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true")
    update = parser.parse_args().update
    made = tables()
    if update:
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
        return
    for name, text in made.items():
        print(f"## {name}\n\n{text}")


if __name__ == "__main__":
    main()
