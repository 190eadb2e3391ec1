"""helixctl run: a plan or a dag on CPU ranks or GPUs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from helixctl.api import validate
from helixctl.cli.completion import files
from helixctl.cli.config_of_weights import check_config
from helixctl.cli.console import answers, messages
from helixctl.cli.documents import load_planned, prove_lowered, whole_dag
from helixctl.cli.generate import Wanted, generate
from helixctl.cli.measured_trace import write_trace
from helixctl.cli.measurements import print_comparison, print_report, print_verdicts
from helixctl.cli.option_groups import grouped
from helixctl.cli.outputs import Output, check_outputs, force_option
from helixctl.cli.sampling import Drawing, redrawn, replaced, sampling_options
from helixctl.cli.watching import StepsWatched, Watch, progress, watched
from helixctl.cli.written import write_report
from helixctl.dag import Dag
from helixctl.dag.retype import as_run, retyped
from helixctl.errors import HelixError, fail
from helixctl.plan import Plan
from helixctl.plan.size import MANY_TASKS, about
from helixctl.solve.deep import Size, counted
from helixctl.units import counted as number
from helixctl.verify import check_steps

if TYPE_CHECKING:
    from rich.console import Console


_DTYPES = ("float16", "bfloat16", "float32", "float64")
_BUDGET_S: Final = 30.0  # for the steps of a pass

_GROUPS: Final = {
    "Steps": ("--seconds", "--paper", "--warmup", "--iters", "--compare", "--check", "--timeout", "--dry-run"),
    "Ranks": ("--device", "--dtype", "--cuda-graph", "--log-dir"),
    "Weights and input": ("--weights", "--weights-prefix", "--as-planned", "--input", "--output", "--seed"),
    "Generation": ("--prompt", "--chat", "--generate", "--temperature", "--top-k", "--top-p", "--ignore-eos"),
    "Reports": ("--json", "--trace", "--force"),
}


@click.command(name="run", cls=grouped(_GROUPS), short_help="Run a plan or a dag on CPU ranks or GPUs.")
@click.argument("documents", metavar="PLAN|DAG...", nargs=-1, required=True, shell_complete=files)
@click.option("--compare", is_flag=True, help="Run several side by side, and compare each with the first.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: what the plan's cluster is made of.")
@click.option("--dtype", type=click.Choice(_DTYPES), help="Default: the model's.")
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    metavar="N",
    help="Steps before measuring. Default: by --seconds, at most 100.",
)
@click.option(
    "--iters",
    type=click.IntRange(min=1),
    metavar="N",
    help="Measured steps. Default: by --seconds, at most 1000.",
)
@click.option(
    "--seconds",
    "budget",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help=f"Time for the steps of a pass where --warmup and --iters leave open how many. Default: {_BUDGET_S:g}.",
)
@click.option("--paper", is_flag=True, help="The paper's steps: --warmup 100 --iters 1000.")
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    metavar="N",
    help="Of weights and input that come from no file, and of drawn tokens.",
)
@click.option(
    "--cuda-graph/--no-cuda-graph",
    default=None,
    help="Replay measured or decode steps from a CUDA graph. Default: steps of a pass on one GPU that allow it.",
)
@click.option("--check", is_flag=True, help="Compare the output with the unpartitioned float64 reference.")
@click.option(
    "--timeout",
    type=click.FloatRange(1, 86400),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="What a rank waits for another, at most.",
)
@click.option(
    "--weights",
    metavar="FILE|FOLDER",
    help="Weights: a Hugging Face folder, a GGUF file, or a file as in docs/formats.md.",
)
@click.option(
    "--weights-prefix",
    metavar="PREFIX",
    help="Which of several models in the weights' files: what stands ahead of 'layers.0'.",
)
@click.option(
    "--as-planned",
    is_flag=True,
    help="Run the plan's model also where the config.json beside the weights gives another.",
)
@click.option("--input", "inputs", metavar="FILE", help="Token ids, the tensor 'input_ids' (or 'input'), safetensors.")
@click.option("--output", metavar="FILE", help="Write the tensor 'logits' (or 'output', 'tokens'), safetensors.")
@click.option("--prompt", "prompts", multiple=True, metavar="TEXT", help="Of a plan with steps: continue a text.")
@click.option("--chat", is_flag=True, help="Prompts are messages of a user: put them into the model's chat template.")
@click.option("--generate", "new", type=click.IntRange(min=1), metavar="N", help="Tokens after each prompt, at most.")
@sampling_options
@click.option("--ignore-eos", is_flag=True, help="Go on behind a token that ends a sequence.")
@click.option(
    "--json", "--report", "report_path", metavar="FILE", help="Write the measurements as JSON; - is standard output."
)
@click.option("--trace", "trace_path", metavar="FILE", help="Write a step's measured timeline in Chrome trace format.")
@force_option
@click.option("--log-dir", type=click.Path(file_okay=False, path_type=Path), help="Keep the ranks' logs here.")
@click.option("--dry-run", is_flag=True, help="Say what would run; start nothing.")
def command(
    documents: tuple[str, ...],
    *,
    compare: bool,
    device: Literal["cpu", "cuda"] | None,
    dtype: Any,
    warmup: int | None,
    iters: int | None,
    budget: float | None,
    paper: bool,
    seed: int,
    cuda_graph: bool | None,
    check: bool,
    timeout: float,
    weights: str | None,
    weights_prefix: str | None,
    as_planned: bool,
    inputs: str | None,
    output: str | None,
    prompts: tuple[str, ...],
    chat: bool,
    new: int | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    ignore_eos: bool,
    report_path: str | None,
    trace_path: str | None,
    force: bool,
    log_dir: Path | None,
    dry_run: bool,
) -> int:
    """Run PLAN or DAG, one rank per device.

    Under torchrun or srun this process is one rank; otherwise it starts the ranks itself. The document is proved
    before anything starts. Weights and input are seeded unless files are given.

    A PLAN that was made with --output-len continues prompts: --prompt TEXT (once a sequence) with --weights FOLDER, or
    the 'input_ids' of --input, or seeded ones; with a KV cache, a static batch. Tokens are chosen as the plan says:
    greedily, unless it was made with --temperature, --top-k or --top-p. Given here, these replace what it says, and
    the steps are proved so.

    With --compare several documents run on the same ranks, a step of each in turn, so that noise meets all alike.
    """
    warmup, iters = _counts(warmup, iters, paper=paper)
    if not timeout >= 1:
        raise click.BadParameter("not a number of seconds", param_hint="--timeout")
    _check_pairs(weights, weights_prefix, inputs, prompts, chat=chat)
    _check_file("--weights", weights)
    _check_file("--input", inputs)
    _check_usage(documents, output, compare=compare)
    outputs = [
        Output("--output", output, "tensor file"),
        Output("--json", report_path, "report of a run"),
        Output("--trace", trace_path, "trace"),
    ]
    check_outputs(outputs, (*documents, weights, inputs), force=force)
    out = answers(report_path, trace_path)
    drawing = Drawing(temperature, top_k, top_p)
    if dry_run:
        _dry_run(out, documents, dtype, device, drawing)
        return 0
    loaded, of_plans = _read(documents, drawing, dtype)
    _check_tokens(documents, loaded)
    if steps := _steps(documents, loaded, dtype):
        plans = [its[0].plan for its in steps]
        _check_ranks(documents, plans)
        _refuse_steps(documents[0], iters, budget)
        wanted = Wanted(
            prompts,
            new,
            chat,
            ignore_eos,
            inputs,
            weights,
            weights_prefix,
            seed,
            output,
            warmup != 0,
            check,
            bool(cuda_graph),
            of_plans,
        )
        check_config(weights, plans, as_planned=as_planned)
        device = _device(device, plans[0], graph=cuda_graph)
        how: Any = {"device": device, "timeout": timeout, "log_dir": log_dir}
        how |= {"report_path": report_path, "trace_path": trace_path}
        generate(_runtime(), out, steps, _names(documents, [its[0] for its in steps]), wanted, **how)
        return 0
    if prompts or new or ignore_eos:
        raise fail("HX509", f"{documents[0]} is of one pass without a cache", "plan with --input-len and --output-len")
    dags = _dags(documents, loaded, dtype)
    _check_ranks(documents, [dag.plan for dag in dags])
    check_config(weights, [dag.plan for dag in dags], as_planned=as_planned)
    device = _device(device, dags[0].plan, graph=cuda_graph)
    run = _runtime()
    asked = {"weights_prefix": weights_prefix, "cuda_graph": cuda_graph, "budget_s": budget or _BUDGET_S}
    options = run.Options(warmup, iters, seed, check, weights, inputs, output, **asked)
    ranks, names = dags[0].plan.layout.devices, _names(documents, dags)
    what = f"{number(ranks, f'{device.upper()} rank')}, {_steps_in_words(warmup, iters, budget or _BUDGET_S, dags)}"
    with _shown(run, what) as watch:
        results = run.run(dags, names, options, device=device, timeout=timeout, log_dir=log_dir, on_progress=watch)
    if results is None:
        return 0  # another process is rank 0 and reports
    reports = [result.report for result in results]
    report = run.comparison(names, reports) if compare else reports[0]
    # Printed first: what was measured is not lost where a disk is full.
    if compare:
        print_comparison(out, report, dags, device)
    else:
        print_report(out, report, dags[0], device)
    write_report(report_path, report, output)
    if trace_path:
        write_trace(trace_path, dags, names, [result.spans for result in results])
    print_verdicts(out, reports, names if compare else None)
    return 0


def _shown(run: ModuleType, what: str) -> AbstractContextManager[Watch | None]:
    """Show how far a run is, where this process prints its output."""
    if not run.prints_output():
        return nullcontext()
    return progress(what, partial(StepsWatched, what), live=run.starts_ranks())


def _counts(warmup: int | None, iters: int | None, *, paper: bool) -> tuple[int | None, int | None]:
    """Steps for warm-up and for measurement; None where the time decides."""
    if not paper:
        return warmup, iters
    if warmup is not None or iters is not None:
        raise click.UsageError("--paper is --warmup 100 --iters 1000: leave these out")
    return 100, 1000


def _refuse_steps(document: str, iters: int | None, budget: float | None) -> None:
    """Refuse to measure a number of steps of a generation, whose steps are as many as its tokens."""
    given = "--iters (or --paper)" if iters else "--seconds" if budget else None
    if given:
        message = f"{document} generates, a step for each token: {given} is of one pass"
        raise fail("HX509", message, "leave it out; --generate N says how many tokens")


def _steps_in_words(warmup: int | None, iters: int | None, budget: float, dags: Sequence[Dag]) -> str:
    of = f" of {len(dags)} plans in turn" if len(dags) > 1 else ""
    if warmup is not None and iters is not None:
        return f"{warmup} + {iters} steps{of}"
    given = [f"{count} {what}" for count, what in ((warmup, "for warm-up"), (iters, "measured")) if count is not None]
    return f"steps{of} for {budget:.3g} s" + (f", {' and '.join(given)}" if given else "")


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


def _check_file(option: str, path: str | None) -> None:
    """Refuse what cannot be read by regions: an empty path, which would be this folder, and pipes, which never end."""
    if path == "":
        raise click.BadParameter("an empty path: is a variable of the shell not set?", param_hint=option)
    if path is not None and Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        raise fail("HX507", f"{path} is a pipe or a device, not a file", f"give {option} a file")


def _check_pairs(
    weights: str | None, prefix: str | None, inputs: str | None, prompts: tuple[str, ...], *, chat: bool
) -> None:
    if prefix is not None and weights is None:
        raise click.UsageError("--weights-prefix is of the files that --weights names: give both")
    if prompts and inputs:
        raise click.UsageError("--prompt gives the prompts, and so does --input: leave out one")
    if chat and not prompts:
        raise click.UsageError("--chat is of messages that --prompt gives")


def _check_usage(documents: tuple[str, ...], output: str | None, *, compare: bool) -> None:
    if len(documents) > 1 and not compare:
        raise click.UsageError(f"{len(documents)} documents: give one, or --compare to run them side by side")
    if len(documents) == 1 and compare:
        raise click.UsageError(f"--compare needs two or more documents, and got only {documents[0]}")
    if compare and output:
        raise click.UsageError("--output is for the run of one document: leave out --compare or --output")
    if output == "-":
        raise click.BadParameter("safetensors need a file", param_hint="--output")


def _steps(documents: Sequence[str], loaded: Sequence[Plan | Dag], dtype: Any) -> list[list[Dag]]:
    """The dags of the steps of each plan, where they have several; none where they have one.

    Raises:
        HelixError: HX509, a step is given as a dag, which alone has no cache to go on with; or some have several, and
            others one.
    """
    for document, its in zip(documents, loaded, strict=True):
        if isinstance(its, Dag) and its.step != "pass":
            message = f"{document} is the {its.step} step of a plan"
            raise fail("HX509", message, "run the plan: its steps share weights and a cache")
    plans = [its for its in loaded if isinstance(its, Plan) and len(its.steps) > 1]
    if not plans:
        return []
    for document, its in zip(documents, loaded, strict=True):
        if its not in plans:
            message = f"{document} is of one pass, and others have a prefill and a decode step"
            raise fail("HX509", message, "compare passes with passes, and generations with generations")
    each = zip(plans, documents, strict=True)
    found = [[_typed(whole_dag(plan, document, step), dtype) for step in plan.steps] for plan, document in each]
    if findings := [finding for dags in found for finding in check_steps(dags)]:
        raise HelixError(findings)
    return found


def _check_tokens(documents: Sequence[str], loaded: Sequence[Plan | Dag]) -> None:
    """Refuse to generate with a model that has no vocabulary.

    Raises:
        HelixError: HX509, with the plan.
    """
    for document, its in zip(documents, loaded, strict=True):
        if isinstance(its, Plan) and len(its.steps) > 1 and its.model.vocabulary is None:
            message = (
                f"{document}: {its.model.name} has no vocabulary: it makes hidden states, and no tokens to go on with"
            )
            hint = "plan one pass of it, without --output-len, or plan with --set vocabulary.size=N"
            raise fail("HX509", message, hint)


def _say_what_is_held(loaded: Sequence[Plan | Dag], dtype: Any) -> None:
    """Say that a run holds in the dtype of the computation what a plan counts as it is stored."""
    plans = [its.plan if isinstance(its, Dag) else its for its in loaded]
    runs = [as_run(plan, dtype) for plan in plans if as_run(plan) is not plan]
    for held in dict.fromkeys(run.model.dtype for run in runs):
        counted_as = "quantised weights and caches are counted by the plan as they are stored"
        messages().print(f"note: {counted_as}; this run has them in {held}")


def _device(device: Literal["cpu", "cuda"] | None, plan: Plan, *, graph: bool | None) -> Literal["cpu", "cuda"]:
    """What the ranks are on: as it is asked for, else what the plan's cluster is made of."""
    device = device or plan.cluster.device_kind
    if graph and device != "cuda":
        raise click.UsageError(f"--cuda-graph is for CUDA devices, and these ranks are on {device}")
    return device


