"""``helixctl visualize``: draw a plan or a dag."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

import click

from helixctl.cli.console import wrote
from helixctl.emit import FORMATS, emit
from helixctl.output import write_output
from helixctl.units import human_bytes

_SUFFIXES: Final = {f".{name}": name for name in FORMATS} | {".htm": "html", ".gv": "dot"}


@click.command(name="visualize", short_help="Draw a plan or a dag.")
@click.argument("source", metavar="PLAN|DAG", type=click.Path())
@click.option("-o", "--output", required=True, metavar="FILE", help="Where to write; - is standard output.")
@click.option(
    "-f", "--format", "output_format", type=click.Choice(FORMATS), help="Default: by the suffix of the output file."
)
@click.option("--layer", type=click.IntRange(min=0), metavar="N", help="Draw this layer alone.")
def command(source: str, output: str, output_format: str | None, layer: int | None) -> None:
    """Draw the DAG of a PLAN, or a DAG: a column for every GPU, a bar for every collective.

    html is one page that needs no network: click a task to see what it waits for and what waits for it. png and pdf
    need Graphviz; html, svg, dot and json need nothing.
    """
    chosen = output_format or _format_of(output)
    if chosen == "json" and layer is not None:
        raise click.UsageError("--layer cannot be used with json: a dag document is always whole")
    from helixctl.cli.documents import load_dag  # here, so that --help need not wait for the compiler

    dag = load_dag(source)
    if layer is not None and layer >= dag.plan.model.layers:
        raise click.BadParameter(f"the model's layers are 0 to {dag.plan.model.layers - 1}", param_hint="--layer")
    data = emit(dag, chosen, layer)
    write_output(output, data)
    size = len(data.encode() if isinstance(data, str) else data)
    drawn = sum(layer in {None, task.layer} for task in dag.tasks)
    wrote(output, f"{drawn} {'task' if drawn == 1 else 'tasks'}, {human_bytes(size)}")


def _format_of(output: str) -> str:
    if output == "-":
        raise click.UsageError("-o - has no suffix to tell the format; add -f/--format")
    suffix = PurePath(output).suffix.lower()
    if suffix not in _SUFFIXES:
        suffixes = ", ".join(f".{name}" for name in FORMATS)
        raise click.UsageError(f"{output} does not tell the format; end it in {suffixes}, or add -f/--format")
    return _SUFFIXES[suffix]
