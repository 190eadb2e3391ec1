"""helixctl validate: prove plans and dags, check specs."""

from __future__ import annotations

import click

from helixctl.cli.documents import Document, load_document
from helixctl.dag import Dag
from helixctl.errors import HelixError
from helixctl.plan import Plan
from helixctl.spec import ModelDocument


@click.command(name="validate", short_help="Prove plans and dags, check specs.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
def command(files: tuple[str, ...], *, quiet: bool) -> int:
    """Check every FILE (- is standard input): model, cluster, plan or dag, told apart by content.

    Exit status: 0 all are valid, 1 a plan or a dag is refused, 2 a file cannot be read or is malformed.
    """
    status = 0
    for path in files:
        try:
            document = load_document(path)
        except HelixError as error:
            for diagnostic in error.diagnostics:
                click.echo(str(diagnostic), err=True)
            status = max(status, error.exit_status)
            continue
        if not quiet:
            click.echo(f"{path}: {_described(document)}", err=True)
    return status


def _described(document: Document) -> str:
    if isinstance(document, Dag):
        tasks, layout = len(document.tasks), document.plan.layout
        return f"valid dag, layout {layout}, {tasks} tasks proved, {document.digest[:19]}"
    if isinstance(document, Plan):
        return f"valid plan, layout {document.layout}, {document.digest[:19]}"
    noun = "model" if isinstance(document, ModelDocument) else "cluster"
    return f"valid {noun} {document.name}"