def _read(documents: Sequence[str], drawing: Drawing, dtype: Any) -> tuple[list[Plan | Dag], tuple[str | None, ...]]:
    """What is to run, tokens chosen as the options say; and of each how its file says it, where that is otherwise."""
    read = [load_planned(document) for document in documents]
    loaded = [redrawn(its, document, drawing) for document, its in zip(documents, read, strict=True)]
    _say_what_is_held(loaded, dtype)
    return loaded, tuple(replaced(before, its) for before, its in zip(read, loaded, strict=True))


def _dags(documents: Sequence[str], loaded: Sequence[Plan | Dag], dtype: Any) -> list[Dag]:
    with watched("reading the plans"):
        return [_dag(its, document, dtype) for document, its in zip(documents, loaded, strict=True)]


def _dag(planned: Plan | Dag, document: str, dtype: Any) -> Dag:
    return _typed(planned if isinstance(planned, Dag) else whole_dag(planned, document), dtype)


def _typed(dag: Dag, dtype: Any) -> Dag:
    """The dag as it runs, proved so: in another dtype, if one is asked for, with weights that are dequantised.

    Raises:
        HelixError: HX410, it does not fit so, though it did as its weights are stored; or it is not proved otherwise.
    """
    typed = retyped(dag, dtype)
    if typed is dag:
        return dag
    findings = validate(typed)
    if as_run(dag.plan) is not dag.plan:
        hint = (
            f"a run holds weights and cache in {typed.plan.model.dtype}: use more devices, or an engine that does not"
        )
        findings = tuple(replace(found, hint=hint) if found.code == "HX410" else found for found in findings)
    if findings:
        raise HelixError(findings)
    return typed


