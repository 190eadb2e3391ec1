"""What measured rates change: 120 problems planned by datasheet alone, and by the rates that come with helixctl.

    python tests/benchmarks/before_after.py [--update] [--json FILE]

"By datasheet" is the cluster by name with `--set measured=null --set device.sms=null --set device.matmul_share=null`:
what a file holds that a person copies from a datasheet, as all of them did before GPUs had names. Both plans are then
priced by the measured rates, and the difference is what the plan by datasheet costs.

Predictions; nothing runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT)]

from helixctl.plan import Layout  # noqa: E402
from helixctl.solve import decide  # noqa: E402
from helixctl.solve.candidate import simulated  # noqa: E402
from helixctl.solve.constraints import Request  # noqa: E402
from helixctl.solve.decide import _searched  # noqa: E402
from helixctl.solve.problem import LayoutProblem, Specs  # noqa: E402
from helixctl.solve.search import BUDGET  # noqa: E402
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec  # noqa: E402
from helixctl.spec.load import load_specs  # noqa: E402
from helixctl.units import human_seconds  # noqa: E402
from tests.benchmarks.tables import updated  # noqa: E402

PAGE: Final = ROOT / "docs/measurements/before-after.md"
MODELS: Final = (
    "Llama-3.1-8B",
    "Llama-3.1-70B",
    "Qwen2.5-7B",
    "Qwen3-30B-A3B",
    "Qwen3-235B-A22B",
    "Mixtral-8x7B-v0.1",
    "gpt-oss-120b",
    str(ROOT / "plans/paper/dense.model.yaml"),
)
CLUSTERS: Final = ("a100:1x8", "h100:1x8", "h100:2x8", "b200:1x8", "l40s:2x8")
WORKS: Final = {
    "1 x 2,048": WorkloadSpec(batch=1, seq_len=2048, logits="last"),
    "16 x 2,048": WorkloadSpec(batch=16, seq_len=2048, logits="last"),
    "64 x 512, then 128": WorkloadSpec(batch=64, seq_len=512, output_len=128, logits="last"),
}
# The paper's model has no vocabulary, and so generates nothing.
OF_THE_PAPER: Final = {"1,024 x 1": WorkloadSpec(batch=1024, seq_len=1)}
BY_DATASHEET: Final = ("measured=null", "device.sms=null", "device.matmul_share=null")
MATTERS: Final = 0.01  # of the step
SHOWN: Final = 12


@dataclass(frozen=True)
class Row:
    """A problem, the layouts chosen, and the seconds of both by the measured rates.

    Attributes:
        predicted_s: of the layout by datasheet, by datasheet.
        before_s: of the same layout, by the measured rates.
        after_s: of the layout by measured rates, by these.
    """

    model: str
    cluster: str
    work: str
    before: str
    after: str
    predicted_s: float
    before_s: float
    after_s: float

    @property
    def changed(self) -> bool:
        """Whether another layout is chosen."""
        return self.before != self.after

    @property
    def cost(self) -> float:
        """By which part of the step the layout by datasheet takes longer."""
        return self.before_s / self.after_s - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help=f"rewrite the tables in {PAGE.relative_to(ROOT)}")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = list(solved(MODELS))
    made = {"summary": summary(rows), "costly": costly(rows)}
    print("\n\n".join(made.values()))
    if options.update:
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
    if options.json:
        found = [asdict(row) | {"cost": row.cost} for row in rows]
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def solved(models: Sequence[str]) -> Iterator[Row]:
    """Every problem of the models; how far it is goes to standard error."""
    begin, done = time.process_time(), 0
    for model in models:
        for cluster in CLUSTERS:
            for work, workload in works(load_specs(model, cluster)[0].model).items():
                yield problem(model, cluster, work, workload)
                done += 1
                print(f"{done} problems, {time.process_time() - begin:.0f} s of a core", file=sys.stderr)


def works(model: ModelSpec) -> dict[str, WorkloadSpec]:
    """Three workloads of a model."""
    if model.vocabulary:
        return WORKS
    passes = {name: its for name, its in WORKS.items() if its.output_len is None}
    return {name: its.model_copy(update={"logits": "all"}) for name, its in (passes | OF_THE_PAPER).items()}


def problem(name: str, gpus: str, work: str, workload: WorkloadSpec) -> Row:
    """Both layouts of a problem, and what they take."""
    document, after = load_specs(name, gpus)
    model, before = document.model, load_specs(name, gpus, BY_DATASHEET)[1]
    first, second = (chosen(Specs(model, cluster, workload)) for cluster in (before, after))
    after_s = second[1]
    before_s = after_s if first[0] == second[0] else step_s(model, after, workload, first[0])
    return Row(model.name, gpus, work, str(first[0]), str(second[0]), first[1], before_s, after_s)


def chosen(specs: Specs) -> tuple[Layout, float]:
    """The layout that `helixctl plan` chooses, and its seconds; without the rows that are only shown beside it.

    Where layers differ the command may deal them unequally to the stages of a pipeline besides.
    """
    result = _searched(LayoutProblem.of(specs, "throughput"), Request({}), BUDGET, None).result
    if result.best and result.best.forecast and result.open_bound is None:
        return result.best.layout, result.best.forecast.step_s
    decision = decide(*specs)  # the rows beside the choice take part in it
    return decision.plan.layout, decision.forecast.step_s


def step_s(model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec, layout: Layout) -> float:
    """Seconds of a layout that another cluster's rates have chosen; it is as legal here, and fits as well."""
    found = simulated(model, cluster, workload, layout).forecast
    if found is None:
        raise TypeError  # of a legal layout there is one
    return found.step_s


def summary(rows: Sequence[Row]) -> str:
    """How many changed and what the layout by datasheet costs, by GPU and by workload."""
    lines = [
        "| problems | | layout changed | dearer by over 1 % | median of changed | dearest | by datasheet / measured |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        _summed("all", rows),
    ]
    lines += [_summed(name, [row for row in rows if row.cluster == name]) for name in CLUSTERS]
    lines += [_summed(name, [row for row in rows if row.work == name]) for name in (*WORKS, *OF_THE_PAPER)]
    lines += [
        _summed(name, [row for row in rows if row.model == name]) for name in dict.fromkeys(r.model for r in rows)
    ]
    return "\n".join(lines)


def _summed(name: str, rows: Sequence[Row]) -> str:
    changed = [row for row in rows if row.changed]
    costs = [row.cost for row in changed]
    ratios = [row.predicted_s / row.before_s for row in rows]
    cells = [
        name,
        str(len(rows)),
        str(len(changed)),
        str(sum(cost > MATTERS for cost in costs)),
        f"{statistics.median(costs):+.1%}" if costs else "-",
        f"{max(costs):+.1%}" if costs else "-",
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
    ]
    return "| " + " | ".join(cells) + " |"


def costly(rows: Sequence[Row]) -> str:
    """The problems in which the layout by datasheet costs most."""
    lines = [
        "| model | GPUs | sequences x tokens | by datasheet | by measured rates | the first takes | the second | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in sorted(rows, key=lambda row: -row.cost)[:SHOWN]:
        if row.cost > MATTERS:
            before_s, after_s = human_seconds(row.before_s), human_seconds(row.after_s)
            cells = [row.model, row.cluster, row.work, row.before, row.after, before_s, after_s, f"{row.cost:+.1%}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
