"""What ``simulate --against`` prints: a prediction beside what a run measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helixctl.cli.console import table
from helixctl.cli.tables import Column
from helixctl.simulate.against import Comparison, Pair

if TYPE_CHECKING:
    from rich.console import Console


def print_comparison(out: Console, found: Comparison) -> None:
    """Print the step, and kind of task by kind, of both."""
    out.print()
    rows = table("", ">predicted", ">measured", ">predicted / measured")
    for name, pair in (
        ("step time, mean, ms", found.step_time_ms),
        ("tokens/s", found.tokens_per_s),
        ("sync + comm overhead per token (the paper's TPOT), ms", found.sync_overhead_per_token_ms),
    ):
        rows.add_row(name, _number(pair.predicted), _number(pair.measured), _number(pair.ratio))
    out.print(rows)
    out.print()
    if found.kinds is None:
        out.print("the report has no times by kind of task: a run with this version of helixctl gives them")
        return
    rows = table(
        "level",
        "kind",
        ">predicted ms",
        ">measured ms",
        ">ratio",
        Column("exposed: predicted ms", right=True, drop=1),
        Column("measured ms", right=True, drop=1),
    )
    for kind in found.kinds:
        busy, exposed = kind.busy_ms, kind.exposed_ms if kind.lane == "communication" else Pair(None, None)
        numbers = (busy.predicted, busy.measured, busy.ratio, exposed.predicted, exposed.measured)
        rows.add_row(kind.level, kind.kind, *(_number(n) for n in numbers))
    out.print(rows)
    out.print("ms per step, means over the ranks; of a collective from its issue to its end")


def _number(number: float | None) -> str:
    return "-" if number is None else f"{number:,.4g}" if number < 1e4 else f"{number:,.0f}"  # noqa: PLR2004
