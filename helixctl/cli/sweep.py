"""helixctl sweep: a model planned for many batches, lengths and numbers of devices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from helixctl.api import make_sweep
from helixctl.cli.console import answers, wrote
from helixctl.cli.notes import warn_of_slips
from helixctl.cli.option_groups import grouped
from helixctl.cli.outputs import Output, check_outputs, force_option
from helixctl.cli.replaced import Kind
from helixctl.cli.search_options import refuse_of_a_generation, search_options, specs
from helixctl.cli.sweep_progress import watched
from helixctl.cli.sweep_table import print_sweep
from helixctl.output import write_output
from helixctl.solve import Objective
from helixctl.spec.load import Loaded, load_pair
from helixctl.spec.slips import slips
from helixctl.sweep import Grid, Sweep
from helixctl.sweep.csv_text import csv_text
from helixctl.sweep.parts import part_of
from helixctl.sweep.points import grid_of
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
    "Points": ("--batch", "--seq-len", "--output-len", "--devices"),
    "Layouts": ("--layout", "--plain"),
    "What is best": ("--objective", "--max-ttft", "--max-tpot"),
    "Specs": ("--set",),
    "Files": ("--json", "--csv", "--output", "--force"),
}


@click.command(
    name="sweep",
    cls=grouped(_GROUPS),
    short_help="Plan a model for many batches, lengths and numbers of devices.",
)
@specs
@click.option(
    "--batch",
    "--concurrency",
    "batches",
    type=_Numbers(),
    help="Sequences: 1,2,4,...,256. Default: those of MODEL.",
)
@click.option(
    "--seq-len",
    "--input-len",
    "--isl",
    "lengths",
    type=_Numbers(),
    help="Tokens of a sequence, or of its prompt: one length, or several.",
)
@click.option(
    "--output-len",
    "--osl",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tokens generated after each sequence; without, every point is one pass.",
)
@click.option(
    "--devices", type=_Numbers(), help="Parts of CLUSTER: 1,2,4,8,16; beyond a host whole hosts. Default: all of it."
)
@search_options
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
    batches: tuple[int, ...] | None,
    lengths: tuple[int, ...] | None,
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
    """Plan MODEL on CLUSTER for every batch, length and number of devices.

    Each point is planned as helixctl plan plans it, and predicted, not measured. With --output-len it is a generation:
    tokens per second of a user and of a device, time to first token, memory. Without, it is one pass: step time, tokens
    per second of a device. A point that does not fit is a row that says why. A * marks the Pareto front: the points
    that no other beats in both.

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
    loaded = _loaded(model, cluster, sets, batches, lengths, output_len)
    refuse_of_a_generation(objective, max_ttft, max_tpot, loaded.model.workload.output_len)
    grid = grid_of(loaded.model, loaded.cluster, batches, lengths, devices)
    _check_grid(grid, loaded)
    doubtful = tuple(slips(loaded.cluster))
    if not quiet:
        warn_of_slips(doubtful, cluster)
    with watched(len(grid), quiet=quiet) as watch:
        made = make_sweep(
            loaded.model,
            loaded.cluster,
            batches=grid.batches,
            lengths=grid.input_lens,
            devices=grid.devices,
            layout=axes,
            objective=objective,
            plain=plain,
            max_ttft_s=max_ttft,
            max_tpot_s=max_tpot,
            watch=watch,
        )
    found = made.of(model, cluster, sets, (*doubtful, *loaded.notes))
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
    model: str,
    cluster: str,
    sets: Sequence[str],
    batches: Sequence[int] | None,
    lengths: Sequence[int] | None,
    output_len: int | None,
) -> Loaded:
    """Both specs, with the largest workload of the sweep."""
    most = [None if numbers is None else max(numbers) for numbers in (batches, lengths)]
    given = (("batch", most[0]), ("seq_len", most[1]), ("output_len", output_len))
    return load_pair(model, cluster, (*sets, *(f"workload.{key}={value}" for key, value in given if value)))


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
