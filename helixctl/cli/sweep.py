"""helixctl sweep: a model planned for many batches, prompt lengths and numbers of devices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from helixctl.cli.console import answers, wrote
from helixctl.cli.notes import warn_of_slips
from helixctl.cli.option_groups import grouped
from helixctl.cli.outputs import Output, check_outputs, force_option
from helixctl.cli.replaced import Kind
from helixctl.cli.sweep_progress import watched
from helixctl.cli.sweep_table import print_sweep
from helixctl.cli.times import Time
from helixctl.output import write_output
from helixctl.solve import OBJECTIVES, Objective, parse_constraints
from helixctl.solve.limits import Limits
from helixctl.spec.load import Loaded, load_pair
from helixctl.spec.slips import slips
from helixctl.sweep import Grid, Sweep, Wanted, sweep
from helixctl.sweep.csv_text import csv_text
from helixctl.sweep.parts import part_of
from helixctl.sweep.points import Given
from helixctl.sweep.progressions import numbers
from helixctl.units import counted, human_bytes

if TYPE_CHECKING:
    from click import Context, Parameter

_MOST: Final = 10_000  # points: hours
_KINDS: Final[dict[str, Kind]] = {".html": "page of a sweep", ".png": "plot of a sweep"}


class _Numbers(click.ParamType[tuple[int, ...]]):
    """A list of numbers, ``1,2,4,...,256``."""

    name = "LIST"

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return numbers(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


_GROUPS: Final = {
    "Points": ("--batch", "--input-len", "--output-len", "--devices"),
    "Layouts": ("--objective", "--max-ttft", "--max-tpot", "--layout", "--plain"),
    "Files": ("--json", "--csv", "--output", "--force"),
}


@click.command(
    name="sweep",
    cls=grouped(_GROUPS),
    short_help="Plan a model for many batches.",
)
@click.argument("model")
@click.argument("cluster")
@click.option("--batch", "--concurrency", "batches", type=_Numbers(), required=True, help="Sequences: 1,2,4,...,256.")
@click.option(
    "--input-len",
    "--seq-len",
    "--isl",
    "input_lens",
    type=_Numbers(),
    help="Tokens of a prompt: one length, or several.",
)
@click.option("--output-len", "--osl", type=click.IntRange(min=1), metavar="N", help="Tokens generated after each.")
@click.option(
    "--devices", type=_Numbers(), help="Parts of CLUSTER: 1,2,4,8,16; beyond a host whole hosts. Default: all of it."
)
@click.option("--layout", "axes", metavar="AXIS=VALUE,...", help="Fix axes of every layout; the rest is searched.")
@click.option("--plain", is_flag=True, help="Search n x m alone: every other axis that is not fixed keeps its default.")
@click.option("--objective", type=click.Choice(OBJECTIVES), default="throughput", show_default=True)
@click.option("--max-ttft", type=Time(), help="First tokens after at most this, such as 500ms.")
@click.option("--max-tpot", type=Time(), help="At most this from token to token, such as 30ms.")
@click.option("--set", "sets", multiple=True, metavar="FIELD=VALUE", help="Override any field of a spec. Repeatable.")
@click.option("--json", "json_path", metavar="FILE", help="Write all figures as JSON; - is standard output.")
@click.option("--csv", "csv_path", metavar="FILE", help="Write a row for every point; - is standard output.")
@click.option(
    "-o",
    "--output",
    "plots",
    multiple=True,
    metavar="FILE",
    help="Write the plots: an interactive page (.html), or a picture (.png). Repeatable.",
)
@force_option
@click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
def command(
    model: str,
    cluster: str,
    *,
    batches: tuple[int, ...],
    input_lens: tuple[int, ...] | None,
    output_len: int | None,
    devices: tuple[int, ...] | None,
    axes: str | None,
    plain: bool,
    objective: Objective,
    max_ttft: float | None,
    max_tpot: float | None,
    sets: tuple[str, ...],
    json_path: str | None,
    csv_path: str | None,
    plots: tuple[str, ...],
    force: bool,
    quiet: bool,
) -> None:
    """Plan MODEL on CLUSTER for every batch, number of devices and prompt length.

    Each point is planned as helixctl plan plans it, and predicted, not measured: tokens per second of a user and of a
    device, time to first token, memory. A point that does not fit is a row that says why. A * marks the Pareto front:
    the points that no other beats in both rates.

    Lists are numbers with commas; ... goes on in equal steps (8,16,24,...,64) or by equal factors (1,2,4,...,256).
    With --max-ttft and --max-tpot the layout of a point keeps within them; where none does, the row is of the layout
    that comes nearest, and says so.
    """
    outputs = [Output("--json", json_path, "data of a sweep"), Output("--csv", csv_path, "table of a sweep")]
    outputs += [Output("-o", path, _kind(path)) for path in plots]
    check_outputs(outputs, (model, cluster), force=force)
    if plots:
        from helixctl.sweep.picture import drawing_library

        drawing_library()  # before minutes of planning
    loaded = _loaded(model, cluster, sets, max(batches), max(input_lens or (0,)), output_len)
    grid = Grid(batches, devices or (loaded.cluster.devices,), input_lens or (loaded.model.workload.seq_len,))
    _check_grid(grid, loaded)
    doubtful = tuple(slips(loaded.cluster))
    if not quiet:
        warn_of_slips(doubtful, cluster)
    limits = Limits(max_ttft, max_tpot)
    wanted = Wanted(objective, parse_constraints(axes) if axes else {}, plain, limits)
    given = Given(model, cluster, sets, (*doubtful, *loaded.notes))
    with watched(len(grid), quiet=quiet) as watch:
        found = sweep(loaded.model, loaded.cluster, grid, wanted, given, watch)
    if not quiet:
        print_sweep(answers(json_path, csv_path, *plots), found, loaded)
    _write(found, json_path, csv_path, plots, quiet=quiet)


def _kind(path: str) -> Kind:
    """What a plot's file will hold, by the end of its name."""
    end = Path(path).suffix.lower()
    if end not in _KINDS:
        raise click.BadParameter(f"{path!r}: end the name with .html or .png", param_hint="-o")
    return _KINDS[end]


