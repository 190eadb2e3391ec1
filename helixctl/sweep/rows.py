"""The rows of a sweep's plots: a point's figures as numbers to draw, and as texts to read."""

from __future__ import annotations

from typing import Any

from helixctl.sweep.columns import figures_of, tokens_of
from helixctl.sweep.document import Point, Sweep
from helixctl.units import counted, human_bytes, human_rate


def told(sweep: Sweep) -> tuple[tuple[str, str], ...]:
    """What a mark tells when the pointer is on it: the field of a row, and its heading."""
    place = (("batch_text", "batch"), ("input_text", tokens_of(sweep)), ("devices_text", "devices"))
    figures = {figure.field: figure.long for figure in figures_of(sweep)}
    total = {"total_text": "tokens/s of all"}
    fullest = {"memory_text": "memory of the fullest device"}
    return (*place, ("layout", "layout"), *(figures | total | fullest).items(), ("note", "note"))


def rows(sweep: Sweep) -> list[dict[str, Any]]:
    """A row for every point; those without a plan have no figures."""
    return [_row(sweep, point) for point in sweep.points]


def _row(sweep: Sweep, point: Point) -> dict[str, Any]:
    place = {
        "batch": point.batch,
        "devices": point.devices,
        "input_len": point.input_len,
        "state": point.state,
        "front": point.on_front,
        "batch_text": counted(point.batch, "sequence"),
        "input_text": counted(point.input_len, "token"),
        "devices_text": f"{point.devices:,} on {counted(point.hosts, 'host')}",
        "note": _note(point),
    }
    return place | _figures(sweep, point)


def _note(point: Point) -> str:
    if point.state == "over_limit":
        return f"over the limit: {point.reason}"
    if point.state == "refused":
        return f"{point.code} {point.reason}"
    return (
        "on the Pareto front" if point.on_front else "another point is better in one of both, and no worse in the other"
    )


def _figures(sweep: Sweep, point: Point) -> dict[str, Any]:
    if point.memory_nbytes is None or point.weight_nbytes is None or point.cache_nbytes is None:
        return {}
    arenas = point.memory_nbytes - point.weight_nbytes - point.cache_nbytes
    total = point.output_tokens_per_s if sweep.output_len else point.tokens_per_s
    cache = f"cache {human_bytes(point.cache_nbytes)}, " if sweep.output_len else ""
    texts = {figure.field: figure.text(point) for figure in figures_of(sweep)}
    return (
        {
            "layout": point.name,
            "terms": point.terms,
            "user": point.rates[0],
            "device": point.rates[1],
            "total": total,
            "step": point.step_s,
            "ttft": point.ttft_s,
            "weights": point.weight_nbytes,
            "cache": point.cache_nbytes,
            "arenas": arenas,
            "total_text": human_rate(total or 0),
        }
        | texts
        | {
            "memory_text": f"{human_bytes(point.memory_nbytes)}: weights {human_bytes(point.weight_nbytes)}, "
            f"{cache}arenas {human_bytes(arenas)}",
        }
    )
