"""The paper's two comparisons on CPU ranks: Helix 4 x 4 against TP=8, PP=2, dense and mixture of experts.

    python tests/benchmarks/paper_pairs.py [--runs 5] [--iters 20] [--json FILE]

The small twins of plans/paper on 16 gloo ranks, both methods in one run and step by step in turn, each run checked
against the unpartitioned reference. CPU figures: they say how the runtime behaves, nothing of GPUs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from helixctl.paper.twins import compared  # noqa: E402

PAIRS = {name: [f"plans/small/{name}.{method}.plan.json" for method in ("tp8-pp2", "4x4")] for name in ("dense", "moe")}


def main() -> None:
    """Run both pairs and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--iters", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for name, plans in PAIRS.items():
        runs = [compared([ROOT / plan for plan in plans], 3, arguments.iters) for _ in range(arguments.runs)]
        found[name] = []
        for index, plan in enumerate(plans):
            reports = [run["methods"][index] for run in runs]
            found[name].append({
                "plan": plan,
                "layout": reports[0]["layout"],
                "step_ms_p50": statistics.median(r["step_time_ms"]["p50"] for r in reports),
                "tokens_per_s": statistics.median(r["tokens_per_s"] for r in reports),
                "sync_overhead_per_token_ms": statistics.median(r["sync_overhead_per_token_ms"] for r in reports),
                "step_ms_p50_of_runs": [r["step_time_ms"]["p50"] for r in reports],
                "checks_passed": [r["check"]["passed"] for r in reports],
                "errors": [r["check"]["error"] for r in reports],
            })  # fmt: skip
        base, helix = found[name]
        ratio = statistics.median(
            b / h for b, h in zip(base["step_ms_p50_of_runs"], helix["step_ms_p50_of_runs"], strict=True)
        )
        print(f"{name}: TP=8, PP=2 {base['step_ms_p50']:.0f} ms, 4 x 4 {helix['step_ms_p50']:.0f} ms, {ratio:.2f} x")
        found[name].append({"helix_over_baseline_tps_median_of_runs": ratio})
    if arguments.json:
        made = {
            "benchmark": "tests/benchmarks/paper_pairs.py",
            "runs": arguments.runs,
            "iters": arguments.iters,
            "environment": runs[0]["methods"][0]["environment"],
            "pairs": found,
        }
        arguments.json.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
