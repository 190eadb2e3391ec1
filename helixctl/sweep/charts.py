"""The plots of a sweep, as a Vega-Lite specification: plain data, which page and picture show.

https://vega.github.io/vega-lite/docs/ says what each key does. Nothing of it needs the library that draws it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

from helixctl.sweep.axes import Axis, along, rate, speed, swept, title_of
from helixctl.sweep.document import Sweep
from helixctl.sweep.label_places import SIDES, placed
from helixctl.sweep.rows import rows, told
from helixctl.units import human_bytes, human_seconds

Chart = dict[str, Any]

SCHEMA: Final = "https://vega.github.io/schema/vega-lite/v6.json"
# Colours that people with any colour vision tell apart (Okabe and Ito), then darker ones of the same.
PALETTE: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#8B7500", "#004D40",
                  "#7B1FA2")  # fmt: skip
_WIDTH, _HEIGHT = 820, 430  # of the first plot, in pixels
_HALF: Final = 320
_APART: Final = {
    "scale": dict.fromkeys(("color", "fill", "stroke", "shape", "strokeDash"), "independent")
}  # each plot has its own colours and legend
_ON_A_LINE: Final = 12  # points of it that labels keep clear of
_LIMIT: Final = "#B00020"
_FRONT: Final = "#444444"
_INK: Final = "#333333"
_HELD: Final = {"weights": "#4C6A92", "cache": "#8FB3D9", "arenas": "#D9C27E"}
_PLANNED: Final = "datum.state != 'refused'"
_CHOSEN: Final = "chosen"  # the devices that are picked in the legend


def charts(sweep: Sweep) -> Chart:
    """All plots of a sweep: rates, scaling, time to first token, memory."""
    values = rows(sweep)
    several = len({row["devices"] for row in values}) > 1
    beside = [_scaling(sweep, values) if several else _total_rate(sweep, values), _time(sweep, values)]
    return {
        "$schema": SCHEMA,
        "background": "white",
        "title": {"text": title(sweep), "subtitle": subtitles(sweep), "anchor": "start", "fontSize": 16, "offset": 14},
        "datasets": {"points": values},
        "data": {"name": "points"},
        "vconcat": [_rates(sweep, values), {"hconcat": beside, "resolve": _APART}, _memory(sweep, values)],
        "resolve": _APART,
        "config": {
            "axis": {"labelColor": _INK, "titleColor": _INK, "gridColor": "#e6e6e6", "titleFontWeight": "normal"},
            "title": {"color": _INK, "subtitleColor": "#555555", "anchor": "start"},
            "legend": {"labelColor": _INK, "titleColor": _INK, "titleFontWeight": "normal"},
            "view": {"stroke": "#cccccc"},
            "concat": {"spacing": 30},
            "header": {"labelColor": _INK, "titleColor": _INK, "titleFontWeight": "normal", "labelPadding": 2},
            "font": "Helvetica, Arial, Liberation Sans, sans-serif",
        },
    }


def title(sweep: Sweep) -> str:
    """Which model on which cluster."""
    cluster = sweep.cluster
    return f"{sweep.model.name} on {cluster.name} ({cluster.devices} x {cluster.device})"


def subtitles(sweep: Sweep) -> list[str]:
    """The workload, and what the layouts were chosen for."""
    limits = [
        f"{what} at most {human_seconds(seconds)}"
        for what, seconds in (("TTFT", sweep.limits.max_ttft_s), ("time per token", sweep.limits.max_tpot_s))
        if seconds is not None
    ]
    chosen, version = ", ".join([sweep.objective, *limits]), sweep.provenance.helixctl
    return [
        workload(sweep),
        f"Layouts chosen for {chosen}. Predicted by helixctl {version}, not measured",
    ]


def workload(sweep: Sweep) -> str:
    """What every point computes."""
    lengths = " or ".join(f"{length:,}" for length in sorted({p.input_len for p in sweep.points}))
    if sweep.output_len is None:
        return f"One pass over sequences of {lengths} tokens, {sweep.model.dtype}, no KV cache"
    after = f"{sweep.output_len:,} generated after each"
    return f"Prompts of {lengths} tokens, {after}, {sweep.model.dtype}, a static batch"


def _rates(sweep: Sweep, values: list[Chart]) -> Chart:
    """What a device gives against what a user gets, with the Pareto front."""
    drawn = [row for row in values if "user" in row]
    axis, rates = speed(sweep, drawn, _user_limit(sweep)), rate(drawn)
    _place_labels(drawn, axis, rates)
    x, y = axis.encoding, rates.encoding
    at: Chart = {"x": x, "y": y}
    line, apart = swept(values)
    order = {"order": {"field": line}}
    # One layer has the legend, as one that several share does not react. The others have their colours from the rows.
    stroke = {"stroke": {"field": "colour", "type": "nominal", "scale": None}}
    colours = _colours(sweep)
    for row in drawn:
        row["colour"] = colours[row["devices"]]
    lines = stroke | {"detail": {"field": apart}, "opacity": _if_chosen(0.35, 0.05)}
    layers: list[Chart] = [
        _of("datum.front", {"type": "line", "color": _FRONT, "strokeDash": [5, 4], "strokeWidth": 1.2},
            at | {"detail": {"field": "input_len"}, "order": {"field": axis.field}}),
        _of(_PLANNED, {"type": "line", "strokeWidth": 1.5}, at | lines | order),
        _of("datum.state == 'planned'", {"type": "point", "filled": True},
            at | _points(sweep, values) | {"fill": _devices(sweep)})
        | {"params": [_chosen_by_legend(), {"name": "zoom", "select": "interval", "bind": "scales"}]},
        _of("datum.state == 'over_limit'", {"type": "point", "filled": False, "strokeWidth": 1.5},
            at | _points(sweep, values) | stroke),
    ]  # fmt: skip
    for number, side in enumerate(SIDES):
        mark = {"type": "text", "align": side.align, "dx": side.dx, "dy": side.dy, "baseline": "middle", "fontSize": 10}
        label = {"text": {"field": "label"}, "color": {"value": _INK}, "opacity": _if_chosen(1, 0.1)}
        layers.append(_of(f"datum.side === {number}", mark, at | label))
    for user in _user_limit(sweep):
        layers += _limit_at("x", user, f"at most {human_seconds(1 / user)} a token: right of this line", x)
    what = {"batch": "a batch", "input_len": "a length", "devices": "the batch"}[line]
    named = f"layout · {_LABEL[line][1]}"
    said = f"A point is {what} on some devices, in the best layout found. Dashed: the Pareto front, with {named}"
    hollow = " (hollow: over the limit)" if any(row["state"] == "over_limit" for row in values) else ""
    of = "How long a step takes" if sweep.output_len is None else "What a user gets"
    head = {"text": f"{of}, and what a device gives", "subtitle": f"{said}{hollow}"}
    return {"title": head, "width": _WIDTH, "height": _HEIGHT, "layer": layers}


# What a label says of a point beside its layout: the field of its row, and a word for it.
_LABEL: Final[dict[str, tuple[str, str]]] = {
    "batch": ("batch", "batch"),
    "input_len": ("input_len", "tokens"),
    "devices": ("devices", "devices"),
}


def _place_labels(drawn: list[Chart], across: Axis, up: Axis) -> None:
    """Set ``label`` and ``side`` of the rows on the front that have room for a label."""

    def at(row: Chart) -> tuple[float, float]:
        return across.share(row) * _WIDTH, (1 - up.share(row)) * _HEIGHT

    front = sorted((row for row in drawn if row["front"]), key=across.share)
    field = _LABEL[swept(drawn)[0]][0]
    # The ends of the front first, then every second one: where there is no room for all, those left are spread.
    wanted = [*front[:1], *front[:0:-1][:1], *front[1:-1:2], *front[2:-1:2]]
    for row in wanted:
        row["label"] = f"{row['terms']} · {row[field]:,}"
    points = [at(row) for row in drawn]
    # The line of the front is to be seen as well.
    for (x, y), (right, down) in pairwise(at(row) for row in front):
        parts = [n / _ON_A_LINE for n in range(_ON_A_LINE)]
        points += [(x + (right - x) * part, y + (down - y) * part) for part in parts]
    sides = placed([(*at(row), row["label"]) for row in wanted], points, _WIDTH, _HEIGHT)
    for row, side in zip(wanted, sides, strict=True):
        row["side"] = side


def _user_limit(sweep: Sweep) -> list[float]:
    """The least tokens/s of a user that the limit on the time per token leaves; nothing without one."""
    return [1 / sweep.limits.max_tpot_s] if sweep.limits.max_tpot_s else []


def _scaling(sweep: Sweep, values: list[Chart]) -> Chart:
    """Tokens/s of all devices by their number, a line for every batch or length."""
    devices = sorted({row["devices"] for row in values})
    x = {"field": "devices", "type": "quantitative", "title": "devices", "axis": {"values": devices, "grid": False},
         "scale": {"type": "log", "base": 2, "domain": [devices[0] / 1.1, devices[-1] * 1.1]}}  # fmt: skip
    line, _ = swept(values)
    scheme = {"scheme": {"name": "viridis"}}
    colour = {"field": line, "type": "ordinal", "title": title_of(sweep, line), "scale": scheme}
    at = {"x": x, "y": _total_axis(sweep)} | ({} if line == "devices" else {"color": colour})
    layers = [
        _of(_PLANNED, {"type": "line", "strokeWidth": 1.5}, at | _length(sweep, values)),
        _of(_PLANNED, {"type": "point", "filled": True, "size": 45, "opacity": 1}, at | {"tooltip": _told(sweep)}),
    ]
    if ideal := _ideal(values):
        mark = {"type": "line", "color": "#999999", "strokeDash": [2, 3]}
        axes = {"x": x, "y": _total_axis(sweep), "order": {"field": "devices"}}
        layers.insert(0, {"data": {"values": ideal}, "mark": mark, "encoding": axes})
    head = {"text": "Scaling over devices", "subtitle": "Dotted: twice the devices, twice the tokens/s"}
    return {"title": head, "width": _HALF, "height": 260, "layer": layers}


def _ideal(values: list[Chart]) -> list[Chart]:
    """The line of perfect scaling, from the batch with most tokens/s on the fewest devices."""
    drawn = [row for row in values if "total" in row]
    few, many = (f(row["devices"] for row in drawn) if drawn else 0 for f in (min, max))
    if few == many:
        return []
    first = max(row["total"] for row in drawn if row["devices"] == few)
    return [{"devices": few, "total": first}, {"devices": many, "total": first * many / few}]


def _total_rate(sweep: Sweep, values: list[Chart]) -> Chart:
    """Tokens/s of all devices, by what is swept."""
    at = {"x": along(sweep, swept(values)[0]), "y": _total_axis(sweep), "color": _devices(sweep)}
    layers = [
        _of(_PLANNED, {"type": "line", "strokeWidth": 1.5}, at | _length(sweep, values)),
        _of(_PLANNED, {"type": "point", "filled": True, "size": 45, "opacity": 1}, at | {"tooltip": _told(sweep)}),
    ]
    return {"title": {"text": _total_axis(sweep)["title"].capitalize()}, "width": _HALF, "height": 260, "layer": layers}


def _time(sweep: Sweep, values: list[Chart]) -> Chart:
    """Seconds until every sequence has its first token, or of a step, by what is swept."""
    y = {
        "field": "step" if sweep.output_len is None else "ttft",
        "type": "quantitative",
        "title": "seconds",
        "scale": {"type": "log"},
        "axis": {"tickCount": 6},
    }
    by, _ = swept(values)
    # Where only devices are swept, one line goes along them.
    at = {"x": along(sweep, by), "y": y} | ({} if by == "devices" else {"color": _devices(sweep)})
    chosen = {"opacity": _if_chosen(1, 0.08)}
    line = {"type": "line", "strokeWidth": 1.5}
    layers = [
        _of(_PLANNED, line, at | _length(sweep, values) | chosen),
        _of(_PLANNED, {"type": "point", "filled": True, "size": 45}, at | {"tooltip": _told(sweep)} | chosen),
    ]
    if limit := sweep.limits.max_ttft_s:
        layers += _limit_at("y", limit, f"at most {human_seconds(limit)}: below this line", y)
    head = (
        {"text": "Step time"}
        if sweep.output_len is None
        else {"text": "Time to first token", "subtitle": "The whole batch arrives at once"}
    )
    return {"title": head, "width": _HALF, "height": 260, "layer": layers}


def _memory(sweep: Sweep, values: list[Chart]) -> Chart:
    """What the fullest device holds, by devices and batch, beneath what there is."""
    available = sweep.cluster.available_nbytes
    parts = ["weights", "cache", "arenas"] if sweep.output_len else ["weights", "arenas"]
    line, apart = swept(values)
    gigabytes = {"calculate": "datum.nbytes / 1e9", "as": "gigabytes"}
    scale = {"domain": [0, sweep.cluster.memory_nbytes / 1e9]}
    y = {"field": "gigabytes", "type": "quantitative", "title": "GB", "stack": "zero", "scale": scale}
    labels = {"labelAngle": 0, "labelOverlap": True}
    x = {"field": line, "type": "ordinal", "title": title_of(sweep, line), "axis": labels}
    colour = {"field": "part", "type": "nominal", "title": "holds", "sort": parts,
              "scale": {"domain": parts, "range": [_HELD[part] for part in parts]}}  # fmt: skip
    bars = {
        "transform": [{"filter": _PLANNED}, {"fold": parts, "as": ["part", "nbytes"]}, gigabytes],
        "mark": {"type": "bar", "tooltip": True},
        "encoding": {"x": x, "y": y, "color": colour, "order": {"field": "part_order"}, "tooltip": _told(sweep)},
    }
    bars["transform"].append({"calculate": f"indexof({parts!r}, datum.part)", "as": "part_order"})  # type: ignore[attr-defined]
    room = {"mark": {"type": "rule", "color": _LIMIT, "strokeDash": [6, 3]},
            "encoding": {"y": {"datum": available / 1e9}}}  # fmt: skip
    unfit = _of(
        "datum.state == 'refused'",
        {"type": "text", "angle": 270, "align": "left", "baseline": "middle", "fontSize": 10, "dx": 4},
        {"x": x, "y": {"datum": 0}, "text": {"value": "no plan"}, "color": {"value": _LIMIT}, "tooltip": _told(sweep)},
    )
    several = len({row[apart] for row in values}) > 1
    groups = len({row["devices"] for row in values}) if line != "devices" else 1
    facet = {}
    if line != "devices":
        header = {"titleOrient": "top"}
        facet["column"] = {"field": "devices", "type": "ordinal", "title": "devices", "header": header}
    if several or not facet:
        facet["row"] = {"field": apart, "type": "ordinal", "title": title_of(sweep, apart)}
    of_limit = f"Dashed: {human_bytes(available)} of {human_bytes(sweep.cluster.memory_nbytes)} without the reserve"
    return {
        "title": {"text": "Memory of the fullest device", "subtitle": of_limit},
        "facet": facet,
        "spec": {"width": max(60, _WIDTH // groups - 24), "height": 170, "layer": [bars, room, unfit]},
    }


def _length(sweep: Sweep, values: list[Chart]) -> Chart:
    """A line for each of what is not swept, dashed where there are several."""
    _, apart = swept(values)
    field = {"field": apart}
    if len({row[apart] for row in values}) == 1:
        return {"detail": field}
    return {"strokeDash": field | {"type": "nominal", "title": title_of(sweep, apart)}}


def _of(which: str, mark: Chart, encoding: Chart) -> Chart:
    """A layer of the points that a condition holds of."""
    return {"transform": [{"filter": which}], "mark": mark, "encoding": encoding}


def _points(sweep: Sweep, values: list[Chart]) -> Chart:
    """How a point is drawn, its colour apart: the front larger, and what it tells."""
    found: Chart = {
        "size": {"condition": {"test": "datum.front", "value": 90}, "value": 45},
        "opacity": _if_chosen(1, 0.08),
        "tooltip": _told(sweep),
    }
    if swept(values)[1] == "input_len" and len({row["input_len"] for row in values}) > 1:
        found["shape"] = {"field": "input_len", "type": "nominal", "title": title_of(sweep, "input_len")}
    return found


def _colours(sweep: Sweep) -> dict[int, str]:
    """The colour of each number of devices."""
    found = sorted({p.devices for p in sweep.points})
    return {devices: PALETTE[n % len(PALETTE)] for n, devices in enumerate(found)}


def _devices(sweep: Sweep) -> Chart:
    scale = {"domain": [*_colours(sweep)], "range": [*_colours(sweep).values()]}
    return {"field": "devices", "type": "ordinal", "title": "devices", "scale": scale}


def _chosen_by_legend() -> Chart:
    return {"name": _CHOSEN, "select": {"type": "point", "fields": ["devices"]}, "bind": "legend"}


def _if_chosen(yes: float, no: float) -> Chart:
    return {"condition": {"param": _CHOSEN, "value": yes}, "value": no}


def _told(sweep: Sweep) -> list[Chart]:
    return [{"field": field, "type": "nominal", "title": heading} for field, heading in told(sweep)]


def _total_axis(sweep: Sweep) -> Chart:
    of = "tokens/s of all users" if sweep.output_len else "tokens/s of all devices"
    return {"field": "total", "type": "quantitative", "title": of, "scale": {"type": "log"}, "axis": {"tickCount": 6}}


def _limit_at(axis: str, value: float, text: str, like: Chart) -> list[Chart]:
    """A line at a limit with its text."""
    at = {axis: {"datum": value, "type": "quantitative", "scale": like["scale"], "title": like["title"]}}
    words: Chart = {"type": "text", "color": _LIMIT, "fontSize": 10}
    beside = (
        {"align": "left", "dx": 5, "y": 9} if axis == "x" else {"align": "left", "baseline": "bottom", "dy": -3, "x": 5}
    )
    return [
        {"data": {"values": [{}]}, "mark": {"type": "rule", "color": _LIMIT, "strokeDash": [6, 3]}, "encoding": at},
        {"data": {"values": [{}]}, "mark": words | beside, "encoding": at | {"text": {"value": text}}},
    ]
