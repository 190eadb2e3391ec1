"""Experts whole on some devices, or each cut over all, under an even routing and a skewed one. Predictions.

    python tests/benchmarks/routing.py [--update]

On 8 H200 of one host: tensor parallelism with every expert cut in 8, the same with the experts spread over the devices
(expert parallelism), and 8 replicas of one device that share the experts. Prints the table of docs/experts.md;
``--update`` writes it into the page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT)]

from helixctl.plan import Layout, illegalities  # noqa: E402
from helixctl.solve.candidate import simulated  # noqa: E402
from helixctl.spec import WorkloadSpec  # noqa: E402
from helixctl.spec.load import load_specs  # noqa: E402
from helixctl.spec.routing import fullest_load  # noqa: E402
from tests.benchmarks.tables import updated  # noqa: E402

PAGE = ROOT / "docs/experts.md"
CLUSTER: Final = "h200:1x8"
MODELS: Final = ("Mixtral-8x7B-v0.1", "Qwen3-30B-A3B", "Qwen3-235B-A22B", "DeepSeek-V3")
ROUTINGS: Final = ("even", "power_law(0.6)", "power_law(1.2)")
WORK: Final = WorkloadSpec(batch=64, seq_len=2048, output_len=256, logits="last")
CUT: Final = Layout(groups=8, slices=1, combine="reduce")
LAYOUTS: Final = {
    "each cut in 8": CUT,
    "spread over 8": CUT.model_copy(update={"experts": 8}),
    "over 8 replicas": Layout(groups=1, slices=1, data=8, expert_data=8, experts=8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help=f"write the table into {PAGE.relative_to(ROOT)}")
    text = table()
    print(text)
    if parser.parse_args().update:
        PAGE.write_text(updated(PAGE.read_text(), {"routing": text}))


def table() -> str:
    """A row for each model and layout: first tokens, and the time from token to token, under each routing."""
    heads = [f"TTFT, {routing} | per token" for routing in ROUTINGS]
    lines = ["| model | experts | fullest | " + " | ".join(heads) + " |", "|---" * (3 + 2 * len(ROUTINGS)) + "|"]
    return "\n".join([*lines, *(row for model in MODELS for row in rows(model))])


def rows(name: str) -> Iterator[str]:
    """The layouts of a model, those that fit in memory."""
    model, cluster = load_specs(name, CLUSTER, ())[:2]
    form = {"latent_prefill": "expanded"} if model.attention.latent else {}
    experts = next(its for kind in model.kinds if (its := model.alike(kind).feed_forward.experts))
    for label, chosen in LAYOUTS.items():
        layout = chosen.model_copy(update=form)
        if reasons := illegalities(layout, model, WORK, cluster.devices):
            raise ValueError(reasons)
        cells = []
        for routing in ROUTINGS:
            found = simulated(model, cluster, WORK.model_copy(update={"routing": routing}), layout).forecast
            if found is None or found.generation is None:
                raise TypeError  # it is legal, and of a generation
            if found.memory_nbytes > cluster.device.available:
                cells.append("does not fit | ")
            else:
                its = found.generation
                cells.append(f"{its.ttft_s:.2f} s | {its.time_per_output_token_s * 1e3:.1f} ms")
        even = experts.top_k / layout.experts
        load = fullest_load(ROUTINGS[-1], experts.count, experts.top_k, -(-experts.count // layout.experts))
        yield f"| {name} | {label} | {load / even:.2f} x | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
