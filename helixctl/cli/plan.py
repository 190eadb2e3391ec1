"""helixctl plan: specs -> solve -> plan and dag, proved, with the reasons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from helixctl.api import make_plan
from helixctl.cli.answer import first_line
from helixctl.cli.completion import files
from helixctl.cli.console import answers, messages, table, wrote
from helixctl.cli.drift import check_drift, plan_on_disk
from helixctl.cli.generations import generations, memory_of_kinds, memory_sheet, token_times_text
from helixctl.cli.layouts import LAYOUT, VERDICT, add_row
from helixctl.cli.notes import notes, warn_of_slips
from helixctl.cli.option_groups import grouped
from helixctl.cli.outputs import Output, check_outputs, force_option
from helixctl.cli.sampling import Drawing, sampling_options
from helixctl.cli.search_options import refuse_of_a_generation, search_options, specs
from helixctl.cli.tables import Column, Table
from helixctl.cli.watching import watched
from helixctl.cost.tasks import foundation, sources
from helixctl.documents import dag_text
from helixctl.output import write_output
from helixctl.plan import Plan
from helixctl.plan.asked import Asked
from helixctl.solve import Decision, Objective, Proof, Row, parse_constraints, read_as
from helixctl.solve.candidate import priced
from helixctl.solve.report import report
from helixctl.solve.token_times import token_times
from helixctl.spec.load import Loaded, load_pair
from helixctl.spec.overrides import parse_overrides
from helixctl.spec.slips import slips
from helixctl.units import counted, human_bytes, human_rate, human_seconds

if TYPE_CHECKING:
    from rich.console import Console

    from helixctl.plan import Plan
    from helixctl.simulate import Forecast


_GROUPS: Final = {
    "Workload": (
        "--batch",
        "--seq-len",
        "--output-len",
        "--temperature",
        "--top-k",
        "--top-p",
        "--logits",
        "--routing",
    ),
    "Layouts": ("--layout", "--groups", "--slices", "--plain"),
    "What is best": ("--objective", "--max-ttft", "--max-tpot"),
    "Specs": ("--set",),
    "Files": ("--output", "--dag", "--json", "--check", "--force"),
}


@click.command(name="plan", cls=grouped(_GROUPS), short_help="Solve for a partition of a model on a cluster.")
@specs
@click.option("--batch", "--concurrency", type=click.IntRange(min=1), metavar="N", help="Sequences per step.")
@click.option("--seq-len", "--input-len", "--isl", type=click.IntRange(min=1), metavar="L", help="Tokens per sequence.")
@click.option(
    "--output-len",
    "--osl",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tokens generated after each sequence: plan a prefill and a decode step with a KV cache.",
)
@sampling_options
@click.option(
    "--logits",
    type=click.Choice(("all", "last")),
    help="Of a model with a vocabulary: of all tokens, or of the last of each sequence (default).",
)
@click.option(
    "--routing",
    metavar="even|power_law(A)",
    help="Of experts: how evenly tokens go to them (default: even); the fullest device is then priced.",
)
@click.option("--groups", type=click.IntRange(min=1), metavar="n", help="Fix n, the head groups: --layout groups=n.")
@click.option(
    "--slices", type=click.IntRange(min=1), metavar="m", help="Fix m, the slices per group: --layout slices=m."
)
@search_options
@click.option("-o", "--output", metavar="FILE", help="Write the plan; - is standard output.")
@click.option("--dag", "dag_output", metavar="FILE", help="Write the dag; - is standard output.")
@click.option("--json", "json_path", metavar="FILE", help="Write all that is said, as JSON; - is standard output.")
@click.option(
    "--check",
    "checked",
    metavar="FILE",
    shell_complete=files,
    help="Write nothing; see whether this plan is what the specs give now.",
)
@force_option
@click.option(
    "-v", "--verbose", is_flag=True, help="Also print where the model's fields and the prediction's numbers come from."
)
@click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
def command(
    model: str,
    cluster: str,
    *,
    batch: int | None,
    seq_len: int | None,
    output_len: int | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    logits: str | None,
    routing: str | None,
    groups: int | None,
    slices: int | None,
    axes: str | None,
    plain: bool,
    objective: Objective,
    max_ttft: float | None,
    max_tpot: float | None,
    sets: tuple[str, ...],
    output: str | None,
    dag_output: str | None,
    json_path: str | None,
    checked: str | None,
    force: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Solve for an n x m partition (n head groups of m slices) of MODEL on CLUSTER.

    MODEL and CLUSTER are spec files. MODEL may also be the config.json of a Hugging Face model, its folder, a GGUF
    file, or a name (helixctl models lists them); CLUSTER a name such as h100:2x8, 2 hosts of 8 H100 (helixctl
    clusters). The space of layouts is searched: head groups, slices, replicas, pipeline stages, microbatches, experts,
    placement on hosts.
    --layout fixes axes, such as groups=8,pipeline=2,combine=reduce,microbatches=4, and leaves the rest to the search;
    --groups and --slices fix these two. --plain keeps every axis that is not fixed at its default, and searches n x m
    alone: --plain --groups 4 --slices 4 is the paper's 4 x 4. A layout that leaves no choice is not compared.
    The plan is lowered to a dag and proved before anything is written.

    --check FILE plans again, with the options that FILE was planned with, or with those that are given: exit status 0
    where it is still the answer, 1 with what has changed where it is not.
    """
    _refuse_contradictions((model, cluster), (output, dag_output), checked)
    outputs = [
        Output("-o", output, "plan"),
        Output("--dag", dag_output, "dag"),
        Output("--json", json_path, "table of plan"),
    ]
    check_outputs(outputs, (model, cluster, checked), force=force)
    old = plan_on_disk(checked) if checked is not None else None
    given = (
        ("batch", batch),
        ("seq_len", seq_len),
        ("output_len", output_len),
        ("logits", logits),
        ("routing", routing),
    )
    workload = [f"workload.{k}={v}" for k, v in given if v is not None]
    asked = Asked(
        sets=(*sets, *workload, *Drawing(temperature, top_k, top_p).sets),
        layout=_constraints(axes, groups, slices, quiet=quiet),
        plain=plain,
        objective=objective,
        max_ttft_s=max_ttft,
        max_tpot_s=max_tpot,
    )
    if old is not None:
        asked = _asked_again(asked, old, quiet=quiet)
    loaded = load_pair(model, cluster, asked.sets)
    refuse_of_a_generation(asked.objective, asked.max_ttft_s, asked.max_tpot_s, loaded.model.workload.output_len)
    doubtful = slips(loaded.cluster)
    if not quiet:
        warn_of_slips(doubtful, cluster)
    with watched("listing the legal layouts", quiet=quiet):
        planned = make_plan(
            loaded.model,
            loaded.cluster,
            layout=asked.layout,
            objective=asked.objective,
            plain=asked.plain,
            whole=dag_output is not None,
            max_ttft_s=asked.max_ttft_s,
            max_tpot_s=asked.max_tpot_s,
        )
    decision, proved = planned.decision, planned.proof
    written = decision.plan.model_copy(update={"asked": asked if str(asked) else None})
    texts = {"plan": written.to_json(), "dag": dag_text(proved.dag) if dag_output else ""}
    if not quiet and (old is None or verbose):
        _report(answers(output, dag_output, json_path), decision, proved, loaded, asked.sets, verbose=verbose)
    if json_path:
        said = (*doubtful, *loaded.notes, *notes(decision.plan, decision.forecast))
        texts["report"] = json.dumps(report(decision, proved, said, sources(priced(decision.plan))), indent=2) + "\n"
    for path, noun in ((output, "plan"), (dag_output, "dag"), (json_path, "report")):
        if path:
            write_output(path, texts[noun])
            if not quiet:
                wrote(path, f"{noun}, {human_bytes(len(texts[noun]))}")
    if checked is not None and old is not None:
        check_drift(checked, old, decision.plan, json_path, quiet=quiet)


