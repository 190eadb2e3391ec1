"""helixctl run: a plan or a dag on CPU ranks or GPUs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import click

from helixctl.cli.console import answers, progress
from helixctl.cli.documents import load_dag
from helixctl.cli.measurements import print_comparison, print_report, print_verdicts
from helixctl.dag.retype import retyped
from helixctl.errors import HelixError, fail
from helixctl.output import check_folder, write_output
from helixctl.verify import verify

if TYPE_CHECKING:
    from rich.console import Console

    from helixctl.dag import Dag
    from helixctl.dag.span import Span

_DTYPES = ("float16", "bfloat16", "float32", "float64")


@click.command(name="run", short_help="Run a plan or a dag on CPU ranks or GPUs.")
@click.argument("documents", metavar="PLAN|DAG...", nargs=-1, required=True)
@click.option("--compare", is_flag=True, help="Run several side by side, and compare each with the first.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: what the plan's cluster is made of.")
@click.option("--dtype", type=click.Choice(_DTYPES), help="Default: the model's.")
@click.option("--warmup", type=click.IntRange(min=0), default=100, show_default=True, help="Steps before measuring.")
@click.option("--iters", type=click.IntRange(min=1), default=1000, show_default=True, help="Measured steps.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights and input that come from no file.")
@click.option("--check", is_flag=True, help="Compare the output with the unpartitioned float64 reference.")
@click.option("--timeout", type=click.FloatRange(1, 86400), default=60, show_default=True, metavar="SECONDS")
@click.option(
    "--weights", metavar="FILE|FOLDER", help="Weights: a Hugging Face folder, or a file as in docs/formats.md."
)
@click.option(
    "--weights-prefix",
    metavar="PREFIX",
    help="Which of several models in the weights' files: what stands ahead of 'layers.0'.",
)
@click.option("--input", "inputs", metavar="FILE", help="Token ids, the tensor 'input_ids' (or 'input'), safetensors.")
@click.option("--output", metavar="FILE", help="Write the tensor 'logits' (or 'output'), safetensors.")
@click.option("--report", "report_path", metavar="FILE", help="Write the measurements as JSON; - is standard output.")
@click.option("--trace", "trace_path", metavar="FILE", help="Write a step's measured timeline in Chrome trace format.")
@click.option("--log-dir", type=click.Path(file_okay=False, path_type=Path), help="Keep the ranks' logs here.")
@click.option("--dry-run", is_flag=True, help="Say what would run; start nothing.")
def command(
    documents: tuple[str, ...],
    *,
    compare: bool,
    device: Literal["cpu", "cuda"] | None,
    dtype: Any,
    warmup: int,
    iters: int,
    seed: int,
    check: bool,
    timeout: float,
    weights: str | None,
    weights_prefix: str | None,
    inputs: str | None,
    output: str | None,
    report_path: str | None,
    trace_path: str | None,
    log_dir: Path | None,
    dry_run: bool,
) -> int:
    """Run PLAN or DAG, one rank per device.

    Under torchrun or srun this process is one rank; otherwise it starts the ranks itself. The document is proved
    before anything starts. Weights and input are seeded unless files are given.

    With --compare several documents run on the same ranks, a step of each in turn, so that noise meets all alike.
    """
    if not timeout >= 1:
        raise click.BadParameter("not a number of seconds", param_hint="--timeout")
    if weights_prefix is not None and weights is None:
        raise click.UsageError("--weights-prefix is of the files that --weights names: give both")
    _check_usage(documents, output, compare=compare)
    dags = [_load(document, dtype) for document in documents]
    _check_ranks(documents, dags)
    device = device or dags[0].plan.cluster.device.kind
    out = answers(report_path, trace_path)
    if dry_run:
        for dag in dags:
            _describe(out, dag, device)
        out.print("nothing was started (--dry-run)")
        return 0
    for path in (output, report_path, trace_path):
        check_folder(path)
    run = _runtime()
    options = run.Options(warmup, iters, seed, check, weights, inputs, output, weights_prefix=weights_prefix)
    ranks, names = dags[0].plan.layout.devices, _names(documents, dags)
    what = f"{ranks} {device} ranks, {warmup} + {iters} steps" + (f" of {len(dags)} plans in turn" if compare else "")
    shown = progress(what, warmup + iters, live=run.starts_ranks()) if run.speaks() else nullcontext()
    with shown as watch:
        results = run.run(dags, names, options, device=device, timeout=timeout, log_dir=log_dir, watch=watch)
    if results is None:
        return 0  # another process is rank 0 and reports
    reports = [result.report for result in results]
    report = run.comparison(names, reports) if compare else reports[0]
    # Printed first: what was measured is not lost where a disk is full.
    if compare:
        print_comparison(out, report, dags, device)
    else:
        print_report(out, report, dags[0], device)
    if report_path:
        write_output(report_path, json.dumps(report, indent=2) + "\n")
    if trace_path:
        _write_trace(trace_path, dags, names, [result.spans for result in results])
    print_verdicts(out, reports, names if compare else None)
    return 0


def _runtime() -> ModuleType:
    # Its warnings come with C++ stacks, and say less than our one line does.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        from helixctl_runtime import run
    except ModuleNotFoundError as error:
        raise fail(
            "HX501", f"{error.name} is not installed", "in the clone of helixctl: pip install '.[runtime]'"
        ) from error
    return run


def _check_usage(documents: tuple[str, ...], output: str | None, *, compare: bool) -> None:
    if len(documents) > 1 and not compare:
        raise click.UsageError(f"{len(documents)} documents: give one, or --compare to run them side by side")
    if len(documents) == 1 and compare:
        raise click.UsageError(f"--compare needs two or more documents, and got only {documents[0]}")
    if compare and output:
        raise click.UsageError("--output is for the run of one document: leave out --compare or --output")
    if output == "-":
        raise click.BadParameter("safetensors need a file", param_hint="--output")


def _load(document: str, dtype: Any) -> Dag:
    dag = load_dag(document)
    if dtype:
        dag = retyped(dag, dtype)
        if findings := verify(dag):
            raise HelixError(findings)
    return dag


def _check_ranks(documents: Sequence[str], dags: Sequence[Dag]) -> None:
    """Refuse to run dags for different numbers of ranks side by side."""
    ranks = [dag.plan.layout.devices for dag in dags]
    for document, count in zip(documents, ranks, strict=True):
        if count != ranks[0]:
            message = f"{documents[0]} is for {ranks[0]} ranks, {document} for {count}"
            raise fail("HX509", message, "plan both for one number of devices: they run on the same ranks")


def _names(documents: Sequence[str], dags: Sequence[Dag]) -> Sequence[str]:
    """What tells the dags apart: their layouts, or else their files."""
    layouts = [str(dag.plan.layout) for dag in dags]
    return layouts if len(set(layouts)) == len(layouts) else documents


def _describe(out: Console, dag: Dag, device: str) -> None:
    groups = {t.ranks for t in dag.tasks if t.is_collective}
    plan = dag.plan
    out.print(f"{plan.model.name}, layout {plan.layout}, {plan.model.dtype}: {plan.layout.devices} ranks on {device}")
    out.print(f"{plan.workload}")
    out.print(f"{len(dag.tasks)} tasks proved, {len(dag.order[0])} a step on rank 0, {len(groups)} process groups")


def _write_trace(path: str, dags: Sequence[Dag], names: Sequence[str], spans: Sequence[Sequence[Span]]) -> None:
    from helixctl.emit.trace import Trace, traces_json

    titles = [f"{dag.plan.model.name}, {name}: a measured step" for dag, name in zip(dags, names, strict=True)]
    timed = zip(titles, dags, spans, strict=True)
    write_output(path, traces_json([Trace(title, dag, its, simulated=False) for title, dag, its in timed]))
