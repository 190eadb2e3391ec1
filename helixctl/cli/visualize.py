"""``helixctl visualize``: draw a plan or a dag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Final

import click

from helixctl.cli.console import wrote
from helixctl.cli.outputs import Output, check_outputs, force_option
from helixctl.cli.replaced import Kind
from helixctl.cli.watching import watched
from helixctl.dag import Dag
from helixctl.emit import FORMATS, emit
from helixctl.emit.html import html
from helixctl.errors import HelixError
from helixctl.output import write_output
from helixctl.plan import Plan
from helixctl.plan.size import MANY_TASKS, about, too_large
from helixctl.progress import at
from helixctl.spec import StepName
from helixctl.units import counted, human_bytes

_KINDS: Final[dict[str, Kind]] = {
    "html": "page",
    "svg": "svg drawing",
    "dot": "dot drawing",
    "png": "png drawing",
    "pdf": "pdf drawing",
    "graphml": "graph",
    "json": "dag",
}
_SUFFIXES: Final = {f".{name}": name for name in FORMATS} | {".htm": "html", ".gv": "dot"}


@click.command(name="visualize", short_help="Draw a plan or a dag.")
@click.argument("source", metavar="PLAN|DAG", type=click.Path())
@click.option("-o", "--output", required=True, metavar="FILE", help="Where to write; - is standard output.")
@click.option(
    "-f", "--format", "output_format", type=click.Choice(FORMATS), help="Default: by the suffix of the output file."
)
@force_option
@click.option("--layer", type=click.IntRange(min=0), metavar="N", help="Draw this layer alone.")
@click.option("--whole", is_flag=True, help="Of html: also the layers, replicas and microbatches that are like others.")
@click.option(
    "--report",
    "reports",
    multiple=True,
    metavar="FILE",
    help="Of html: what run measured, its --report or its --trace, beside the prediction. May be given twice.",
)
@click.option("--step", type=click.Choice(("prefill", "decode")), help="Of a plan with steps; default: decode.")
def command(
    source: str,
    *,
    output: str,
    output_format: str | None,
    layer: int | None,
    whole: bool,
    reports: tuple[str, ...],
    step: StepName | None,
    force: bool,
) -> None:
    """Draw the DAG of a PLAN, or a DAG: a column for every GPU, a bar for every collective.

    html is one page that needs no network: click a task to see what it waits for and what waits for it, in the drawing
    and in the predicted timeline. Of a large plan it has the layers, replicas and microbatches that differ, and says
    what they stand for. graphml is the graph without positions, for programs that work with graphs. png and pdf need
    Graphviz; the others need nothing.
    """
    chosen = output_format or _format_of(output)
    if chosen == "json" and layer is not None:
        raise click.UsageError("--layer cannot be used with json: a dag document is always whole")
    for option, given in (("--whole", whole), ("--report", reports)):
        if given and chosen != "html":
            raise click.UsageError(f"{option} is for html, not for {chosen}")
    check_outputs([Output("-o", output, _KINDS[chosen])], [source, *reports], force=force)
    from helixctl.documents import dag_text  # here, so that --help need not wait for the compiler

    with watched(f"reading {source}"):
        if chosen == "html":
            dag, page = _page(source, layer, step, reports, whole=whole)
            data: str | bytes = page
        else:
            dag = _load(source, layer, step)
            at(f"drawing {counted(len(dag.tasks), 'task')}")
            data = dag_text(dag) if chosen == "json" else emit(dag, chosen, layer)
    write_output(output, data)
    size = len(data.encode() if isinstance(data, str) else data)
    drawn = sum(layer in {None, task.layer} for task in dag.tasks)
    wrote(output, f"{counted(drawn, 'task')}, {human_bytes(size)}")


def _page(
    source: str, layer: int | None, step: StepName | None, reports: Sequence[str], *, whole: bool
) -> tuple[Dag, str]:
    """The page, and the dag that is drawn.

    Raises:
        HelixError: as ``_load`` where a layer alone or all is drawn; a proof's; of a report that cannot be shown.
    """
    from helixctl.cli.page import page_of, read_reports, views_of

    measured = read_reports(reports)
    if layer is not None or whole:
        dag = _load(source, layer, step)
        at(f"drawing {counted(len(dag.tasks), 'task')}")
        return dag, html(dag, layer, views_of(dag, None, measured))
    planned, chosen = _planned(source, step)
    dag, views = page_of(planned, chosen, source, measured)
    at(f"drawing {counted(len(dag.tasks), 'task')}")
    return dag, html(dag, views=views)


def _planned(source: str, step: StepName | None) -> tuple[Plan | Dag, StepName]:
    """A plan or a dag, and which step of it is drawn."""
    from helixctl.cli.documents import load_planned, step_of

    planned = load_planned(source)
    return planned, step_of(planned, step, source)


def _load(source: str, layer: int | None, step: StepName | None) -> Dag:
    """What is to be drawn: a dag, proved; of a plan, where that is large, the layer alone.

    Raises:
        HelixError: as ``whole_dag``; HX305, a drawing of all layers would be too large.
    """
    from helixctl.cli.documents import prove_lowered, whole_dag
    from helixctl.lower import lower
    from helixctl.solve.proof import MOST

    planned, step = _planned(source, step)
    plan = planned.plan if isinstance(planned, Dag) else planned
    if layer is not None and layer >= plan.model.layers:
        raise click.BadParameter(f"the model's layers are 0 to {plan.model.layers - 1}", param_hint="--layer")
    if isinstance(planned, Dag):
        return planned
    if layer is not None and about(plan) > MOST:
        prove_lowered(plan, source)
        return lower(plan, layers=range(layer, layer + 1), step=step)
    if large := too_large(about(plan), f"layout {plan.layout}", MANY_TASKS):
        raise HelixError(replace(large, hint="--layer N draws a layer alone", file=source))
    return whole_dag(plan, source, step)


def _format_of(output: str) -> str:
    if output == "-":
        raise click.UsageError("-o - has no suffix to tell the format; add -f/--format")
    suffix = PurePath(output).suffix.lower()
    if suffix not in _SUFFIXES:
        suffixes = ", ".join(f".{name}" for name in FORMATS)
        raise click.UsageError(f"{output} does not tell the format; end it in {suffixes}, or add -f/--format")
    return _SUFFIXES[suffix]
