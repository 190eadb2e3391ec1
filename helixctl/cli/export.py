"""``helixctl export``: a plan as another program takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from helixctl.cli.console import tell, wrote
from helixctl.cli.outputs import Output, check_outputs, force_option
from helixctl.cli.replaced import Kind
from helixctl.errors import Diagnostic, HelixError
from helixctl.output import write_output
from helixctl.spec import StepName
from helixctl.units import counted, human_bytes

if TYPE_CHECKING:
    from helixctl.export.engine import Engine
    from helixctl.plan import Plan
    from helixctl.solve import Objective

_ENGINES: Final = ("vllm", "sglang", "tensorrt-llm", "megatron", "torchtitan")
_JOBS: Final = ("slurm", "k8s")
_TARGETS: Final = (*_ENGINES, "chakra", *_JOBS)
# Options that only some targets have.
_OWN: Final = {
    "--model": _ENGINES,
    "--nearest": _ENGINES,
    "--objective": _ENGINES,
    "--step": ("chakra",),
    "--image": ("k8s",),
    "--claim": ("k8s",),
    "options of helixctl run": _JOBS,
}
_TEXT: Final[Kind] = "launch file"


@click.command(name="export", short_help="Write a plan as engines, job schedulers and simulators take it.")
@click.argument("source", metavar="PLAN", type=click.Path())
@click.argument("run_options", metavar="[-- RUN OPTIONS]...", nargs=-1, type=click.UNPROCESSED)
@click.option("--to", "target", required=True, type=click.Choice(_TARGETS), help="What takes it.")
@click.option(
    "-o", "--output", metavar="FILE", help="Where to write; default: - (standard output). Of chakra: FILE.RANK.et."
)
@click.option("--model", metavar="NAME", help="What the engine loads: a folder or a name; default: the plan's model.")
@click.option("--nearest", is_flag=True, help="Where the engine cannot run the layout, write the best that it can run.")
@click.option(
    "--objective",
    type=click.Choice(("throughput", "latency", "ttft", "tpot", "memory")),
    help="What the best is; default: throughput.",
)
@click.option("--step", type=click.Choice(("prefill", "decode")), help="Of a plan with steps; default: decode.")
@click.option("--image", metavar="IMAGE", help="The container image that has helixctl.")
@click.option("--claim", metavar="NAME", help="The volume claim that has the plan, mounted at /data; default: data.")
@force_option
def command(
    source: str,
    *,
    run_options: tuple[str, ...],
    target: str,
    output: str | None,
    model: str | None,
    nearest: bool,
    objective: Objective | None,
    step: StepName | None,
    image: str | None,
    claim: str | None,
    force: bool,
) -> None:
    """Write a PLAN as another program takes it.

    vllm, sglang and tensorrt-llm: the command that serves the model in this layout. megatron and torchtitan: the
    command that trains it so. chakra: execution traces of a step with predicted times, a file for every rank, and one
    of the process groups. slurm and k8s: a job that does `helixctl run` on the plan's cluster, with the options
    behind --.

    An engine that cannot run the layout is refused with the reason (HX601), and the best layout that it can run is
    named; --nearest writes that.
    """
    given = (model, nearest, objective, step, image, claim, run_options)
    for (option, targets), value in zip(_OWN.items(), given, strict=True):
        if value and target not in targets:
            raise click.UsageError(f"{option}: not with --to {target}, but with {', '.join(targets)}")
    if target == "chakra":
        if output in {None, "-"}:
            raise click.UsageError("--to chakra writes several files: add -o NAME, for NAME.0.et and so on")
        _write_chakra(source, str(output), step, force=force)
        return
    output = output or "-"
    check_outputs([Output("-o", output, _TEXT)], [source], force=force)
    plan = _plan(source)
    if target in _JOBS:
        text = _job(plan, source, target, run_options, image, claim or "data")
    else:
        text = _engine(plan, source, target, model, objective or "throughput", nearest=nearest)
    write_output(output, text)
    wrote(output, f"for {target}, {human_bytes(len(text.encode()))}")


def _plan(source: str) -> Plan:
    """The plan of a file, proved; a dag's is its own.

    Raises:
        HelixError: as ``load_planned``.
    """
    from helixctl.cli.documents import load_planned
    from helixctl.dag import Dag

    planned = load_planned(source)
    return planned.plan if isinstance(planned, Dag) else planned


def _job(plan: Plan, source: str, target: str, options: tuple[str, ...], image: str | None, claim: str) -> str:
    from helixctl.export.engine import equal_hosts
    from helixctl.export.jobs import kubernetes_job, slurm_script

    if plan.cluster.differs:
        hint = "start the ranks by hand, host by host (docs/running.md); helixctl run takes them as torchrun does"
        raise HelixError(Diagnostic("HX601", f"{target} needs {equal_hosts(plan.cluster)}", hint, source))
    if source == "-":
        raise click.UsageError(f"--to {target} names the file of the plan: give it a name")
    if target == "slurm":
        return slurm_script(plan, source, options)
    if image is None:
        raise click.UsageError("--to k8s needs --image IMAGE, which has helixctl with the extra runtime")
    return kubernetes_job(plan, source, options, image, claim)


def _engine(plan: Plan, source: str, target: str, model: str | None, objective: Objective, *, nearest: bool) -> str:
    """What an engine takes.

    Raises:
        HelixError: HX601, the engine cannot run the layout, and ``nearest`` is not set or there is none.
        click.UsageError: the objective is of a generation, and the plan's workload is none.
    """
    from helixctl.export.engine import specs_of
    from helixctl.export.engines import ENGINES
    from helixctl.export.nearest import nearest as find
    from helixctl.export.refusal import cannot_run

    if objective in {"ttft", "tpot"} and plan.workload.output_len is None:
        raise click.UsageError(f"--objective {objective} is of a generation: the plan has no output_len")
    engine = ENGINES[target]
    if unmet := engine.unmet(plan.layout, specs_of(plan)):
        found = find(engine, plan, objective)
        if found is None or not nearest:
            raise cannot_run(engine, plan, unmet, found, source)
        for text in unmet:
            tell(f"note: {engine.name} needs {text}")
        tell(f"note: written is the best that it can run: {found.plan.layout}, {found.beside}")
        plan = found.plan
    _say_ways(engine, plan, objective)
    return engine.write(plan, model or plan.model.name)


def _say_ways(engine: Engine, plan: Plan, objective: Objective) -> None:
    """Say what the engine decides for itself, where that is another thing than the plan has."""
    from helixctl.export.nearest import beside

    run = engine.as_run(plan.layout)
    if run != plan.layout:
        compared = beside(plan, run, objective)
        tell(f"note: {engine.name} runs this as {run}; beside the plan predicted: {compared}")


def _write_chakra(source: str, prefix: str, step: StepName | None, *, force: bool) -> None:
    """Write the traces of all ranks, and the process groups."""
    from helixctl.cli.documents import load_planned, step_of, whole_dag
    from helixctl.dag import Dag
    from helixctl.export.chakra import groups_json, process_groups, traces
    from helixctl.simulate import simulate

    planned = load_planned(source)
    step = step_of(planned, step, source)
    devices = (planned.plan if isinstance(planned, Dag) else planned).layout.devices
    paths = [f"{prefix}.{rank}.et" for rank in range(devices)]
    groups = f"{prefix}.groups.json"
    outputs = [Output("-o", path, "trace of Chakra") for path in paths]
    outputs.append(Output("-o", groups, "file of process groups"))
    check_outputs(outputs, [source], force=force)
    dag = planned if isinstance(planned, Dag) else whole_dag(planned, source, step)
    size = 0
    for path, data in zip(paths, traces(simulate(dag)), strict=True):
        write_output(path, data)
        size += len(data)
    found = process_groups(dag)
    write_output(groups, groups_json(found))
    every = paths[0] if len(paths) == 1 else f"{paths[0]} to {paths[-1]}"
    wrote(
        f"{every} and {groups}",
        f"{counted(len(paths), 'trace')}, {human_bytes(size)}, of {counted(len(found), 'process group')}",
    )
