"""A page that needs no network: the tasks, the timeline and small plots, and the script that goes between them."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Callable, Hashable
from importlib.resources import files
from string import Template
from typing import Any, Final

from helixctl.dag import AllGather, AllToAll, Dag, Task, Tensor, Value
from helixctl.dag.storage import held_nbytes
from helixctl.emit.folds import beside, layer_folds, sentences
from helixctl.emit.heading import facts, title
from helixctl.emit.labels import PADDING
from helixctl.emit.lanes import Lanes, arrange
from helixctl.emit.plots import plots
from helixctl.emit.svg import (
    GUTTER,
    LANES,
    MARGIN,
    NUMBERS,
    OVERHANG,
    body,
    captions_right,
    drawn_levels,
    escape,
    gutter,
    head,
)
from helixctl.emit.time_data import time_data
from helixctl.emit.views import Views
from helixctl.plan import canonical_json
from helixctl.units import human_bytes, human_flops

_COPIES: Final = '<li><span class="swatch copies"></span>copies for communication</li>'
_OPENED: Final = ' role="button" tabindex="0" aria-expanded="true"'
# The files of the page's script, in the order in which they are run; they share one scope.
_SCRIPTS: Final = ("data", "details", "drawing", "folds", "timeline", "selection", "search", "views")


def html(dag: Dag, layer: int | None = None, views: Views | None = None) -> str:
    """The page of a dag.

    Args:
        dag: the dag, or the part of it that is drawn.
        layer: draw this layer only; None draws all.
        views: what else the page shows.
    """
    views = views or Views()
    folds = layer_folds(dag.plan) if layer is None else ()
    lanes = arrange(dag, layer, folds, beside=beside(views.folds))
    style, script = _resource("page.css"), _script()
    return Template(_resource("page.html")).substitute(
        policy=_policy(style, script),
        title=escape(title(dag)),
        style=style,
        facts="".join(_fact(key, text) for key, text in (*facts(dag), *_drawn(dag, views))),
        tabs=_tabs(views),
        notes=escape(" ".join(one.note for one in views.timelines)),
        copies=_COPIES if any(one.copies for one in views.timelines) else "",
        plots=plots(views.figures) if views.figures else "",
        layers=_layer_options(lanes),
        legend=_legend(lanes),
        drawing=_drawing(lanes),
        data=_script_json(_data(dag, lanes, views)),
        script=script,
    )


def _resource(name: str) -> str:
    return files("helixctl.emit").joinpath("page", name).read_text(encoding="utf-8")


def _script() -> str:
    """All files of the script as one, in a scope of its own."""
    return "\n".join(['"use strict";\n(() => {', *(_resource(f"{name}.js") for name in _SCRIPTS), "})();"])


def _drawn(dag: Dag, views: Views) -> tuple[tuple[str, str], ...]:
    """The fact that not all is drawn."""
    parts = sentences(dag.plan, views.folds) if views.folds else []
    return (("drawn", f"{', '.join(parts)}: the others are like these"),) if parts else ()


def _tabs(views: Views) -> str:
    """The buttons that choose a view, if there are several."""
    names = [("tasks", "Tasks")]
    names += [("timeline", "Timeline"), ("both", "Both")] if views.timelines else []
    names += [("figures", "Figures")] if views.figures else []
    if len(names) == 1:
        return ""
    buttons = (
        f'<button type="button" data-view="{name}" aria-pressed="false">{words}</button>' for name, words in names
    )
    return f'<span class="tabs" role="group" aria-label="View">{"".join(buttons)}</span>'


def _policy(style: str, script: str) -> str:
    """A policy that loads nothing and runs only the page's own style and script, in case an escape fails."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    own = f"style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'"
    return f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"


def _fact(key: str, text: str) -> str:
    kind = ' class="digest"' if text.startswith("sha256:") else ""
    return f"<dt>{escape(key)}</dt><dd{kind}>{escape(text)}</dd>"


def _legend(lanes: Lanes) -> str:
    items = [(level, level) for level in drawn_levels(lanes)] + list(LANES.items())
    entries = [f'<li><span class="swatch {kind}"></span>{words}</li>' for kind, words in items]
    return "".join([*entries, f'<li class="drawing">{NUMBERS}</li>'] if lanes.number_width else entries)


def _layer_options(lanes: Lanes) -> str:
    """The options of the layers; the value of an option is the distance of its layer from the first, in pixels."""
    first = lanes.layers[0].start
    return "".join(
        f'<option value="{layer.start - first}" data-top="{layer.start}">{escape(layer.label)}</option>'
        for layer in lanes.layers
    )