def _constraints(axes: str | None, groups: int | None, slices: int | None, *, quiet: bool) -> dict[str, int | str]:
    """The axes that --groups, --slices and --layout fix; how --layout was read is said where it is in other words."""
    pair: dict[str, int | str] = {k: v for k, v in (("groups", groups), ("slices", slices)) if v is not None}
    if axes is None:
        return pair
    constraints, said = parse_constraints(axes), read_as(axes)
    if twice := pair.keys() & constraints.keys():
        raise click.UsageError(f"{', '.join(sorted(twice))} given twice: in --layout and by itself")
    if said and not quiet:
        messages().print(f"note: {said}")
    return {**pair, **constraints}


def _asked_again(asked: Asked, old: Plan, *, quiet: bool) -> Asked:
    """The options of --check: those that are given, or where none are those that the plan was made with."""
    if str(asked) or old.asked is None:
        return asked
    if not quiet:
        messages().print(f"note: planned again with its options: {old.asked}")
    return old.asked


def _refuse_contradictions(specs: tuple[str, str], outputs: tuple[str | None, str | None], checked: str | None) -> None:
    output, dag_output = outputs
    if checked is not None and (output is not None or dag_output is not None):
        raise click.UsageError("--check writes nothing; leave -o and --dag out")
    if checked == "-" and "-" in specs:
        raise click.UsageError("standard input cannot be a spec and the plan to check")


