"""helixctl validate: prove plans and dags, check specs; for people and for CI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from helixctl import collector
from helixctl.cli.completion import files
from helixctl.cli.console import say, wrote
from helixctl.cli.documents import prove_lowered
from helixctl.cli.folders import files_below, is_of_others, read_in_folder
from helixctl.cli.notes import warn_of_slips
from helixctl.cli.outputs import Output, check_outputs, force_option
from helixctl.cli.watching import watched
from helixctl.dag import Dag
from helixctl.documents import Document, Source, prove, read_document
from helixctl.errors import Diagnostic, HelixError
from helixctl.output import write_output
from helixctl.plan import Plan
from helixctl.report import FORMATS, SUFFIXES, Format, Outcome, ValidationReport, as_annotations
from helixctl.report.markdown import as_markdown
from helixctl.report.text import outcome_lines
from helixctl.spec import ClusterSpec
from helixctl.spec.load import document_path
from helixctl.spec.rates import doubts
from helixctl.spec.slips import slips
from helixctl.units import counted

_FORMATS: Final = click.Choice(list(FORMATS))


@click.command(name="validate", short_help="Prove plans and dags, check specs.")
@click.argument("paths", nargs=-1, required=True, metavar="FILE|FOLDER...", shell_complete=files)
@click.option(
    "-f", "--format", "output_format", type=_FORMATS, help="Of the report. Default: by the suffix of -o, else text."
)
@click.option(
    "-o", "--output", metavar="FILE", help="Write the report; - is standard output, the default except for text."
)
@click.option("--json", "json_path", metavar="FILE", help="Write the report as JSON; - is standard output.")
@click.option(
    "--exclude", multiple=True, metavar="GLOB", help="Leave out what folders hold under this name or path. Repeatable."
)
@force_option
@click.option("-v", "--verbose", is_flag=True, help="Also print what is valid, and the files that are no documents.")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
def command(
    paths: tuple[str, ...],
    *,
    output_format: Format | None,
    output: str | None,
    json_path: str | None,
    exclude: tuple[str, ...],
    force: bool,
    verbose: bool,
    quiet: bool,
) -> int:
    """Check every FILE (- is standard input): model, cluster, plan or dag, told apart by content.

    Of a FOLDER every document below it is checked (*.json, *.yaml, *.yml); other files in it are skipped and counted,
    also the config.json of a model that is not modelled.

    What is wrong is printed, a line for each finding, and how many documents are valid; with -v, or of one FILE, also
    a line for each of these. -f and -o give all of it as a report besides, for CI (docs/ci.md); where the report takes
    standard output, the lines go to standard error. In GitHub Actions findings are also shown at the lines of the pull
    request and in the summary of the job.

    Exit status: 0 all are valid, 1 a document is refused by a proof, 2 one cannot be read or is malformed.
    """
    output_format, output = _as_json(json_path, output_format, output)
    chosen: Format = output_format or _format_of(output)
    target = output or ("-" if chosen != "text" else None)
    check_outputs([Output("-o", target, "report of validate")], _named(paths), force=force)
    alone = len(paths) == 1 and len(_named(paths)) == 1  # what is asked of one file is answered
    said = target == "-" and chosen == "text"  # the report itself is what is printed
    outcomes: list[Outcome] = []
    skipped: dict[str, str] = {}
    for outcome in _outcomes(paths, exclude, skipped, digests=not quiet or chosen == "json"):
        outcomes.append(outcome)
        if not quiet:
            warn_of_slips(outcome.warnings, outcome.file)
        if not said and not (outcome.valid and (quiet or not (verbose or alone))):
            say(outcome_lines(outcome), target)
    report = ValidationReport(tuple(outcomes), tuple(skipped))
    if verbose:
        say([f"{file}: skipped, {reason}" for file, reason in skipped.items()], target)
    if not quiet and not said and (len(outcomes) > 1 or skipped):
        say([report.counts], target)
    root = _root()
    if target:
        check_outputs([Output("-o", target, "report of validate")], [o.file for o in outcomes], force=force)
        write_output(target, FORMATS[chosen](report, root))
        if not quiet:
            wrote(target, f"the report as {chosen}")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        _tell_github(report, root, annotate=not (chosen == "github" and target == "-"))
    return report.status


def _named(paths: tuple[str, ...]) -> list[str]:
    """The files among the arguments; in a folder a report may lie from the last time."""
    return [path for path in paths if not os.path.isdir(path)]  # noqa: PTH112  Path refuses what cannot be a path


def _as_json(
    json_path: str | None, output_format: Format | None, output: str | None
) -> tuple[Format | None, str | None]:
    """The format and the file, as --json or as -f and -o give them."""
    if json_path is None:
        return output_format, output
    if output_format is not None or output is not None:
        raise click.UsageError("--json FILE is -f json -o FILE: leave -f and -o out")
    return "json", json_path


def _format_of(output: str | None) -> Format:
    if output is None or output == "-":
        return "text"
    for suffix, name in SUFFIXES.items():
        if output.lower().endswith(suffix):
            return name
    raise click.UsageError(f"{output} does not tell the format; end it in {', '.join(SUFFIXES)}, or add -f/--format")


def _outcomes(
    paths: tuple[str, ...], exclude: tuple[str, ...], skipped: dict[str, str], *, digests: bool
) -> Iterator[Outcome]:
    """The outcome of every document, each once; the files of folders that are none go to ``skipped``, with a reason."""
    seen: set[str] = set()
    for path in paths:
        folder = path != "-" and os.path.isdir(path)  # noqa: PTH112  Path refuses what cannot be a path
        unreadable: list[Diagnostic] = []
        documents = 0
        for file in files_below(path, unreadable, exclude) if folder else [path]:
            name = os.path.normpath(file)
            if name not in seen:
                with watched(f"checking {file}"):
                    outcome = _checked(file, in_folder=folder, digests=digests)
                if isinstance(outcome, str):
                    skipped.setdefault(file, outcome)
                    continue
                seen.add(name)
                yield outcome
            documents += 1
        yield from (Outcome(problem.file or path, None, (problem,)) for problem in unreadable)
        if not documents and not unreadable:
            hint = "*.json, *.yaml and *.yml are looked at; name a file to have it checked whatever it is"
            yield Outcome(path, None, (Diagnostic("HX110", "holds no document that helixctl knows", hint, path),))


def _checked(file: str, *, in_folder: bool, digests: bool) -> Outcome | str:
    """What becomes of one file; of one in a folder that is none of ours, why it is skipped."""
    source = None
    try:
        with collector.paused():
            source = read_in_folder(file) if in_folder else read_document(document_path(file))
            if source is None:
                return "no document that helixctl knows"
            return _valid(source, prove(source), digests=digests)
    except HelixError as error:
        if source and in_folder and is_of_others(source, error):
            return f"another model: {error.diagnostics[0].message}"
        return Outcome(file, source.kind if source else None, error.diagnostics)


def _valid(source: Source, document: Document, *, digests: bool) -> Outcome:
    """The outcome of a document that holds by itself; of a plan also what it is lowered to is proved."""
    if isinstance(document, Dag):
        what = f"dag, layout {document.plan.layout}, {counted(len(document.tasks), 'task')} proved"
    elif isinstance(document, Plan):
        proof = prove_lowered(document, source.file)
        tasks = counted(sum(len(dag.tasks) for dag in proof.dags), "task")
        what = f"plan, layout {document.layout}, {tasks} proved"
        if proof.part:
            what += f" on {proof.part}, the others are copies of these"
    else:
        what = f"{source.kind} {document.name}"
    digest = document.digest if digests and isinstance(document, Plan | Dag) else None
    plan = document.plan if isinstance(document, Dag) else document
    cluster = plan.cluster if isinstance(plan, Plan) else plan
    warnings = tuple(doubts(cluster)) if isinstance(cluster, ClusterSpec) else ()
    if isinstance(document, ClusterSpec):
        warnings = (*slips(document), *warnings)
    return Outcome(source.file, source.kind, summary=what, digest=digest, warnings=warnings)


# --- CI systems ------------------------------------------------------------------------------------------------------


def _root() -> Path:
    """The folder to which a CI system wants paths to be relative: its checkout, where we are in it."""
    here = Path.cwd()
    for name in ("GITHUB_WORKSPACE", "CI_PROJECT_DIR"):
        checkout = Path(os.environ.get(name) or here).resolve()
        if here.is_relative_to(checkout) and checkout != here:
            return checkout
    return here


def _tell_github(report: ValidationReport, root: Path, *, annotate: bool) -> None:
    """Annotations, where the report is not already that, and a table in the summary of the job."""
    if annotate:
        click.echo(as_annotations(report, root), err=True, nl=False)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(summary).open("a", encoding="utf-8") as stream:
                stream.write(as_markdown(report, root))
        except OSError as error:  # no reason to fail: the findings are printed, and annotated
            click.echo(f"note: no summary of the job was written: {error}", err=True)
