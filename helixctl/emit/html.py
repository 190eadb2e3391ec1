"""A page that needs no network: the drawing, and a script that shows a task's ancestors, descendants and details."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Callable, Hashable
from importlib.resources import files
from string import Template
from typing import Any

from helixctl.dag import AllGather, AllToAll, Dag, Task, Tensor, Value
from helixctl.dag.storage import held_nbytes
from helixctl.emit.heading import facts, title
from helixctl.emit.lanes import Lanes, arrange
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
from helixctl.plan import canonical_json
from helixctl.units import human_bytes, human_flops


def html(dag: Dag, layer: int | None = None) -> str:
    """The page of a dag.

    Args:
        dag: the dag.
        layer: draw this layer only; None draws all.
    """
    lanes = arrange(dag, layer)
    style, script = _resource("page.css"), _resource("page.js")
    return Template(_resource("page.html")).substitute(
        policy=_policy(style, script),
        title=escape(title(dag)),
        style=style,
        facts="".join(_fact(key, text) for key, text in facts(dag)),
        layers=_layer_options(lanes),
        legend=_legend(lanes),
        drawing=_drawing(lanes),
        data=_script_json(_data(dag, lanes)),
        script=script,
    )


def _resource(name: str) -> str:
    return files("helixctl.emit").joinpath(name).read_text(encoding="utf-8")


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
    return "".join([*entries, f"<li>{NUMBERS}</li>"] if lanes.number_width else entries)


def _layer_options(lanes: Lanes) -> str:
    """The options of the layers; the value of an option is the distance of its layer from the first, in pixels."""
    first = lanes.layers[0].start
    return "".join(f'<option value="{layer.start - first}">{escape(layer.label)}</option>' for layer in lanes.layers)


def _drawing(lanes: Lanes) -> str:
    """Three drawings, so that the headings stay in view while the tasks are scrolled."""
    width = OVERHANG + captions_right(lanes)
    return "\n".join(
        [
            _part("head", -OVERHANG, width, lanes.heading.height, head(lanes)),
            _part("gutter", -MARGIN, MARGIN + GUTTER - OVERHANG, lanes.height, gutter(lanes)),
            _part("body", -OVERHANG, width, lanes.height, body(lanes)),
        ]
    )


def _part(name: str, left: int, width: int, height: int, ink: str) -> str:
    return f'<svg class="{name}" width="{width}" height="{height}" viewBox="{left} 0 {width} {height}">\n{ink}\n</svg>'


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


def _data(dag: Dag, lanes: Lanes) -> dict[str, Any]:
    """The data for page.js, in the order of the drawing."""
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
            task.id,
            works.index((task.op, task.flops, task.nbytes), lambda: _work(task)),  # noqa: B023  called at once
            task.layer,
            task.level,
            task.ranks,
            [value(v) for v in task.inputs],
            [value(v) for v in task.outputs],
            [index[p.id] for p in dag.predecessors(task) if p.id in index],
            box.line,
            *([] if box.microbatch is None else [box.microbatch]),
        ]
        for box in lanes.boxes
        for task in [box.task]
    ]
    edges = [[edge.source, edge.target] for edge in lanes.edges]
    shared = {"works": works.rows, "tensors": tensors.rows, "kinds": kinds.rows, "values": values.rows}
    return {"tasks": tasks, **shared, "edges": edges}


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
