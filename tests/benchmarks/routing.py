"""Where the experts of large mixtures are: the tables of docs/experts.md. Predictions.

    python tests/benchmarks/routing.py [--update]

The first, on 32 H200 of four hosts: the best layout of replicas with experts of their own, the best of all, and one set
of experts over all devices. The second, on 8 H200 of one host, under an even routing and a skewed one: tensor
parallelism with every expert cut in 8, the same with the experts spread over the devices (expert parallelism), and 8
replicas of one device that share the experts. ``--update`` writes them into the page.
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
from helixctl.solve import decide  # noqa: E402
from helixctl.solve.candidate import simulated  # noqa: E402
from helixctl.spec import WorkloadSpec  # noqa: E402
from helixctl.spec.load import load_specs  # noqa: E402
from helixctl.spec.routing import fullest_load  # noqa: E402
from helixctl.units import human_bytes, human_seconds  # noqa: E402
from tests.benchmarks.tables import updated  # noqa: E402

PAGE = ROOT / "docs/experts.md"
CLUSTER: Final = "h200:1x8"
LARGE: Final = ("DeepSeek-V3", "Qwen3-235B-A22B")
HOSTS: Final = "h200:4x8"
LONG_WORK: Final = WorkloadSpec(batch=256, seq_len=4096, output_len=512, logits="last")
FIXED: Final[tuple[dict[str, int], ...]] = (
    {"expert_data": 1},
    {},
    {"groups": 1, "slices": 1, "data": 32, "expert_data": 32, "experts": 32, "microbatches": 1},
)
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
    options = parser.parse_args()
    texts = {"replicas": replicas(), "routing": table()}
    print("\n\n".join(texts.values()))
    if options.update:
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), texts), encoding="utf-8")


def replicas() -> str:
    """A row for each model and what is fixed: the layout that the search finds, its memory and times."""
    lines = ["| model | layout | memory (weights, cache) | tokens/s | TTFT | per token |", "|---|---|---|---|---|---|"]
    for name in LARGE:
        model, cluster = load_specs(name, HOSTS, ())[:2]
        for place, fixed in enumerate(FIXED):
            decision = decide(model, cluster, LONG_WORK, dict(fixed))
            found, its = decision.forecast, decision.forecast.generation
            if its is None:
                raise TypeError  # it is of a generation
            held = f"{human_bytes(found.weight_nbytes)}, {human_bytes(found.cache_nbytes)}"
            memory = f"{human_bytes(found.memory_nbytes)} ({held})"
            times = f"{its.output_tokens_per_s:,.0f} | {human_seconds(its.ttft_s)} | "
            times += human_seconds(its.time_per_output_token_s)
            lines.append(f"| {'' if place else name} | {decision.plan.layout} | {memory} | {times} |")
    return "\n".join(lines).replace("|  |", "| |")


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
