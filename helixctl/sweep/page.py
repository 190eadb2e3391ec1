"""A sweep as one page that needs no network: interactive plots, the points as a table, and where they come from."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, Final

from helixctl.sweep.charts import charts, title
from helixctl.sweep.columns import both_rates, figures_of, tokens_of
from helixctl.sweep.document import Point, Sweep
from helixctl.sweep.picture import VEGA_LITE, drawing_library
from helixctl.units import counted

# Expressions of the plots are interpreted, so that the page's policy need not allow that text is run.
_OPTIONS: Final = {
    "ast": True,
    "renderer": "svg",
    "actions": {"export": True, "source": False, "compiled": False, "editor": False},
}


def html(sweep: Sweep) -> str:
    """The page.

    Raises:
        HelixError: HX603, the library of the plots is not installed.
    """
    bundle = _bundle()
    start = f"vegaEmbed('#plots', {_script_json(charts(sweep))}, {_script_json(_OPTIONS)});"
    return Template(files("helixctl.sweep").joinpath("page.html").read_text(encoding="utf-8")).substitute(
        policy=_policy(bundle, start),
        title=escape(f"Sweep of {title(sweep)}"),
        facts="".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in _facts(sweep)),
        both=both_rates(sweep),
        head="".join(f"<th>{escape(name)}</th>" for name in _columns(sweep)),
        rows="\n".join(_row(sweep, point) for point in sweep.points),
        notes="".join(f"<li>{escape(note)}</li>" for note in sweep.notes),
        sources="".join(f"<li>{escape(line)}</li>" for line in sweep.sources),
        bundle=bundle,
        start=start,
    )


@cache
def _bundle() -> str:
    """The plots' library with all that it needs, as one script, which takes two seconds to make."""
    made: str = drawing_library().javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)
    return made.replace("</script", "<\\/script")  # in a page a script ends there, also inside a text


def _policy(*scripts: str) -> str:
    """What the page may do: run its own scripts and nothing else, load nothing."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    own = " ".join(f"'sha256-{found}'" for found in hashes)
    # The plots' library sets styles of its own.
    loads = "style-src 'unsafe-inline'; img-src data: blob:"
    return f"default-src 'none'; script-src {own}; {loads}; base-uri 'none'; form-action 'none'"


def _script_json(value: Any) -> str:
    """JSON that a script may hold: no text in it ends the script."""
    return json.dumps(value, ensure_ascii=True).replace("<", "\\u003c")


def _facts(sweep: Sweep) -> list[tuple[str, str]]:
    model, cluster, origin = sweep.model, sweep.cluster, sweep.provenance
    devices = f"{cluster.devices} x {cluster.device}"
    found = [
        ("model", f"{model.name}, {model.dtype}, {model.digest}"),
        ("cluster", f"{cluster.name}: {devices} on {counted(cluster.hosts, 'host')}, {cluster.digest}"),
        ("given as", " ".join([origin.model, origin.cluster, *(f"--set {text}" for text in origin.sets)])),
        ("objective", sweep.objective),
        ("made by", f"helixctl {origin.helixctl}: predicted, not measured"),
    ]
    if origin.layout or origin.plain:
        fixed = [f"{axis}={value}" for axis, value in origin.layout.items()]
        found.insert(4, ("fixed", ", ".join([*fixed, *(["plain"] if origin.plain else [])])))
    return found


def _columns(sweep: Sweep) -> list[str]:
    return ["", tokens_of(sweep), "batch", "devices", "layout", *(figure.long for figure in figures_of(sweep))]


def _row(sweep: Sweep, point: Point) -> str:
    classes = " ".join([point.state, *(["front"] if point.on_front else [])])
    cells = [
        "*" if point.on_front else "!" if point.state == "over_limit" else "",
        f"{point.input_len:,}",
        f"{point.batch:,}",
        f"{point.devices:,}",
    ]
    if point.memory_nbytes is None:
        why = f"{point.code} {point.reason}" + (f" ({point.hint})" if point.hint else "")
        return f'<tr class="{classes}">{_cells(cells)}<td colspan="6">{escape(why)}</td></tr>'
    cells += [point.name or "", *(figure.text(point) for figure in figures_of(sweep))]
    over = f' title="{escape(point.reason)}"' if point.reason else ""
    return f'<tr class="{classes}"{over}>{_cells(cells)}</tr>'


def _cells(texts: list[str]) -> str:
    return "".join(f"<td>{escape(text)}</td>" for text in texts)
