"""Predicted beside measured: calibrate this machine, predict layouts of the small twins on four ranks, run them.

    python tests/benchmarks/predictions.py [--iters 60] [--json FILE] [--cluster FILE]

``helixctl calibrate`` writes the cluster file (or one that is given is used); every layout is planned for it and
simulated; then all of them run on the same four ranks, step by step in turn (``helixctl run --compare``). Nothing
measured in the second part goes into the first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
LAYOUTS = [
    ("dense", "groups=4,slices=1"),
    ("dense", "groups=2,slices=2"),
    ("dense", "groups=1,slices=4"),
    ("dense", "groups=2,slices=2,gather_order=groups_first"),
    ("dense", "groups=4,slices=1,combine=reduce"),
    ("dense", "groups=2,slices=2,combine=reduce"),
    ("dense", "groups=2,slices=1,data=2"),
    ("dense", "groups=1,slices=1,data=4"),
    ("dense", "groups=2,slices=1,pipeline=2,combine=reduce,microbatches=1"),
    ("dense", "groups=2,slices=1,pipeline=2,combine=reduce,microbatches=4"),
    ("dense", "groups=1,slices=1,pipeline=4,microbatches=4"),
    ("dense", "groups=4,slices=1,combine=reduce,microbatches=2,interleave=2"),
    ("moe", "groups=4,slices=1,experts=1"),
    ("moe", "groups=4,slices=1,experts=4"),
    ("moe", "groups=2,slices=2,experts=2"),
    ("moe", "groups=2,slices=1,pipeline=2,combine=reduce,microbatches=4,experts=2"),
]
PLAIN = ("combine=concat", "gather_order=slices_first", "experts=1", "microbatches=1", "interleave=1", "data=1",
         "pipeline=1")  # fmt: skip


def helixctl(*arguments: str) -> None:
    """Run a command of this tree."""
    subprocess.run([sys.executable, "-m", "helixctl", *arguments], cwd=ROOT, check=True)


def whole(axes: str) -> str:
    """A layout with every axis that it does not name at its default."""
    named = {axis.split("=")[0] for axis in axes.split(",")}
    return ",".join([axes, *(axis for axis in PLAIN if axis.split("=")[0] not in named)])


def main() -> None:
    """Calibrate, predict, run, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iters", type=int, default=60)
    parser.add_argument("--cluster")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cluster = arguments.cluster or f"{folder}/calibrated.cluster.yaml"
        if not arguments.cluster:
            helixctl("calibrate", "--ranks", "4", "-o", cluster)
        plans = []
        for number, (model, axes) in enumerate(LAYOUTS):
            plans.append(f"{folder}/{number}.plan.json")
            spec = f"plans/small/{model}.model.yaml"
            helixctl("plan", spec, cluster, "--layout", whole(axes), "-q", "-o", plans[-1])
        helixctl("simulate", *plans, "--json", f"{folder}/simulated.json")
        steps = ("--warmup", "10", "--iters", str(arguments.iters))
        helixctl("run", "--compare", *plans, *steps, "--report", f"{folder}/report.json")
        simulated = json.loads(Path(f"{folder}/simulated.json").read_text(encoding="utf-8"))
        report = json.loads(Path(f"{folder}/report.json").read_text(encoding="utf-8"))
    found = zip(LAYOUTS, simulated["plans"], report["methods"], strict=True)
    rows = [row(asked, predicted, measured) for asked, predicted, measured in found]
    rows.sort(key=lambda r: abs(r["predicted_over_measured"] - 1))
    for r in rows:
        print(
            f"{r['predicted_over_measured']:.2f}  {r['predicted_ms']:8.1f} {r['measured_p50_ms']:8.1f}  {r['layout']}"
        )
    near = sum(abs(r["predicted_over_measured"] - 1) <= 0.25 for r in rows)
    print(f"{near} of {len(rows)} within 25 %")
    if arguments.json:
        made = {
            "benchmark": "tests/benchmarks/predictions.py",
            "iters": arguments.iters,
            "environment": report["methods"][0]["environment"],
            "within_25_percent": near,
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        arguments.json.with_suffix(".md").write_text(markdown(rows, made["environment"], near), encoding="utf-8")


def markdown(rows: list[dict[str, Any]], environment: dict[str, Any], near: int) -> str:
    """The table for people."""
    lines = [
        "# Predicted beside measured",
        "",
        "`helixctl calibrate` on four CPU ranks, then every layout simulated for the file that it wrote and run on the",
        "same ranks, a step of each in turn. Written by `python tests/benchmarks/predictions.py --json FILE` on",
        f"{environment['cpus']} cores of {environment['processor']}, torch {environment['torch']}.",
        "",
        f"{near} of {len(rows)} predictions are within 25 % of the median that was measured.",
        "",
        "| layout | predicted, ms | measured p50, ms | p10 to p90, ms | predicted / measured |",
        "| --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        spread = f"{r['measured_p10_ms']:.0f} to {r['measured_p90_ms']:.0f}"
        ms, p50, ratio = (r[key] for key in ("predicted_ms", "measured_p50_ms", "predicted_over_measured"))
        lines.append(f"| {r['layout']} | {ms:.1f} | {p50:.1f} | {spread} | {ratio:.2f} |")
    return "\n".join(lines) + "\n"


def row(asked: tuple[str, str], predicted: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    ms, p50 = predicted["step_time_ms"], measured["step_time_ms"]["p50"]
    return {
        "model": asked[0],
        "layout": f"{asked[0]}, {asked[1]}",
        "predicted_ms": round(ms, 2),
        "measured_p50_ms": round(p50, 2),
        "measured_p10_ms": round(measured["step_time_ms"]["p10"], 2),
        "measured_p90_ms": round(measured["step_time_ms"]["p90"], 2),
        "predicted_over_measured": round(ms / p50, 3),
    }


if __name__ == "__main__":
    main()
