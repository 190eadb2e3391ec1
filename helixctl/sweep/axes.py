"""The axes of a sweep's plots: what they show, from where to where, and where on them a point stands."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from helixctl.sweep.columns import tokens_of
from helixctl.sweep.document import Sweep

Row = dict[str, Any]
Swept = Literal["batch", "input_len", "devices"]
_ROOM: Final = 1.35  # beside the outermost points of a logarithmic axis, as a factor


@dataclass(frozen=True)
class Axis:
    """An axis of numbers.

    Attributes:
        field: of the rows.
        title: what it shows, with its unit.
        low, high: its ends.
        log: whether it is logarithmic.
    """

    field: str
    title: str
    low: float
    high: float
    log: bool = True

    @property
    def encoding(self) -> Row:
        """As Vega-Lite has it."""
        scale = {"type": "log", "domain": [self.low, self.high]} if self.log else {"domain": [self.low, self.high]}
        ticks = {"axis": {"tickCount": 8}} if self.log else {}
        return {"field": self.field, "type": "quantitative", "title": self.title, "scale": scale, **ticks}

    def share(self, row: Row) -> float:
        """Where a row stands, from 0, the low end, to 1."""
        low, high, value = self.low, self.high, row[self.field]
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return float((value - low) / (high - low))


def speed(sweep: Sweep, rows: Iterable[Row], limits: Iterable[float]) -> Axis:
    """What a user gets: tokens per second, from 0; of one pass the seconds of a step.

    Args:
        sweep: whose points are shown.
        rows: those with figures.
        limits: tokens per second that are shown too.
    """
    if sweep.output_len is None:
        return _logarithmic("step", "step time, seconds", rows)
    most = max([*(row["user"] for row in rows), *limits], default=1.0)
    return Axis("user", "tokens/s of a user", 0, 1.12 * most, log=False)


def rate(rows: Iterable[Row]) -> Axis:
    """What a device gives."""
    return _logarithmic("device", "tokens/s of a device", rows)


def swept(rows: Iterable[Row]) -> tuple[Swept, Swept]:
    """What lines go along: batches where there are several, else lengths; and what of both they are told apart by."""
    several = [len({row[name] for row in rows}) > 1 for name in ("batch", "input_len", "devices")]
    if several[0]:
        return "batch", "input_len"
    if several[1]:
        return "input_len", "batch"
    return ("devices" if several[2] else "batch"), "input_len"


def along(sweep: Sweep, name: Swept) -> Row:
    """The axis of what is swept, in powers of two; of devices with each number that there is."""
    scale = {"type": "log", "base": 2}
    axis = {"values": sorted({point.devices for point in sweep.points})} if name == "devices" else {}
    return {"field": name, "type": "quantitative", "title": title_of(sweep, name), "scale": scale, "axis": axis}


def title_of(sweep: Sweep, name: Swept) -> str:
    """What a number of a grid is."""
    return f"tokens of a {tokens_of(sweep)}" if name == "input_len" else name


def _logarithmic(field: str, title: str, rows: Iterable[Row]) -> Axis:
    each = [row[field] for row in rows]
    return Axis(field, title, min(each, default=1.0) / _ROOM, max(each, default=10.0) * _ROOM)