def _check_ranks(documents: Sequence[str], plans: Sequence[Plan]) -> None:
    """Refuse to run dags for different numbers of ranks side by side."""
    ranks = [plan.layout.devices for plan in plans]
    for document, count in zip(documents, ranks, strict=True):
        if count != ranks[0]:
            message = f"{documents[0]} is for {ranks[0]} ranks, {document} for {count}"
            raise fail("HX509", message, "plan both for one number of devices: they run on the same ranks")


def _names(documents: Sequence[str], dags: Sequence[Dag]) -> Sequence[str]:
    """What tells the dags apart: their layouts, or else their files."""
    layouts = [str(dag.plan.layout) for dag in dags]
    return layouts if len(set(layouts)) == len(layouts) else documents


def _dry_run(out: Console, documents: Sequence[str], dtype: Any, device: str | None, drawing: Drawing) -> None:
    """Prove what would run, and say what it is; a plan of very many tasks is not lowered for it."""
    texts, plans = [], []
    for document in documents:
        planned = redrawn(load_planned(document), document, drawing)
        _check_tokens([document], [planned])
        if isinstance(planned, Plan) and about(planned) > MANY_TASKS:
            found = prove_lowered(as_run(planned, dtype), document)
            size = counted(planned)
            proved = f"proved on {found.part}: the others are copies of these"
        else:
            dag = _dag(planned, document, dtype)
            size = Size(len(dag.tasks), len(dag.order[0]), len({t.ranks for t in dag.tasks if t.is_collective}))
            proved = "proved"
        plan = as_run(planned.plan if isinstance(planned, Dag) else planned, dtype)
        plans.append(plan)
        where = f"{number(plan.layout.devices, 'rank')} on {device or plan.cluster.device_kind}"
        texts.append(f"{plan.model.name}, layout {plan.layout}, {plan.model.dtype}: {where}")
        texts.append(f"{plan.workload}")
        groups = number(size.groups, "process group")
        texts.append(f"{number(size.tasks, 'task')}, {size.of_rank_0:,} a step on rank 0, {groups}; {proved}")
    _check_ranks(documents, plans)
    for text in texts:
        out.print(text)
    out.print("nothing was started (--dry-run)")
