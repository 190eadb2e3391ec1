"""Links that differ inside a host, predicted: the tables of docs/clusters.md.

    python tests/benchmarks/links.py [--update]

Nothing here is measured but the collectives of 8 L40S, which come with helixctl (NVIDIA's tables). The first table has
the choice of the search for the clusters of plans/links, beside the other orders of the same axes; the second the
largest collectives that were measured of 2, 4 and 8 L40S, beside those of the links that are fitted to them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from helixctl import collector  # noqa: E402
from helixctl.cost.collectives import collective_cost  # noqa: E402
from helixctl.plan import illegalities  # noqa: E402
from helixctl.plan.layout import MESH_AXES  # noqa: E402
from helixctl.solve import decide  # noqa: E402
from helixctl.solve.candidate import step_forecast  # noqa: E402
from helixctl.spec.load import load_cluster, load_specs  # noqa: E402
from helixctl.spec.rates import rates_of  # noqa: E402
from helixctl.units import human_seconds  # noqa: E402
from tests.benchmarks.tables import updated  # noqa: E402
from tests.documents import LINKS  # noqa: E402

PAGE: Final = ROOT / "docs/clusters.md"
CASES: Final = {
    "rtx4090x6": ("Mixtral-8x7B-v0.1", 12),
    "a100x4": ("Llama-3.1-70B", 8),
    "a6000x4": ("Llama-3.1-70B", 8),
    "l40sx8": ("Llama-3.1-70B", 8),
}
SEQ_LEN: Final = 2048
RANKS: Final = (2, 4, 8)
KINDS: Final = ("all_gather", "all_reduce", "reduce_scatter", "all_to_all")


@dataclass(frozen=True)
class Order:
    """What the search says of one cluster.

    Attributes:
        layout: the choice, as it is printed.
        where: over which links its axes exchange.
        step_s: seconds of its step.
        other: the best other order of its axes that the search tells apart, by the choice; None where there is none.
        worst: the slowest of all orders of its axes that are legal, by the choice.
    """

    layout: str
    where: str
    step_s: float
    other: float | None
    worst: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="rewrite the tables of docs/clusters.md")
    options = parser.parse_args()
    with collector.paused():
        made = {"orders": orders(), "fitted-links": fitted_links()}
    print("\n\n".join(made.values()))
    if options.update:
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")


def orders() -> str:
    names = [
        "cluster",
        "model, batch",
        "chosen",
        "it exchanges",
        "step",
        "best other order of the search",
        "worst order",
    ]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    return "\n".join([*lines, *map(order_row, CASES)])


def order_row(name: str) -> str:
    """The line of one cluster."""
    model, batch = CASES[name]
    its = order(name)
    other = "none" if its.other is None else f"{its.other:.3g} x"
    cells = [name, f"{model}, {batch}", its.layout, its.where, human_seconds(its.step_s), other, f"{its.worst:.3g} x"]
    return f"| {' | '.join(cells)} |"


def order(name: str) -> Order:
    """The choice for one cluster, beside the other orders of its axes."""
    model, batch = CASES[name]
    sets = (f"workload.seq_len={SEQ_LEN}", f"workload.batch={batch}", "workload.logits=last")
    document, cluster = load_specs(model, str(LINKS / f"{name}.cluster.yaml"), sets)
    specs = document.model, cluster, document.workload
    found = decide(*specs)
    layout = found.plan.layout
    (said,) = [
        reason for reason in found.reasons if " exchange " in f" {reason} " and re.search("inside|across", reason)
    ]
    where, _, beside = said.replace("exchange ", "", 1).partition("; ")
    took = re.search(r"takes ([\d.]+) x as long", beside)
    steps = []
    for axes in permutations(MESH_AXES):
        placed = layout.model_copy(update={"placement": "-".join(axes)})
        if not illegalities(placed, document.model, document.workload, cluster.devices):
            steps.append(step_forecast(*specs, placed, "pass").step_s)
    step_s = found.forecast.step_s
    plain = str(layout.model_copy(update={"placement": type(layout).model_fields["placement"].default}))
    return Order(plain, where, step_s, float(took[1]) if took else None, max(steps) / step_s)


def fitted_links() -> str:
    """GB/s that a rank receives in the largest measured collectives: by the links, and as measured."""
    lines = [f"| predicted / measured | {' | '.join(f'{n} cards' for n in RANKS)} |", "|---" * (1 + len(RANKS)) + "|"]
    return "\n".join([*lines, *(f"| {kind} | {' | '.join(rates(kind))} |" for kind in KINDS)])


def rates(kind: str) -> Iterator[str]:
    linked, measured = load_cluster(str(LINKS / "l40sx8.cluster.yaml")), rates_of(load_cluster("l40s:8").only)
    assert measured is not None
    for ranks in RANKS:
        (table,) = [t for t in measured.collectives if (t.kind, t.ranks) == (kind, ranks)]
        nbytes, took = table.nbytes[-1], table.seconds[-1]
        task: Any = SimpleNamespace(ranks=tuple(range(ranks)), nbytes=nbytes, op=SimpleNamespace(kind=kind))
        yield f"{nbytes / collective_cost(task, linked).seconds / 1e9:.3g} / {nbytes / took / 1e9:.3g}"


if __name__ == "__main__":
    main()
