"""A sweep on the terminal: a row for every point, then why some have no figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from helixctl.cli.answer import devices
from helixctl.cli.console import table
from helixctl.cli.tables import Column
from helixctl.cost.tasks import foundation
from helixctl.spec.load import Loaded
from helixctl.sweep import Point, Sweep
from helixctl.sweep.columns import figures_of, tokens_of
from helixctl.sweep.parts import part_of
from helixctl.units import counted, human_seconds

if TYPE_CHECKING:
    from rich.console import Console


def print_sweep(out: Console, sweep: Sweep, loaded: Loaded) -> None:
    """Print all of it.

    Args:
        out: where to.
        sweep: what was planned.
        loaded: the specs that it was planned from.
    """
    part = part_of(loaded.cluster, max(p.devices for p in sweep.points))
    most, front = devices(part), sum(p.on_front for p in sweep.points)
    fitting = sum(not _is_refused(p) for p in sweep.points)
    lengths = sorted({p.input_len for p in sweep.points})
    out.print(
        f"{sweep.model.name} on up to {most}: {fitting} of {counted(len(sweep.points), 'point')} fit, {front} on the "
        f"Pareto front; {_work(sweep, lengths)}"
    )
    for note in sweep.notes:
        out.print(f"note: {note}")
    out.print()
    out.print(_table(sweep, several=len(lengths) > 1))
    out.print()
    for line in without_figures(sweep.points):
        out.print(line)
    of = "a shorter step" if sweep.output_len is None else "more tokens/s of a user"
    out.print(f"* Pareto front: no other point has {of} and as many tokens/s of a device, or the other way")
    batch = "a static batch, without a queue" if sweep.output_len else "no KV cache"
    out.print(f"every point is what helixctl plan gives for it, {_asked(sweep)}; {batch}")
    out.print(f"predicted from {foundation(loaded.model.model, loaded.cluster)}, not measured (--json: sources)")


def _work(sweep: Sweep, lengths: Sequence[int]) -> str:
    """What every point computes."""
    tokens = " or ".join(f"{length:,}" for length in lengths)
    if sweep.output_len is None:
        return f"one pass over sequences of {tokens} tokens, {sweep.model.dtype}"
    return f"prompts of {tokens} tokens, {sweep.output_len:,} generated after each, {sweep.model.dtype}"


def _asked(sweep: Sweep) -> str:
    limits = sweep.limits
    texts = [f"--objective {sweep.objective}"]
    for option, seconds in (("--max-ttft", limits.max_ttft_s), ("--max-tpot", limits.max_tpot_s)):
        if seconds is not None:
            texts.append(f"{option} {human_seconds(seconds)}")
    return ", ".join(texts)


def _table(sweep: Sweep, *, several: bool) -> object:
    """The rows; ``several``: lengths, so that they have a column."""
    first = [f">{tokens_of(sweep)}"] if several else []
    shown = figures_of(sweep)
    layout = Column("layout", fold=1, least=16)
    figures = [Column(figure.short, right=True, drop=figure.drop) for figure in shown]
    made = table("", *first, ">batch", ">devices", layout, *figures)
    for point in sweep.points:
        place = [f"{point.input_len:,}"] if several else []
        mark = "*" if point.on_front else "!" if point.state == "over_limit" else ""
        style = "bold" if point.on_front else None
        cells = [figure.text(point) for figure in shown]
        if _is_refused(point):
            cells = ["-"] * len(shown)
        made.add_row(mark, *place, f"{point.batch:,}", f"{point.devices:,}", _layout(point), *cells, style=style)
    return made


def _layout(point: Point) -> str:
    if _is_refused(point):
        return "does not fit" if point.code == "HX203" else "no layout"
    return point.terms or ""


def without_figures(points: Iterable[Point]) -> list[str]:
    """Why points are refused or over a limit: a line for each number of devices, with the reason of the first."""
    found: dict[tuple[int, int, str | None], list[Point]] = {}
    for point in points:
        if point.state != "planned":
            code = point.code if _is_refused(point) else None
            found.setdefault((point.input_len, point.devices, code), []).append(point)
    return [_why(its) for its in found.values()]


def _is_refused(point: Point) -> bool:
    return point.state == "refused"


def _why(points: list[Point]) -> str:
    first = points[0]
    batches = ", ".join(f"{p.batch:,}" for p in points)
    devices = counted(first.devices, "device")
    one = f" (batch {first.batch:,})" if len(points) > 1 else ""
    if not _is_refused(first):
        return f"! batch {batches} on {devices}: over the limit, the nearest is shown; {first.reason}{one}"
    return f"batch {batches} on {devices}: {first.code} {first.reason}{one}"