def _drawing(lanes: Lanes) -> str:
    """Three drawings, so that the headings stay in view while the tasks are scrolled."""
    width = OVERHANG + captions_right(lanes)
    return "\n".join(
        [
            _part("head", -OVERHANG, width, lanes.heading.height, head(lanes)),
            _part("gutter", -MARGIN, MARGIN + GUTTER - OVERHANG, lanes.height, gutter(lanes)),
            _part("body", -OVERHANG, width, lanes.height, body(lanes) + _bars(lanes)),
        ]
    )


def _part(name: str, left: int, width: int, height: int, ink: str) -> str:
    return f'<svg class="{name}" width="{width}" height="{height}" viewBox="{left} 0 {width} {height}">\n{ink}\n</svg>'


def _bars(lanes: Lanes) -> str:
    """The bars that stand for layers; those whose layers are there can be opened."""
    return "".join(
        f'<g class="fold{" closed" if bar.hidden else ""}"{_OPENED if bar.hidden else ""}>'
        f'<rect x="{-OVERHANG}" y="{bar.y}" width="{lanes.width + 2 * OVERHANG}" height="{bar.height}" rx="3"/>'
        f'<text x="{PADDING + OVERHANG}" y="{bar.y + bar.height // 2 + 4}">{escape(bar.fold.label)}</text></g>'
        for bar in lanes.bars
    )


class _Table:
    """Rows that many tasks share: each is kept once, and tasks refer to its index."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self._index: dict[Hashable, int] = {}

    def index(self, key: Hashable, make: Callable[[], Any]) -> int:
        """The index of the row of a key; ``make`` makes the row if the key is new."""
        if key not in self._index:
            self._index[key] = len(self.rows)
            self.rows.append(make())
        return self._index[key]


def _data(dag: Dag, lanes: Lanes, views: Views) -> dict[str, Any]:
    """The data for the script, in the order of the drawing."""
    works, tensors, kinds, values = _Table(), _Table(), _Table(), _Table()
    index = {box.task.id: i for i, box in enumerate(lanes.boxes)}

    def value(value_id: str) -> int:
        v = dag.value[value_id]
        tensor = tensors.index(v.tensor, lambda: _tensor(dag.tensor[v.tensor]))
        kind = kinds.index(
            (v.tensor, v.region, v.dtype, v.partial), lambda: _kind(tensor, v, held_nbytes(v, dag.tensor))
        )
        return values.index(v.id, lambda: [v.id, v.rank, kind])

    tasks = [
        [
            works.index((task.op, task.flops, task.nbytes), lambda: _work(task)),  # noqa: B023  called at once
            task.layer,
            task.level,
            task.ranks,
            [value(v) for v in task.inputs],
            [value(v) for v in task.outputs],
            box.line,
            *([] if box.microbatch is None else [box.microbatch]),
        ]
        for box in lanes.boxes
        for task in [box.task]
    ]
    edges = [[edge.source, edge.target] for edge in lanes.edges]
    shared = {"works": works.rows, "tensors": tensors.rows, "kinds": kinds.rows, "values": values.rows}
    folds = [
        {
            "hidden": bar.hidden,
            "layers": [bar.fold.hidden[0], bar.fold.hidden[-1]],
            "like": bar.fold.like[-1],
            "times": bar.fold.times,
        }
        for bar in lanes.bars
    ]
    times = time_data(views.timelines, index)
    ranks = [[column.rank, column.words] for column in lanes.columns]
    return {"tasks": tasks, **shared, "edges": edges, "folds": folds, "timelines": times, "columns": ranks}


def _work(task: Task) -> dict[str, Any]:
    """The work of a task: its kind, the attributes of the kind, flops and bytes."""
    attributes = [[f.name.replace("_", " "), _plain(getattr(task.op, f.name))] for f in dataclasses.fields(task.op)]
    received = "received by one rank" if task.is_collective else "read and written"
    return {
        "kind": task.kind,
        "attributes": [row for row in attributes if row[0] != "kind"],
        "flops": f"{task.flops:,} ({human_flops(task.flops)})" if task.flops else "0",
        "nbytes": f"{task.nbytes:,} ({human_bytes(task.nbytes)}) {received}",
    }


def _plain(value: object) -> str:
    if isinstance(value, AllToAll | AllGather):  # one of a packed exchange
        its = [f"{f.name} {getattr(value, f.name)}" for f in dataclasses.fields(value) if f.name != "kind"]
        return f"{value.kind} ({', '.join(its)})"
    if isinstance(value, tuple):
        return ", ".join(_plain(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tensor(tensor: Tensor) -> list[Any]:
    return [tensor.name, tensor.role, list(zip(tensor.dims, tensor.shape, strict=True))]


def _kind(tensor: int, value: Value, nbytes: int) -> list[Any]:
    """The fields of a value, without its rank."""
    partial = [[dim, *ends] for dim, ends in value.partial]
    return [tensor, value.region, value.dtype, partial, human_bytes(nbytes)]


def _script_json(value: object) -> str:
    """JSON that can neither end its script element nor open a comment in it."""
    text = canonical_json(value)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