def _report(
    out: Console, decision: Decision, proved: Proof, loaded: Loaded, sets: Sequence[str], *, verbose: bool
) -> None:
    plan = decision.plan
    out.print(first_line(plan, decision.forecast), style="bold")
    out.print(_subject(plan, sets))
    out.print()
    generation = decision.forecast.generation
    out.print(_table(decision.rows) if generation is None else generations(decision.rows))
    out.print()
    for note in (*loaded.notes, *notes(plan, decision.forecast)):
        out.print(f"note: {note}")
    _memory(out, plan, decision.forecast)
    for reason in decision.reasons:
        out.print(reason)
    out.print(decision.searched)
    part = proved.dag.plan.layout.devices
    whole = counted(plan.layout.devices, "device")
    devices = f"{part} of {whole}" if part < plan.layout.devices else whole
    tasks = counted(len(proved.dag.tasks), "task")
    if generation:
        tasks = " and ".join(f"{len(dag.tasks):,} {dag.step}" for dag in proved.dags) + " tasks"
    state = "ownership, state, collectives" if generation else "ownership, collectives"
    out.print(
        f"layout {plan.layout} (groups x slices): {tasks} over {devices}, "
        f"proved: structure, function, regions, coverage, {state}, memory, layout"
    )
    if proved.part:
        out.print(f"proved on {proved.part}: the others are copies of these")
    _print_sources(out, plan, loaded.origins if verbose else (), verbose=verbose)


def _subject(plan: Plan, sets: Sequence[str]) -> str:
    """Model, cluster, workload and dtype; a cluster that --set changes is not all that its name says."""
    cluster = plan.cluster
    name = ", ".join([cluster.name, *(str(item) for item in parse_overrides(sets) if item.document == "cluster")])
    return f"{plan.model.name} on {name} ({cluster.devices_text}), {plan.workload}, {plan.model.dtype}"


def _print_sources(out: Console, plan: Plan, origins: Sequence[object], *, verbose: bool) -> None:
    """What the prediction rests on, in a line; or every constant, and which key of a config gave which field."""
    if not verbose:
        out.print(f"step times are predicted from {foundation(plan.model, plan.cluster)}, not measured (-v: sources)")
        return
    if origins:
        out.print("the model's fields, from the keys of its config:")
    for origin in origins:
        out.print(f"  {origin}")
    out.print("step times are predicted, not measured, from:")
    for line in sources(priced(plan)):
        out.print(f"  {line}")


def _memory(out: Console, plan: Plan, forecast: Forecast) -> None:
    """What devices hold, where they differ or hold a cache; and of a generation the time per output token."""
    its = forecast.generation
    if plan.cluster.differs:
        out.print(memory_of_kinds(plan, forecast))
        out.print()
    elif its is not None:
        out.print(memory_sheet(plan, forecast))
        out.print()
    if its is not None and (times := token_times(plan)):
        out.print(f"time per output token: {token_times_text(its.time_per_output_token_s, times)}")


def _table(rows: tuple[Row, ...]) -> Table:
    made = table(
        "",
        LAYOUT,
        ">step",
        ">tokens/s",
        Column("latency", right=True, drop=5),
        Column("exposed", right=True, drop=8),
        Column("received", right=True, drop=3),
        Column("between hosts", right=True, drop=4),
        Column("memory", right=True, drop=9),
        VERDICT,
    )
    for row in rows:
        add_row(made, row, _cells(row))
    return made


def _cells(row: Row) -> list[str]:
    """The numbers of a row: of a layout that does not fit its memory alone, as it is no choice."""
    forecast = row.candidate.forecast
    if forecast is None:
        return ["-"] * 7
    memory = human_bytes(forecast.memory_nbytes)
    if not row.fits:
        return [*["-"] * 6, memory]
    return [
        human_seconds(forecast.step_s),
        human_rate(forecast.tokens_per_s),
        human_seconds(forecast.latency_s),
        human_seconds(forecast.exposed_s) if forecast.exposed_s else "0",
        human_bytes(forecast.received_nbytes),
        human_bytes(forecast.between_hosts_nbytes),
        memory,
    ]
