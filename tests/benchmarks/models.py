"""Published models planned on 8, 16 and 64 H100, for the table of docs/hugging-face.md.

    python tests/benchmarks/models.py [--update] [--json FILE] [--repeat N]

8 sequences of 2,048 tokens. Seconds are of the whole command `helixctl plan`, start and proof included: the median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from helixctl.errors import HelixError  # noqa: E402
from helixctl.solve import decide  # noqa: E402
from helixctl.spec.load import load_specs  # noqa: E402
from helixctl.units import human_bytes, human_seconds  # noqa: E402
from tests.benchmarks.tables import updated  # noqa: E402

DOC = ROOT / "docs/hugging-face.md"
CLUSTER = "plans/paper/h100x16.cluster.yaml"
MODELS = ("Llama-3.1-405B", "Qwen2.5-7B", "Qwen3-30B-A3B", "Mixtral-8x7B-v0.1")
HOSTS = (1, 2, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="rewrite the table in docs/hugging-face.md")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    rows = [planned(model, hosts, options.repeat) for model in MODELS for hosts in HOSTS]
    text = table(rows)
    print(text)
    if options.update:
        DOC.write_text(updated(DOC.read_text(encoding="utf-8"), {"models": text}), encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def planned(name: str, hosts: int, repeat: int) -> dict[str, Any]:
    """What `helixctl plan` chooses, and its seconds."""
    arguments = [f"plans/models/{name}", CLUSTER, "--set", f"hosts={hosts}"]
    seconds = [command(arguments) for _ in range(repeat)]
    return chosen(name, hosts) | {"plan_s": statistics.median(seconds), "worst_s": max(seconds)}


def chosen(name: str, hosts: int) -> dict[str, Any]:
    """What `helixctl plan` chooses."""
    row: dict[str, Any] = {"model": name, "devices": 8 * hosts}
    document, cluster = load_specs(str(ROOT / f"plans/models/{name}"), str(ROOT / CLUSTER), (f"hosts={hosts}",))
    try:
        decision = decide(document.model, cluster, document.workload)
    except HelixError as error:
        return row | {"refused": error.diagnostics[0].message}
    best = next(shown.candidate for shown in decision.rows if shown.chosen)
    assert best.forecast is not None
    forecast = best.forecast
    row |= {"layout": str(best.layout), "step_s": forecast.step_s, "tokens_per_s": forecast.tokens_per_s}
    row |= {"memory_nbytes": forecast.memory_nbytes, "why": decision.reasons[0] if decision.reasons else ""}
    return row | {"legal": decision.legal, "simulated": decision.simulated}


def command(arguments: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "helixctl", "plan", *arguments], cwd=ROOT, capture_output=True, check=False)
    return time.perf_counter() - begin


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| model | H100 | layout | step | tokens/s | memory a device | why | `plan` takes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "refused" in row:
            cells = ["none fits: " + row["refused"], "-", "-", "-", "-"]
        else:
            nbytes, step = human_bytes(row["memory_nbytes"]), human_seconds(row["step_s"])
            cells = [row["layout"], step, f"{row['tokens_per_s']:,.0f}", nbytes, row["why"]]
        lines.append("| " + " | ".join([row["model"], str(row["devices"]), *cells, f"{row['plan_s']:.1f} s"]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
