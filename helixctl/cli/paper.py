"""helixctl paper: the paper's table beside what helixctl predicts, and with --run what its small twins measure here."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from helixctl.api import predict_paper
from helixctl.cli.console import answers, table
from helixctl.cli.tables import Column
from helixctl.cost.tasks import foundation
from helixctl.paper import MEASURED, METHODS, Comparison, Way
from helixctl.paper.between_hosts import BEST, WORST
from helixctl.paper.experiment import Case
from helixctl.paper.twins import TWINS, Ended, compared, twin_plans
from helixctl.units import counted, human_rate, human_seconds

if TYPE_CHECKING:
    from rich.console import Console


@click.command(name="paper", short_help="The paper's table beside ours.")
@click.option("--run", is_flag=True, help="Also run the small twins of the paper's models on CPU ranks here, checked.")
@click.option(
    "--warmup", type=click.IntRange(min=0), metavar="N", default=3, show_default=True, help="Of --run: steps before."
)
@click.option(
    "--iters", type=click.IntRange(min=1), metavar="N", default=20, show_default=True, help="Of --run: measured steps."
)
def command(*, run: bool, warmup: int, iters: int) -> int:
    """Show the paper's table beside what is predicted for the same models and methods on 16 H100.

    The commands that give the rows of the mixture of experts are printed, so that their options can be changed.

    With --run the twins, a sixteenth of the paper's widths, run on 16 CPU ranks of this machine: both methods in turn,
    step by step, each compared with the unpartitioned model. These times say nothing of GPUs. docs/paper.md has more.
    """
    out = answers()
    found = predict_paper()
    model, cluster, work = found[0].case.specs
    out.print(f"the paper's experiment: {model.layers} layers on {cluster.devices_text}, {work}")
    out.print()
    out.print(_table(found))
    out.print()
    out.print("TPOT: the paper's, time that a step spends in synchronisation and communication, by token of a sequence")
    basis = foundation(model, cluster)
    out.print(f"ours is predicted from {basis}, not measured; none of it is fitted to the paper's figures")
    out.print()
    out.print("ours over what is published of collectives between hosts, from the worst of it to the best:")
    out.print(_bands(found, predict_paper(MEASURED)))
    out.print()
    out.print(
        f"by measured rates: products and collectives inside a host as H100 were measured ({MEASURED}); not a run"
    )
    for end, name in ((WORST, "worst"), (BEST, "best")):
        out.print(f"{name}: {end.nic_share:.0%} of a NIC, an all-reduce starts in {human_seconds(end.all_reduce_s)}")
    out.print()
    for comparison in found:
        if comparison.case.name == "moe":
            _print_commands(out, comparison)
    if not run:
        out.print("helixctl paper --run also runs the small twins of these models on this machine")
        return 0
    try:
        for name in TWINS:
            _run_twin(out, name, warmup, iters)
    except Ended as end:
        return end.status
    return 0


def _table(found: Sequence[Comparison]) -> object:
    made = table(
        "model",
        "method",
        ">paper: tokens/s",
        ">overhead",
        ">ours: tokens/s",
        ">overhead",
        Column("step", right=True, drop=1),
    )
    for each in found:
        for way, method in METHODS.items():
            reported, its = each.reported(way), each.rows[way].forecast
            made.add_row(
                each.model,
                method.label,
                f"{reported.tokens_per_s:,}",
                f"{reported.overhead_ms:.2f} ms",
                human_rate(its.tokens_per_s),
                f"{its.sync_overhead_per_token_ms:.2f} ms",
                human_seconds(its.step_s),
            )
        made.add_row("", "gain of Helix", f"{each.reported_gain:+.1%}", "", f"{each.gain:+.1%}", "", "", style="bold")
    return made


def _bands(found: Sequence[Comparison], measured: Sequence[Comparison]) -> object:
    """The predictions at both ends of what is published between hosts: by datasheet, and as measured, in a host."""
    step = Column("step", right=True, drop=1)
    made = table("model", "method", ">tokens/s", step, ">by measured rates: tokens/s", step)
    for each, other in zip(found, measured, strict=True):
        for way, method in METHODS.items():
            cells = [text for its in (each, other) for text in _band(its, way)]
            made.add_row(each.model, method.label, *cells)
        gains = [f"{its.gains[0]:+.1%} to {its.gains[1]:+.1%}" for its in (each, other)]
        made.add_row("", "gain of Helix", gains[0], "", gains[1], "", style="bold")
    return made


def _band(comparison: Comparison, way: Way) -> tuple[str, str]:
    """Tokens/s and step of a method, from the worst to the best."""
    best, worst = (rows[way].forecast for rows in comparison.ends)
    return (
        f"{human_rate(worst.tokens_per_s)} to {human_rate(best.tokens_per_s)}",
        f"{human_seconds(worst.step_s)} to {human_seconds(best.step_s)}",
    )


def _print_commands(out: Console, comparison: Comparison) -> None:
    """The commands that make a pair of rows, each in one line, so that it can be copied."""
    name = comparison.model.lower().replace(" ", "-")
    files = {"base": f"{name}.tp8-pp2.plan.json", "helix": f"{name}.4x4.plan.json"}
    out.print(f"the rows {comparison.model}, by commands:")
    for way in METHODS:
        out.out(f"  {comparison.case.command(way, files[way])}")
    out.out(f"  helixctl simulate {' '.join(files.values())}")
    out.print()


def _run_twin(out: Console, model: str, warmup: int, iters: int) -> None:
    """Run both methods of a twin, and print what was measured.

    Raises:
        Ended: the run failed.
    """
    case = Case(model, size="small")
    spec, cluster, work = case.specs
    ranks = f"{cluster.devices} CPU ranks"
    with tempfile.TemporaryDirectory() as folder:
        report = compared(twin_plans(model, Path(folder)), warmup, iters)
    out.print(f"{spec.name} ({model}), {work}, {spec.dtype}: measured on {ranks} of this machine")
    out.print(_measured(report))
    steps = counted(iters, "step")
    out.print(f"{steps} of each after {warmup} for warm-up, one of each in turn; these times say nothing of GPUs")
    out.print()


def _measured(report: dict[str, Any]) -> object:
    made = table("method", ">tokens/s", ">overhead", ">step p50", ">gain", "check against float64")
    first = report["methods"][0]["tokens_per_s"]
    for method, its in zip(METHODS.values(), report["methods"], strict=True):
        step, check = its["step_time_ms"]["p50"], its["check"]
        made.add_row(
            method.label,
            human_rate(its["tokens_per_s"], 1),
            f"{its['sync_overhead_per_token_ms']:.1f} ms",
            f"{step:.1f} ms",
            "" if its is report["methods"][0] else f"{its['tokens_per_s'] / first - 1:+.1%}",
            f"passed, error {check['error']:.1e}" if check["passed"] else "FAILED",
        )
    return made
