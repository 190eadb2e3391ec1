"""helixctl diff: what differs between two plans, in axes of the layout and fields of the specs, and what it means."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from helixctl.cli.completion import files
from helixctl.cli.conditions import Condition, parse_conditions
from helixctl.cli.console import answers, table, wrote
from helixctl.cli.documents import load_planned
from helixctl.cli.outputs import Output, check_outputs, force_option
from helixctl.cli.tables import Column
from helixctl.cost.tasks import foundation, sources
from helixctl.dag import Dag
from helixctl.errors import EXIT_CANNOT_BEGIN, EXIT_NO, Diagnostic, HelixError
from helixctl.output import write_output
from helixctl.plan import Plan
from helixctl.plan.compare import Difference, differences
from helixctl.records import record
from helixctl.report.seconds import with_seconds
from helixctl.simulate import Forecast, forecast
from helixctl.simulate.figures import figures
from helixctl.solve.candidate import priced, simulated
from helixctl.spec.rates import doubts
from helixctl.units import human_bytes, human_rate, human_seconds

if TYPE_CHECKING:
    from rich.console import Console

FORMAT_VERSION: Final = "1.2"
# What --fail-if calls the figures, and their keys.
_NAMES: Final = {
    "step": "step_time_ms",
    "tokens/s": "tokens_per_s",
    "latency": "latency_ms",
    "exposed": "exposed_ms",
    "received": "received_nbytes_per_rank",
    "between hosts": "between_hosts_nbytes_per_rank",
    "memory": "memory_nbytes",
    "devices": "devices",
    "ttft": "ttft_ms",
    "tpot": "time_per_output_token_ms",
}


class TroubleError(HelixError):
    """As with diff(1): 1 says that the plans differ, so whatever keeps us from comparing them is 2."""

    @property
    def exit_status(self) -> int:
        """Not that of the codes: a plan that a proof refuses has no prediction to compare."""
        return EXIT_CANNOT_BEGIN


@dataclass(frozen=True)
class _Side:
    """One of the two documents."""

    path: str
    document: Plan | Dag

    @property
    def plan(self) -> Plan:
        return self.document.plan if isinstance(self.document, Dag) else self.document

    @cached_property
    def forecast(self) -> Forecast:
        """Of a dag as it is; of a plan as the search prices it."""
        if isinstance(self.document, Dag):
            return forecast(self.document)
        plan = self.document
        found = simulated(plan.model, plan.cluster, plan.workload, plan.layout).forecast
        if found is None:
            raise TypeError  # the plan is proved, so its layout is legal
        return found


@click.command(name="diff", short_help="Say what differs between two plans, and what it is predicted to mean.")
@click.argument("first", metavar="A", shell_complete=files)
@click.argument("second", metavar="B", shell_complete=files)
@click.option("-f", "--format", "output_format", type=click.Choice(("text", "json")), default="text", show_default=True)
@click.option("--json", "json_path", metavar="FILE", help="Write the comparison as JSON; - is standard output.")
@click.option(
    "--fail-if",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="End with 1 only where this is so of B beside A, such as 'step > 5%'. Repeatable.",
)
@force_option
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; the exit status tells.")
def command(
    first: str,
    second: str,
    *,
    output_format: Literal["text", "json"],
    json_path: str | None,
    conditions: tuple[str, ...],
    force: bool,
    quiet: bool,
) -> int:
    """Say what differs between the plans A and B (or the plans of two dags): layout, specs, and what is predicted.

    The comparison goes to standard output. Nothing runs: steps, tokens per second and memory are predictions.

    --fail-if takes conditions on what is predicted, in percent of A: step, tokens/s, latency, exposed, received,
    between hosts, memory, devices, and of generations ttft and tpot. 'tokens/s < -5%' is so where B
    makes over 5 % less.

    Exit status: 0 the plans are equal, 1 they differ, 2 one of them cannot be read or is refused by a proof. With
    --fail-if: 0 no condition is so, 1 one is.
    """
    if first == second == "-":
        raise click.UsageError("A and B cannot both be standard input")
    if output_format == "json" and json_path is None and not quiet:
        json_path = "-"
    check_outputs([Output("--json", json_path, "comparison of plans")], (first, second), force=force)
    asked = parse_conditions(conditions, _NAMES)
    sides = _loaded((first, second))
    one, other = sides
    found = differences(one.plan, other.plan)
    equal = not found and not _other_tasks(one, other)
    held = _held(sides, asked)
    if json_path:
        write_output(json_path, json.dumps(_report(sides, found, held, equal=equal), indent=2) + "\n")
    if not quiet and output_format == "text":
        out = answers(json_path)
        _print(out, sides, found, equal=equal)
        for condition, holds in held:
            out.print(f"{condition.text}: {'yes' if holds else 'no'}")
        if json_path:
            wrote(json_path, "the comparison")
    if asked:
        return EXIT_NO if any(holds for _, holds in held) else 0
    return 0 if equal else EXIT_NO


def _loaded(paths: tuple[str, str]) -> tuple[_Side, _Side]:
    sides: list[_Side] = []
    problems: list[Diagnostic] = []
    for path in paths:
        try:
            sides.append(_Side(path, load_planned(path)))
        except HelixError as error:
            problems.extend(error.diagnostics)
    if problems:
        raise TroubleError(problems)
    return sides[0], sides[1]


def _other_tasks(one: _Side, other: _Side) -> bool:
    """Whether these are two dags that are not the same, though their plans may be."""
    a, b = one.document, other.document
    if not (isinstance(a, Dag) and isinstance(b, Dag)):
        return False
    return (a.tensors, a.values, a.tasks, a.order) != (b.tensors, b.values, b.tasks, b.order)


def _held(sides: tuple[_Side, _Side], asked: Sequence[Condition]) -> list[tuple[Condition, bool]]:
    """Every condition, and whether it is so.

    Raises:
        click.BadParameter: a condition is of generations, and these are none.
    """
    rows = {row.key: row for row in _rows(sides)} if asked else {}
    for condition in asked:
        if condition.name not in rows:
            text = f"{condition.text}: ttft and tpot are of two plans with --output-len"
            raise click.BadParameter(text, param_hint="--fail-if")
    return [(condition, condition.holds(*rows[condition.name].values)) for condition in asked]


# --- what is predicted -----------------------------------------------------------------------------------------------


@record
class _Row:
    """One number of both forecasts."""

    key: str
    name: str
    values: tuple[float, float]
    texts: tuple[str, str]

    @property
    def ratio(self) -> float | None:
        """B / A."""
        return self.values[1] / self.values[0] if self.values[0] else None


def _rows(sides: Sequence[_Side]) -> list[_Row]:
    def row(key: str, name: str, values: list[float], text: Callable[[float], str]) -> _Row:
        first, second = values
        return _Row(key, name, (first, second), (text(first), text(second)))

    def ms(milliseconds: float) -> str:
        return human_seconds(milliseconds / 1e3) if milliseconds else "0"

    found = [side.forecast for side in sides]
    hosts = [f.between_hosts_nbytes for f in found]
    steps = [f.generation for f in found]
    of_generations = []
    if steps[0] and steps[1]:
        of_generations = [
            row("ttft_ms", "time to first token", [its.ttft_s * 1e3 for its in steps if its], ms),
            row(
                "time_per_output_token_ms",
                "time per output token",
                [its.time_per_output_token_s * 1e3 for its in steps if its],
                ms,
            ),
        ]
    return [
        row("devices", "devices", [side.plan.layout.devices for side in sides], str),
        row("step_time_ms", "step time", [f.step_s * 1e3 for f in found], ms),
        row("tokens_per_s", "tokens/s", [f.tokens_per_s for f in found], human_rate),
        *of_generations,
        row("latency_ms", "latency of a sequence, mean", [f.latency_s * 1e3 for f in found], ms),
        row("exposed_ms", "communication, exposed", [f.exposed_s * 1e3 for f in found], ms),
        row("received_nbytes_per_rank", "received per rank", [f.received_nbytes for f in found], human_bytes),
        row("between_hosts_nbytes_per_rank", "of it between hosts", [*hosts], human_bytes),
        row("memory_nbytes", "memory per rank, largest", [f.memory_nbytes for f in found], human_bytes),
    ]


# --- how it is said --------------------------------------------------------------------------------------------------


def _print(out: Console, sides: tuple[_Side, _Side], found: list[Difference], *, equal: bool) -> None:
    for letter, side in zip("AB", sides, strict=True):
        out.print(f"{letter}: {side.path}: layout {side.plan.layout}, {side.plan.digest[:19]}")
    if equal:
        out.print("the plans are equal")
        return
    layout = [d for d in found if d.part == "layout"]
    specs = [d for d in found if d.part != "layout"]
    for title, part in (("layout", layout), ("specs", specs)):
        out.print()
        if not part:
            out.print(f"the {title} {'is' if title == 'layout' else 'are'} the same")
            continue
        rows = table(title, Column("A", fold=1, least=12), Column("B", fold=2, least=12))
        for difference in part:
            name = difference.field if part is layout else f"{difference.part}.{difference.field}"
            rows.add_row(name, *difference.texts)
        out.print(rows)
    if not found:
        out.print("the plans are equal, and the dags differ in their tasks")
    out.print()
    rows = table("predicted", ">A", ">B", ">B / A")
    for row in _rows(sides):
        rows.add_row(row.name, *row.texts, "-" if row.ratio is None else f"{row.ratio:.3g} x")
    out.print(rows)
    out.print()
    if sides[0].plan.workload != sides[1].plan.workload:
        out.print("the workloads differ: a step of A is not the same work as one of B")
    _print_sources(out, sides)


def _print_sources(out: Console, sides: tuple[_Side, _Side]) -> None:
    for doubt in dict.fromkeys(doubt for side in sides for doubt in doubts(side.plan.cluster)):
        out.print(f"note: {doubt}")
    for basis in dict.fromkeys(foundation(side.plan.model, side.plan.cluster) for side in sides):
        out.print(f"predicted from {basis}, not measured")


def _report(
    sides: tuple[_Side, _Side], found: list[Difference], held: Sequence[tuple[Condition, bool]], *, equal: bool
) -> dict[str, Any]:
    return with_seconds(
        {
            "report": "helixctl diff",
            "format_version": FORMAT_VERSION,
            "equal": equal,
            "simulated": True,
            "a": _side(sides[0]),
            "b": _side(sides[1]),
            "layout": [{"axis": d.field, **_values(d)} for d in found if d.part == "layout"],
            "specs": [{"field": f"{d.part}.{d.field}", **_values(d)} for d in found if d.part != "layout"],
            "predicted": {r.key: {"a": r.values[0], "b": r.values[1], "ratio": r.ratio} for r in _rows(sides)},
            "fail_if": [{"condition": condition.text, "holds": holds} for condition, holds in held],
        }
    )


def _side(side: _Side) -> dict[str, Any]:
    kind = "dag" if isinstance(side.document, Dag) else "plan"
    plan = side.plan
    return {
        "file": side.path,
        "kind": kind,
        "plan_digest": plan.digest,
        "model": plan.model.name,
        "cluster": plan.cluster.name,
        "workload": plan.workload.model_dump(),
        "layout": plan.layout.model_dump(),
        "figures": figures(side.forecast),
        "sources": list(sources(priced(plan))),
    }


def _values(difference: Difference) -> dict[str, Any]:
    return {"a": difference.values[0], "b": difference.values[1]}