def _loaded(
    model: str, cluster: str, sets: Sequence[str], batch: int, input_len: int, output_len: int | None
) -> Loaded:
    """Both specs, with the largest workload of the sweep."""
    given = (("batch", batch), ("seq_len", input_len or None), ("output_len", output_len))
    loaded = load_pair(model, cluster, (*sets, *(f"workload.{key}={value}" for key, value in given if value)))
    if loaded.model.workload.output_len is None:
        raise click.UsageError("a sweep is of a generation; give --output-len N, the tokens after each prompt")
    return loaded


def _check_grid(grid: Grid, loaded: Loaded) -> None:
    if len(grid) > _MOST:
        raise click.UsageError(f"{len(grid):,} points: a sweep has up to {_MOST:,}; leave some numbers out")
    for devices in grid.devices:
        try:
            part_of(loaded.cluster, devices)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--devices") from error


def _write(found: Sweep, json_path: str | None, csv_path: str | None, plots: Sequence[str], *, quiet: bool) -> None:
    made: list[tuple[str, str | bytes]] = []
    if json_path:
        made.append((json_path, found.to_json()))
    if csv_path:
        made.append((csv_path, csv_text(found)))
    for path in plots:
        from helixctl.sweep.page import html
        from helixctl.sweep.picture import png

        made.append((path, html(found) if _kind(path) == "page of a sweep" else png(found)))
    count = counted(len(found.points), "point")
    for path, data in made:
        write_output(path, data)
        if not quiet:
            wrote(path, f"{count}, {human_bytes(len(data.encode() if isinstance(data, str) else data))}")
