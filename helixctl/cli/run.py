"""helixctl run: a plan or a dag on CPU ranks or GPUs."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from helixctl.cli.console import console, progress, table
from helixctl.cli.documents import load_dag
from helixctl.dag.retype import retyped
from helixctl.errors import HelixError, fail
from helixctl.output import check_folder, write_output
from helixctl.units import human_bytes
from helixctl.verify import verify

if TYPE_CHECKING:
    from helixctl.dag import Dag

_DTYPES = ("float16", "bfloat16", "float32", "float64")


@click.command(name="run", short_help="Run a plan or a dag on CPU ranks or GPUs.")
@click.argument("document", metavar="PLAN|DAG")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: what the plan's cluster is made of.")
@click.option("--dtype", type=click.Choice(_DTYPES), help="Default: the model's.")
@click.option("--warmup", type=click.IntRange(min=0), default=100, show_default=True, help="Steps before measuring.")
@click.option("--iters", type=click.IntRange(min=1), default=1000, show_default=True, help="Measured steps.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights and input that come from no file.")
@click.option("--check", is_flag=True, help="Compare the output with the unpartitioned float64 reference.")
@click.option("--timeout", type=click.FloatRange(1, 86400), default=60, show_default=True, metavar="SECONDS")
@click.option("--weights", metavar="FILE", help="Weights, safetensors, names as in docs/formats.md.")
@click.option("--input", "inputs", metavar="FILE", help="The tensor 'input', safetensors.")
@click.option("--output", metavar="FILE", help="Write the tensor 'output', safetensors.")
@click.option("--report", "report_path", metavar="FILE", help="Write the measurements as JSON; - is standard output.")
@click.option("--log-dir", type=click.Path(file_okay=False, path_type=Path), help="Keep the ranks' logs here.")
@click.option("--dry-run", is_flag=True, help="Say what would run; start nothing.")
def command(
    document: str,
    *,
    device: Literal["cpu", "cuda"] | None,
    dtype: Any,
    warmup: int,
    iters: int,
    seed: int,
    check: bool,
    timeout: float,
    weights: str | None,
    inputs: str | None,
    output: str | None,
    report_path: str | None,
    log_dir: Path | None,
    dry_run: bool,
) -> int:
    """Run PLAN or DAG, one rank per device.

    Under torchrun or srun this process is one rank; otherwise it starts the ranks itself. The document is proved
    before anything starts. Weights and input are seeded unless files are given.
    """
    if not timeout >= 1:
        raise click.BadParameter("not a number of seconds", param_hint="--timeout")
    if output == "-":
        raise click.BadParameter("safetensors need a file", param_hint="--output")
    dag = load_dag(document)
    if dtype:
        dag = retyped(dag, dtype)
        if findings := verify(dag):
            raise HelixError(findings)
    device = device or dag.plan.cluster.device.kind
    if dry_run:
        _describe(dag, device)
        return 0
    for path in (output, report_path):
        check_folder(path)
    try:
        from helixctl_runtime import run
    except ModuleNotFoundError as error:
        raise fail(
            "HX501", f"{error.name} is not installed", "in the clone of helixctl: pip install '.[runtime]'"
        ) from error
    options = run.Options(warmup, iters, seed, check, weights, inputs, output)
    ranks = dag.plan.layout.devices
    what = f"{ranks} {device} ranks, {warmup} + {iters} steps"
    with progress(what, warmup + iters) if run.speaks() else nullcontext() as watch:
        result = run.run(dag, options, device=device, timeout=timeout, log_dir=log_dir, watch=watch)
    if result is None:
        return 0  # another process is rank 0 and reports
    if report_path:
        write_output(report_path, json.dumps(result, indent=2) + "\n")
    _print(result, dag, device)
    _verdict(result)
    return 0


def _describe(dag: Dag, device: str) -> None:
    out, groups = console(), {t.ranks for t in dag.tasks if t.is_collective}
    plan = dag.plan
    out.print(f"{plan.model.name}, layout {plan.layout}, {plan.model.dtype}: {plan.layout.devices} ranks on {device}")
    out.print(f"{len(dag.tasks)} tasks proved, {len(dag.order[0])} a step on rank 0, {len(groups)} process groups")
    out.print("nothing was started (--dry-run)")


def _print(result: dict[str, Any], dag: Dag, device: str) -> None:
    out, plan = console(), dag.plan
    ranks = len(result["ranks"])
    where = result["environment"]["gpu" if device == "cuda" else "processor"]
    cpus = "" if device == "cuda" else f" sharing {result['environment']['cpus']} cores"
    out.print(f"{plan.model.name}, layout {plan.layout}, {plan.model.dtype}: {ranks} {device} ranks{cpus} ({where})")
    out.print(f"attention kernel: {', '.join(result['attention_kernels'])} (torch SDPA)")
    out.print()
    step = result["step_time_ms"]
    rows = table("measured", ">value")
    rows.add_row("tokens/s", f"{result['tokens_per_s']:,.1f}")
    rows.add_row("step time, mean", f"{step['mean']:.3f} ms")
    rows.add_row("step time, p50 / p90 / p99", f"{step['p50']:.3f} / {step['p90']:.3f} / {step['p99']:.3f} ms")
    rows.add_row("sync + comm overhead per token (the paper's TPOT)", f"{result['sync_overhead_per_token_ms']:.3f} ms")
    rows.add_row("memory per rank: weights + buffers, largest", human_bytes(_largest(result)))
    out.print(rows)
    out.print()
    moved = table("level", ">tasks", ">received per rank", ">all ranks")
    for level in result["levels"]:
        moved.add_row(
            level["level"],
            str(level["tasks"]),
            human_bytes(level["received_nbytes_per_rank"]),
            human_bytes(level["received_nbytes"]),
        )
    out.print(moved)
    out.print()
    out.print(f"{step['n']} steps after {result['warmup']} for warm-up")


def _largest(result: dict[str, Any]) -> int:
    return max(int(r["weight_nbytes"] + r["buffer_nbytes"]) for r in result["ranks"])


def _verdict(result: dict[str, Any]) -> None:
    check = result["check"]
    if check is None:
        return
    error, plain, tolerance = (_error(check[key]) for key in ("error", "unpartitioned_error", "tolerance"))
    numbers = f"relative error {error} against float64; unpartitioned {result['dtype']}: {plain}; tolerated {tolerance}"
    if check["passed"]:
        console().print(f"check passed: {numbers}")
    elif check["unpartitioned_error"] is None:
        raise fail("HX506", f"the model's own output is not finite: {numbers}", "look for NaN in the weights and input")
    else:
        raise fail("HX506", numbers, "the plan was proved: please report this with the plan and the report")


def _error(number: float | None) -> str:
    return "not finite" if number is None else f"{number:.3g}"
