"""helixctl calibrate: measure this machine, write the cluster file that says what was found."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import click
import yaml

import helixctl
from helixctl.cli.console import answers, table, wrote
from helixctl.cli.notes import warn_of_slips
from helixctl.cli.outputs import Output, check_outputs, force_option
from helixctl.cli.schema_comment import schema_comment
from helixctl.cli.watching import StepsWatched, progress
from helixctl.errors import fail
from helixctl.output import write_output
from helixctl.spec import ClusterSpec, Dtype
from helixctl.spec.calibration import CalibrationSpec, CollectiveTable
from helixctl.spec.load import load_cluster
from helixctl.spec.slips import slips
from helixctl.units import counted, human_bytes, human_flops, human_seconds

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN: Final = (2**10, 2**20)


@click.command(name="calibrate", short_help="Measure this machine for the predictions.")
@click.option("-o", "--output", required=True, metavar="FILE", help="Write the cluster file; - is standard output.")
@click.option("--cluster", metavar="BASE", help="A cluster file, or a name; what is not measured is taken from it.")
@click.option("--ranks", type=click.IntRange(1, 1024), metavar="N", help="Default: BASE's devices per host, all, or 4.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: what BASE is made of, else cpu.")
@click.option("--dtype", "dtypes", type=click.Choice(get_args(Dtype)), multiple=True, help="Repeatable.")
@click.option("--quick", is_flag=True, help="A few sizes, a few seconds, rough numbers.")
@force_option
@click.option("--timeout", type=click.FloatRange(1, 86400), default=60, show_default=True, metavar="SECONDS")
def command(
    *,
    output: str,
    cluster: str | None,
    ranks: int | None,
    device: Literal["cpu", "cuda"] | None,
    dtypes: tuple[Any, ...],
    quick: bool,
    force: bool,
    timeout: float,
) -> None:
    """Measure matrix products, attention, elementwise work, memory and collectives on N ranks of this machine.

    All ranks measure at the same time, because that is how they run: calibrate with as many ranks as will share the
    machine, and with nothing else running on it. Under torchrun or srun this process is one rank, and collectives are
    measured inside each host; the link between hosts stays as BASE has it. Without --dtype: float32 on cpu, float16
    and bfloat16 on cuda.
    """
    if not timeout >= 1:
        raise click.BadParameter("not a number of seconds", param_hint="--timeout")
    check_outputs([Output("-o", output, "cluster file")], [cluster], force=force)
    base = load_cluster(cluster) if cluster else None
    if base and base.differs:
        raise click.BadParameter(
            f"hosts of {cluster} differ: calibrate each kind by itself, and put its rates under hosts in the file",
            param_hint="--cluster",
        )
    if base and device and device != base.device_kind:
        raise click.BadParameter(f"{cluster} is made of {base.device_kind} devices", param_hint="--device")
    device = device or (base.device_kind if base else "cpu")
    try:
        from helixctl_runtime.calibrate import run
    except ModuleNotFoundError as error:
        raise fail(
            "HX501", f"{error.name} is not installed", "in the clone of helixctl: pip install '.[runtime]'"
        ) from error
    if base and cluster and run.prints_output():
        warn_of_slips(slips(base), cluster)
    request = run.Request.of(device, ranks=ranks, dtypes=dtypes, base=base, quick=quick)
    what = f"{counted(len(request.names), 'measurement')} on {counted(request.ranks, f'{device.upper()} rank')}"
    watching = partial(StepsWatched, what, len(request.names))
    shown = progress(what, watching, live=run.starts_ranks()) if run.prints_output() else nullcontext()
    with shown as watch:
        found = run.calibrate(request, base, timeout=timeout, on_progress=watch)
    if found is None:
        return  # another process is rank 0 and writes
    write_output(output, _text(found, output))
    if found.calibration:
        _print(answers(output), found, found.calibration)
    wrote(output, f"cluster {found.name}")


def _text(cluster: ClusterSpec, output: str) -> str:
    lines = [*schema_comment(output), f"# Written by helixctl calibrate, helixctl {helixctl.__version__}."]
    data = cluster.model_dump(mode="json", exclude_none=True)
    # No line is cut: a cut could come between a number and its unit.
    return "\n".join(lines) + "\n" + yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=math.inf)


def _print(out: Console, cluster: ClusterSpec, calibration: CalibrationSpec) -> None:
    out.print(calibration.source)
    out.print()
    hosts = cluster.only
    per = "per core" if hosts.cores_per_host else "per device"
    rows = table("measured", ">value")
    for dtype in calibration.matmul:
        rows.add_row(f"best matrix product, {dtype}, {per}", f"{human_flops(hosts.device.peak[dtype])}/s")
    rows.add_row(f"memory bandwidth, {per}", f"{human_bytes(hosts.device.memory_bandwidth)}/s")
    rows.add_row("start of a task", human_seconds(calibration.task_overhead))
    for collective in _widest(calibration):
        for size in _SHOWN:
            place = min(range(len(collective.nbytes)), key=lambda i: abs(collective.nbytes[i] - size))
            name = f"{collective.kind} of {collective.ranks} ranks, {human_bytes(collective.nbytes[place])}"
            rows.add_row(name, human_seconds(collective.seconds[place]))
    if hosts.cores_per_host:
        rows.add_row("load of a rank in a collective", f"{calibration.collective_load:.2f} cores")
    out.print(rows)
    out.print()


def _widest(calibration: CalibrationSpec) -> list[CollectiveTable]:
    """The tables of all ranks of a host."""
    tables = [t for t in calibration.collectives if t.kind in ("all_gather", "all_reduce")]
    return [t for t in tables if t.ranks == max(u.ranks for u in tables)]
